"""float32 rows -> blocks of a GGUF type; and which type each tensor of a model gets.

The K types are quantised by llama.cpp's own routine, inside the runtime that Graft depends on anyway: no
Python package has one (`gguf` quantises the simple types only). It does not know checkpoints.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from graft.errors import GraftError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType as Type

Quantisation = Literal["f16", "q8_0", "q4_k_m"]
_ROW = 256
"""Values of a K block; a tensor whose rows are no multiple of it gets the simple type beside it."""


def kind_of(name: str, shape: tuple[int, ...], quantisation: Quantisation, *, layers: int, tied: bool) -> Type:
    """The type of one tensor.

    Args:
        name: In the GGUF, `blk.3.attn_v.weight`.
        shape: (rows, values of a row), or (values,).
        tied: Whether the embedding serves as the output layer too.
    Source: llama.cpp, `llama_tensor_get_type` for Q4_K_M (October 2026): the output layer, and half of the value
        and down projections, keep 6 bits.
    """
    from gguf import GGMLQuantizationType as Type

    if len(shape) < 2:
        return Type.F32
    if quantisation == "f16" or shape[-1] % 32:
        return Type.F16
    if quantisation == "q8_0":
        return Type.Q8_0
    output = name == "output.weight" or (tied and name == "token_embd.weight")
    if output or (name.endswith(("attn_v.weight", "ffn_down.weight")) and _wants_more(_layer(name), layers)):
        return Type.Q6_K if shape[-1] % _ROW == 0 else Type.Q8_0
    return Type.Q4_K if shape[-1] % _ROW == 0 else Type.Q5_0


def _layer(name: str) -> int:
    return int(name.split(".")[1])


def _wants_more(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def quantise(values: NDArray[np.float32], kind: Type) -> NDArray[Any]:
    """Blocks of `kind`.

    Shapes: values (rows, n) -> (rows, bytes of a row) uint8; F32 and F16 keep the shape.
    Raises:
        GraftError: This machine's llama.cpp does not show its K routine (Windows).
    """
    from gguf import GGMLQuantizationType as Type
    from gguf.quants import quantize

    if kind in (Type.Q4_K, Type.Q6_K):
        return _by_ggml(np.ascontiguousarray(values, dtype=np.float32), kind)
    blocks: NDArray[Any] = quantize(values, kind)
    if kind is Type.F16 and not np.isfinite(blocks).all():
        raise GraftError("a weight is above 65,504, the most that f16 can hold", fix="--quantisation q8_0")
    return blocks


def _by_ggml(values: NDArray[np.float32], kind: Type) -> NDArray[np.uint8]:
    from gguf.quants import quant_shape_to_byte_shape

    rows, width = values.shape
    blocks = np.empty(quant_shape_to_byte_shape(values.shape, kind), dtype=np.uint8)
    written = _ggml()(int(kind), values.ctypes.data, blocks.ctypes.data, 0, rows, width, None)
    if written != blocks.nbytes:
        raise GraftError(
            f"llama.cpp wrote {written:,} bytes of {kind.name}, not {blocks.nbytes:,}", fix="--quantisation q8_0"
        )
    return blocks


@cache
def _ggml() -> Any:
    """`ggml_quantize_chunk` of ggml.h, from the library that `xllamacpp` has loaded."""
    from xllamacpp import xllamacpp

    try:
        routine = ctypes.CDLL(xllamacpp.__file__).ggml_quantize_chunk
    except (OSError, AttributeError) as error:
        raise GraftError(
            "the llama.cpp of this machine does not show its 4-bit routine (on Windows it is hidden)",
            fix="--quantisation q8_0, or export on Linux or macOS",
        ) from error
    routine.restype = ctypes.c_size_t
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    routine.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    return routine
