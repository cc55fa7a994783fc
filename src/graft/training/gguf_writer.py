"""checkpoint folder -> a GGUF file that llama.cpp runs; adapter -> a GGUF LoRA.

Where the checkpoint came from a GGUF, tokenizer, template and hyperparameters are copied from that file, so that
every id stays what it was; else they are written from the checkpoint (`vocabulary`). Tensors pass one by one.
It does not know how good the result is: `parity` measures that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graft.errors import ModelError
from graft.training.adapters import Adapter
from graft.training.merging import Tensor, weight_files
from graft.training.quantising import Quantisation, kind_of, quantise
from graft.training.vocabulary import write_hyperparameters, write_vocabulary

if TYPE_CHECKING:
    from gguf import GGUFWriter

_ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_k_m": 15}
"""llama.cpp's numbers for `general.file_type`."""
_REPLACED = {"general.architecture", "general.file_type", "general.quantization_version", "general.name"}


@dataclass(frozen=True, slots=True)
class _Architecture:
    """How a checkpoint's tensors are called and laid out in GGUF."""

    name: str
    layers: int
    heads: int
    key_heads: int
    names: Callable[[str], str | None]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Architecture:
        import gguf

        known = [_ARCHITECTURES[a] for a in config.get("architectures") or () if a in _ARCHITECTURES]
        if not known:
            raise ModelError(
                f"GGUF is written for {', '.join(_ARCHITECTURES)}, not for {config.get('architectures')}",
                fix="graft export NAME --to merged, and convert that folder with llama.cpp",
            )
        kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == known[0])
        layers = int(config["num_hidden_layers"])
        table = gguf.get_tensor_name_map(kind, layers)
        heads = int(config["num_attention_heads"])
        return cls(
            name=known[0],
            layers=layers,
            heads=heads,
            key_heads=int(config.get("num_key_value_heads") or heads),
            names=lambda name: table.get_name(name, try_suffixes=(".weight", ".bias")),
        )

    def rename(self, name: str) -> str:
        if (renamed := self.names(name)) is None:
            raise ModelError(f"GGUF has no name for the tensor {name}", fix="graft export NAME --to merged")
        return renamed

    def rearrange(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        """llama.cpp rotates neighbouring pairs where Hugging Face's llama rotates halves: reorder rows of q and k."""
        if self.name != "llama" or ".self_attn." not in name:
            return rows
        heads = {"q_proj": self.heads, "k_proj": self.key_heads}.get(name.split(".self_attn.")[1].split(".")[0])
        if heads is None:
            return rows
        halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def write_gguf(checkpoint: Path, into: Path, *, quantisation: Quantisation, name: str, like: Path | None) -> None:
    """Write `into`.

    Args:
        like: The GGUF that the checkpoint was made from.
    Raises:
        ModelError: An architecture or tokenizer that cannot be written faithfully.
        GraftError: A weight or routine that the quantisation has not; see `quantise`.
        OSError: The disk is full, or `into` cannot be written; what is there then is not whole.
    """
    import gguf

    config = read_config(checkpoint)
    architecture = _Architecture.of(config)
    writer = gguf.GGUFWriter(into, architecture.name)
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[quantisation])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if like is None:
        write_hyperparameters(writer, config)
        write_vocabulary(writer, checkpoint, config)
    else:
        _copy_fields(writer, like, architecture)
    tensors = [(file.path, tensor) for file in weight_files(checkpoint) for tensor in file.tensors]
    tied = not any(architecture.rename(tensor.name) == "output.weight" for _, tensor in tensors)
    kinds = {
        tensor.name: kind_of(
            architecture.rename(tensor.name), tensor.shape, quantisation, layers=architecture.layers, tied=tied
        )
        for _, tensor in tensors
    }
    for _, tensor in tensors:
        kind = kinds[tensor.name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = int(np.prod(tensor.shape)) // block * size
        # The writer wants the shape of bytes for quantised rows, of values for plain ones.
        shape = tensor.shape if block == 1 else gguf.quant_shape_to_byte_shape(tensor.shape, kind)
        dtype = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}.get(kind)
        writer.add_tensor_info(
            architecture.rename(tensor.name), shape, np.dtype(dtype or np.uint8), count, raw_dtype=kind
        )
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for path, tensor in tensors:
            values = architecture.rearrange(tensor.name, _float32(path, tensor))
            writer.write_tensor_data(quantise(values, kinds[tensor.name]))
    finally:
        writer.close()


def write_lora(adapter: Adapter, checkpoint: Path, into: Path, *, name: str) -> None:
    """Write the adapter as llama.cpp loads it: `NAME.lora_a`, `NAME.lora_b`, and alpha; it divides by the rank.

    Raises:
        ModelError: An architecture that cannot be written.
        OSError: As `write_gguf`.
    """
    import gguf

    architecture = _Architecture.of(read_config(checkpoint))
    writer = gguf.GGUFWriter(into, architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.alpha)
    if adapter.invocation_tokens is not None:
        tokens = list(adapter.invocation_tokens)
        writer.add_key_value(
            gguf.Keys.Adapter.ALORA_INVOCATION_TOKENS,
            tokens,
            gguf.GGUFValueType.ARRAY,
            sub_type=gguf.GGUFValueType.UINT32,
        )
    for pair, a, b in adapter.tensors():
        renamed = architecture.rename(f"{pair.module}.weight")
        # Where PEFT's scale is not alpha / rank (rank-stabilised, or its own alpha), the difference goes into B.
        b = b * (pair.scale * pair.rank / adapter.alpha)
        writer.add_tensor(f"{renamed}.lora_a", np.ascontiguousarray(a.numpy()))
        writer.add_tensor(f"{renamed}.lora_b", architecture.rearrange(pair.module, b.numpy()))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read_config(checkpoint: Path) -> dict[str, Any]:
    """config.json.

    Raises:
        ModelError: Absent or damaged.
    """
    try:
        return dict(json.loads((checkpoint / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{checkpoint} has no readable config.json: {error}", fix="make the checkpoint again"
        ) from error


def _copy_fields(writer: GGUFWriter, like: Path, architecture: _Architecture) -> None:
    """All that the original file says of itself, except how it was quantised."""
    for key, value, kind, item in _fields(like):
        if key == "general.architecture" and value != architecture.name:
            raise ModelError(
                f"{like} is a {value}, the checkpoint a {architecture.name}", fix="give the GGUF it was made from"
            )
        if key not in _REPLACED and not key.startswith(("GGUF.", "split.")):
            writer.add_key_value(key, value, kind, sub_type=item)


def _fields(path: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    import gguf

    for field in gguf.GGUFReader(path).fields.values():
        kind = field.types[0]
        yield field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None


def _float32(path: Path, tensor: Tensor) -> NDArray[np.float32]:
    """One tensor of a weight file. Shapes: as in its head."""
    raw = np.fromfile(path, dtype=np.uint8, count=tensor.size, offset=tensor.start)
    if tensor.dtype == "BF16":  # numpy has no bfloat16: it is the upper half of a float32
        return (raw.view("<u2").astype("<u4") << 16).view("<f4").reshape(tensor.shape)
    types = {"F32": "<f4", "F16": "<f2"}
    if tensor.dtype not in types:
        raise ModelError(f"{tensor.name} is stored as {tensor.dtype}, not as floats", fix="use an unquantised base")
    return raw.view(types[tensor.dtype]).astype(np.float32, copy=False).reshape(tensor.shape)
