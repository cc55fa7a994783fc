"""Pages, boxes, vectors and sets of principals <-> what a database column holds.

Boxes take 8 bytes a character before compression (4 x uint16, a NaN as 65,535), about 1 after it, and come
back to within a tenth of a point on any page up to 6,553 points.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from graft.access import Principals
from graft.chunking import Chunk
from graft.documents import Boxes, Page
from graft.embedding.protocol import Vectors

_NOWHERE = 65_535
_HEADER = struct.Struct("<ff")


def encode_principals(principals: Principals) -> str:
    """One text for one set.

    >>> encode_principals(frozenset({"user:ben", "group:hr"}))
    '["group:hr","user:ben"]'
    """
    return json.dumps(sorted(principals), separators=(",", ":"), ensure_ascii=False)


def decode_principals(saved: str) -> Principals:
    """The inverse of `encode_principals`."""
    return frozenset(json.loads(saved))


def encode_pages(pages: Sequence[Page]) -> str:
    """JSON lists, one a page."""
    return json.dumps([[p.number, p.start, p.end, p.width, p.height] for p in pages], separators=(",", ":"))


def decode_pages(saved: str) -> tuple[Page, ...]:
    """The inverse of `encode_pages`."""
    return tuple(Page(*values) for values in json.loads(saved))


def encode_boxes(boxes: Boxes | None) -> bytes | None:
    """Tenths of a point (coarser on a page over 6,553 points), the four sides one after another, zlib."""
    if boxes is None:
        return None
    known = np.isfinite(boxes)
    low = min(0.0, float(boxes.min(initial=0.0, where=known)))
    high = float(boxes.max(initial=0.0, where=known))
    scale = min(10.0, (_NOWHERE - 1) / max(high - low, 1e-6))
    steps = np.round((np.where(known, boxes, low) - low) * scale)
    packed = np.where(known, steps, _NOWHERE).astype("<u2")
    return _HEADER.pack(low, scale) + zlib.compress(packed.T.tobytes(), 1)


def decode_boxes(saved: bytes) -> Boxes:
    """The inverse of `encode_boxes`, to within half a step."""
    low, scale = _HEADER.unpack_from(saved)
    packed = np.frombuffer(zlib.decompress(saved[_HEADER.size :]), "<u2").reshape(4, -1).T
    boxes = packed.astype(np.float32) / np.float32(scale) + np.float32(low)
    boxes[packed == _NOWHERE] = np.nan
    return boxes


def encode_vector(vector: Vectors) -> bytes:
    """float32, little endian."""
    return vector.astype("<f4").tobytes()


def decode_vector(saved: bytes) -> Vectors:
    """The inverse of `encode_vector`; its own memory."""
    return np.frombuffer(saved, "<f4").astype(np.float32)


def chunks_digest(chunks: Sequence[Chunk]) -> str:
    """Changes whenever the same text is cut differently or given another context."""
    cuts = [[c.start, c.end, c.context, c.page] for c in chunks]
    return hashlib.sha256(json.dumps(cuts, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
