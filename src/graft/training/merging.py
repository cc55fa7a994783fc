"""checkpoint folder + adapter -> one checkpoint: W + scale * B @ A, computed in float32.

A checkpoint is a folder as Hugging Face saves it (config.json, *.safetensors, tokenizer). Tensors pass one by
one from file to file, so memory is bounded by the largest of them. Each weight file records what was merged into
it, which is why merging twice changes nothing. It does not know GGUF, nor who serves the result.
"""

from __future__ import annotations

import errno
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from graft.errors import GraftError, ModelError
from graft.training.adapters import WEIGHTS, Adapter, LowRank, read_adapter
from graft.training.checkpoint import open_checkpoint

if TYPE_CHECKING:
    import torch

MERGED = "graft_merged"
"""Key of a weight file's metadata: the sha256 of each adapter merged into it, separated by blanks."""
_ORIGIN = "graft_origin.json"  # says of which GGUF a checkpoint is the dequantised copy; a merged one is of none
_MOST_HEADER = 100_000_000
_COPIED = {".json", ".jinja", ".txt", ".model", ".md"}  # configuration, tokenizer, template: no weights, no code


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """A finished merge.

    Attributes:
        changed: Tensors that the adapter changed; 0 where it had been merged before.
    """

    folder: Path
    adapter_sha256: str
    changed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Where one tensor lies in a safetensors file: dtype as its header spells it, `start` from the file's begin."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One safetensors file's head."""

    path: Path
    metadata: Mapping[str, str]
    tensors: tuple[Tensor, ...]

    @property
    def merged(self) -> frozenset[str]:
        """Adapters that are in it already."""
        return frozenset(self.metadata.get(MERGED, "").split())


def weight_files(checkpoint: Path) -> list[WeightFile]:
    """The heads of a checkpoint's weights.

    Raises:
        ModelError: There are none, only pickled ones, or a damaged one.
    """
    return [read_weight_file(path) for path in open_checkpoint(checkpoint).weights]


def read_weight_file(path: Path) -> WeightFile:
    """Read the head: 8 bytes of length, JSON of dtype, shape and place of each tensor.

    Raises:
        ModelError: Damaged or cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _MOST_HEADER):
                raise ValueError(f"a head of {length:,} bytes")
            head = json.loads(file.read(length))
        metadata = head.pop("__metadata__", {})
        tensors = [
            Tensor(
                name=name,
                dtype=given["dtype"],
                shape=tuple(given["shape"]),
                start=8 + length + given["data_offsets"][0],
                size=given["data_offsets"][1] - given["data_offsets"][0],
            )
            for name, given in head.items()
        ]
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: {error}", fix="make the checkpoint again") from error
    if any(tensor.start + tensor.size > size or tensor.size < 0 for tensor in tensors):
        raise ModelError(f"{path} is cut short at {size:,} bytes", fix="make the checkpoint again")
    return WeightFile(path=path, metadata=metadata, tensors=tuple(sorted(tensors, key=lambda t: t.start)))


