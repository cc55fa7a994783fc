"""Document or failure <-> frames on a pipe: a JSON header and raw arrays, never pickles.

A frame is the header's length (4 bytes), the header, then the blobs whose lengths it names. The receiving
side trusts nothing: lengths are checked before memory is taken, values by Document itself.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from graft.documents import Block, BlockKind, Document, Page

_LENGTH = struct.Struct(">I")
_MAX_HEADER = 1_000_000
_KINDS = tuple(BlockKind)
_CHUNK = 1 << 20


class Garbled(Exception):
    """What arrived is not what the other side may send."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    header: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def send(stream: IO[bytes], header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Write one frame and flush."""
    encoded = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    stream.write(_LENGTH.pack(len(encoded)) + encoded)
    for blob in blobs:
        stream.write(blob)
    stream.flush()


def receive(stream: IO[bytes], *, max_bytes: int) -> Frame:
    """Read one frame.

    Raises:
        EOFError: The other side is gone.
        Garbled: Not a frame, or more than `max_bytes` of blobs.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > _MAX_HEADER:
        raise Garbled(f"header of {length} bytes")
    try:
        header = json.loads(_exactly(stream, length))
        sizes = header.pop("sizes")
        sizes = [size for size in sizes if type(size) is int and size >= 0]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Garbled(f"header is no JSON object with sizes: {error}") from error
    if sum(sizes) > max_bytes or len(sizes) > 8:
        raise Garbled(f"{sum(sizes)} bytes announced, {max_bytes} allowed")
    return Frame(header, tuple(_exactly(stream, size) for size in sizes))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = stream.read(min(_CHUNK, size - len(received)))
        if not chunk:
            raise EOFError
        received += chunk
    return bytes(received)


def document_frame(document: Document) -> Frame:
    """A Document as a frame: text, blocks, pages, and boxes if there are any."""
    blocks = np.array([(b.start, b.end, _KINDS.index(b.kind), b.level) for b in document.blocks], np.int64)
    pages = np.array([(p.number, p.start, p.end, p.width, p.height) for p in document.pages], np.float64)
    blobs = [document.text.encode(), blocks.tobytes(), pages.tobytes()]
    if document.boxes is not None:
        blobs.append(np.ascontiguousarray(document.boxes, np.float32).tobytes())
    header = {"reply": "document", "format": document.format, "metadata": dict(document.metadata)}
    return Frame(header, tuple(blobs))


def document_of(frame: Frame, *, max_characters: int) -> Document:
    """The Document that a frame holds.

    Raises:
        Garbled: It holds none, or an impossible one.
    """
    try:
        text_bytes, block_bytes, page_bytes, *rest = frame.blobs
        text = text_bytes.decode()
        blocks = np.frombuffer(block_bytes, np.int64).reshape(-1, 4).tolist()
        pages = np.frombuffer(page_bytes, np.float64).reshape(-1, 5).tolist()
        boxes = np.frombuffer(rest[0], np.float32).reshape(-1, 4) if rest else None
        metadata = frame.header["metadata"]
        if len(text) > max_characters or not text.strip():
            raise Garbled(f"text of {len(text)} characters")
        return Document(
            text,
            str(frame.header["format"]),
            tuple(Block(start, end, _KINDS[kind], level) for start, end, kind, level in blocks),
            tuple(Page(int(n), int(start), int(end), width, height) for n, start, end, width, height in pages),
            boxes,
            {str(key): str(value) for key, value in metadata.items()},
        )
    except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise Garbled(f"no document: {error}") from error
