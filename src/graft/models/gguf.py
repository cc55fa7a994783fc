"""A GGUF file's head -> what it is and whether the file is whole.

Checked before llama.cpp sees the file, so that a damaged one gets a message with a remedy, and so that
a model's context is known without loading it. It does not read weights.
Source: the GGUF specification, versions 2 and 3 (ggml/docs/gguf.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from graft.errors import ModelError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_KEYS, _MOST_TENSORS, _MOST_STRING = 10_000, 1_000_000, 50_000_000

# ggml type -> (values of a block, its bytes), from ggml's type table; an unknown type is left unchecked.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHead:
    """What a GGUF file says of itself.

    Attributes:
        kind: "model" or "adapter".
        context_tokens: Trained for; 0 where not stated (adapters).
        has_template: Whether it carries a chat template.
        parts: Files of a model that is split over several.
        splitter: llama.cpp's name of how text is cut before it is tokenised; "" where not stated.
    """

    kind: str
    architecture: str
    context_tokens: int
    has_template: bool
    parts: int
    splitter: str


def read_head(path: Path) -> GgufHead:
    """Read and check the head.

    Raises:
        ModelError: No such file, not a GGUF file, damaged, or shorter than its tensors need.
    """
    try:
        with path.open("rb") as file:
            return _head(file, path, path.stat().st_size)
    except OSError as error:
        raise ModelError(f"{path} cannot be opened: {error.strerror}", fix="check the path") from error
    except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} is damaged: its head cannot be read ({error})", fix="download it again and compare its sha256"
        ) from error


def _head(file: BinaryIO, path: Path, size: int) -> GgufHead:
    if file.read(4) != b"GGUF":
        raise ModelError(
            f"{path} is not a GGUF file; llama.cpp models are",
            fix="give a .gguf file; a tuned model becomes one by: graft export NAME --to gguf",
        )
    version, tensors, keys = struct.unpack("<IQQ", _take(file, 20))
    if version not in (2, 3) or keys > _MOST_KEYS or tensors > _MOST_TENSORS:
        raise ValueError(f"version {version}, {keys} keys, {tensors} tensors")
    values: dict[str, Any] = dict(_pairs(file, keys))
    end = max((offset + length for offset, length in _extents(file, tensors)), default=0)
    alignment = int(values.get("general.alignment", 32))
    data_start = -(-file.tell() // alignment) * alignment
    if data_start + end > size:
        raise ModelError(
            f"{path} is cut short: it has {size:,} bytes, its tensors need {data_start + end:,}",
            fix="download it again and compare its sha256",
        )
    architecture = str(values["general.architecture"])
    return GgufHead(
        kind=str(values.get("general.type", "model")),
        architecture=architecture,
        context_tokens=int(values.get(f"{architecture}.context_length", 0)),
        has_template="tokenizer.chat_template" in values,
        parts=int(values.get("split.count", 1)),
        splitter=str(values.get("tokenizer.ggml.pre", "")),
    )


def _take(file: BinaryIO, count: int) -> bytes:
    taken = file.read(count)
    if len(taken) != count:
        raise ValueError("it ends too early")
    return taken


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack("<" + form, _take(file, struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    length = _number(file, "Q")
    if length > _MOST_STRING:
        raise ValueError(f"a text of {length} bytes")
    return _take(file, length).decode("utf-8", "replace")


def _pairs(file: BinaryIO, keys: int) -> Iterator[tuple[str, Any]]:
    for _ in range(keys):
        yield _string(file), _value(file, _number(file, "I"))


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, _SCALARS[kind])
    item, count = _number(file, "I"), _number(file, "Q")
    if item == _STRING:
        for _ in range(count):  # vocabularies: passed over, not kept
            length = _number(file, "Q")
            if length > _MOST_STRING:
                raise ValueError(f"a text of {length} bytes")
            file.seek(length, 1)
    else:
        file.seek(count * struct.calcsize(_SCALARS[item]), 1)
    return None


def _extents(file: BinaryIO, tensors: int) -> Iterator[tuple[int, int]]:
    """Offset and bytes of each tensor, from the start of the data."""
    for _ in range(tensors):
        _string(file)
        values = 1
        for _ in range(_number(file, "I")):
            values *= _number(file, "Q")
        per_block, block_bytes = _BLOCKS.get(_number(file, "I"), (1, 0))
        yield _number(file, "Q"), values // per_block * block_bytes