def merge(checkpoint: Path, adapter: Path, into: Path) -> Merge:
    """Write the merged checkpoint; `into` appears whole or not at all.

    Each changed weight is computed in float32 and rounded once to the type it has in the base; for a float32 base
    the result is exact. Merging an adapter that is in the checkpoint already copies it unchanged.

    Raises:
        ModelError: An activated adapter, one for another base, pickled or damaged files.
        GraftError: `into` exists and is something else; the disk is full.
    """
    opened = read_adapter(adapter)
    refuse_activated(opened)
    files = weight_files(checkpoint)
    pending = _pending(opened, files)
    if into.exists():
        wanted = {file.path.name: file.merged | {opened.sha256} for file in files}
        if into.is_dir() and {file.path.name: file.merged for file in weight_files(into)} == wanted:
            return Merge(folder=into, adapter_sha256=opened.sha256, changed=0)
        raise GraftError(f"{into} exists and is not this merge", fix=f"choose another folder, or remove {into}")
    partial = into.with_name(f".{into.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _copy_others(checkpoint, partial)
        for file in files:
            _rewrite(file, partial / file.path.name, opened, pending)
        partial.rename(into)
    except OSError as error:
        raise disk_error(error, into) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Merge(folder=into, adapter_sha256=opened.sha256, changed=len(pending))


def refuse_activated(adapter: Adapter) -> None:
    """Raises: ModelError for an activated adapter."""
    if adapter.activated:
        raise ModelError(
            f"{adapter.folder} is an activated adapter: it acts only on tokens after the prompt, and merged weights "
            "would act on the prompt too, so no merged model equals it",
            fix="graft export NAME --to adapter, or tune again without the activated mode",
        )


def disk_error(error: OSError, target: Path) -> GraftError:
    """What an operating system's refusal to write means to a person."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return GraftError(
            f"no space is left on the disk for {target}; nothing was kept of it", fix="free space, or give --into DIR"
        )
    return GraftError(f"{target} cannot be written: {error.strerror or error}", fix="give another --into DIR")


def _pending(adapter: Adapter, files: list[WeightFile]) -> dict[str, LowRank]:
    """Pairs by the name of the tensor they change; none where the adapter is merged already."""
    if all(adapter.sha256 in file.merged for file in files):
        return {}
    shapes = {tensor.name: tensor.shape for file in files for tensor in file.tensors}
    pending = {f"{module}.weight": pair for module, pair in adapter.pairs.items()}
    missing = sorted(set(pending) - set(shapes))
    if missing:
        raise ModelError(
            f"{adapter.folder} changes {missing[0]} and {len(missing) - 1} more that {files[0].path.parent} has not",
            fix=f"use the base it was trained on: {adapter.base or 'unknown'}",
        )
    return pending


def _rewrite(file: WeightFile, target: Path, adapter: Adapter, pending: Mapping[str, LowRank]) -> None:
    """Copy one weight file, tensor by tensor, with the adapter added."""
    from safetensors import safe_open

    merged = " ".join(sorted(file.merged | {adapter.sha256}))
    head: dict[str, Any] = {"__metadata__": {"format": "pt", **file.metadata, MERGED: merged}}
    offset = 0
    for tensor in file.tensors:
        span = [offset, offset + tensor.size]
        head[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with (
        file.path.open("rb") as source,
        target.open("wb") as sink,
        safe_open(adapter.folder / WEIGHTS, framework="pt") as matrices,
    ):
        sink.write(struct.pack("<Q", len(text)) + text)
        for tensor in file.tensors:
            data, pair = _bytes_of(source, tensor), pending.get(tensor.name)
            sink.write(data if pair is None else _added(tensor, data, pair, matrices.get_tensor))


def _bytes_of(source: BinaryIO, tensor: Tensor) -> bytearray:
    source.seek(tensor.start)
    return bytearray(source.read(tensor.size))  # its size was held against the file's when the head was read


def _added(tensor: Tensor, data: bytearray, pair: LowRank, load: Callable[[str], torch.Tensor]) -> bytes:
    import torch

    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if tensor.dtype not in types:
        raise ModelError(
            f"{tensor.name} is stored as {tensor.dtype}; an adapter is added to {', '.join(types)}",
            fix="merge into the unquantised base",
        )
    base = torch.frombuffer(data, dtype=types[tensor.dtype]).view(tensor.shape)
    a, b = load(pair.a_key).float(), load(pair.b_key).float()
    if (b.shape[0], a.shape[1]) != tensor.shape:
        raise ModelError(
            f"{tensor.name} is {tensor.shape} in the base, the adapter was trained for {(b.shape[0], a.shape[1])}",
            fix="use the base that the adapter was trained on",
        )
    merged = (base.float() + (b @ a) * pair.scale).to(base.dtype)
    if not torch.isfinite(merged).all():
        raise ModelError(f"{tensor.name} + adapter is not finite", fix="train again with a lower learning rate")
    return merged.contiguous().view(torch.uint8).numpy().tobytes()


def _copy_others(checkpoint: Path, into: Path) -> None:
    """Configuration, tokenizer, template and index."""
    for path in sorted(checkpoint.iterdir()):
        if path.is_file() and path.suffix in _COPIED and path.name != _ORIGIN:
            shutil.copyfile(path, into / path.name)
