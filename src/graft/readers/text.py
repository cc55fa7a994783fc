"""Plain text in any encoding -> Document: paragraphs are runs of lines between blank ones."""

from __future__ import annotations

import codecs
import re

from graft.documents import Block, BlockKind, Document
from graft.errors import ReadError
from graft.readers.building import clean, finish, unify_newlines
from graft.settings import ReadingSettings

_PARAGRAPH = re.compile(r"\S(?:.*\S)?(?:[^\S\n]*\n[^\S\n]*\S.*)*")
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b")) + b"\x7f"
_SAMPLE_BYTES = 200_000  # guessing the encoding of all of a large file takes seconds


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read plain text.

    Raises:
        ReadError: Binary data, or no text.
    """
    text = clean(unify_newlines(decode(data, name=name)))
    return finish(text, "text", paragraphs(text), name=name, limits=limits)


def paragraphs(text: str, start: int = 0, end: int | None = None) -> list[Block]:
    """The paragraphs of text[start:end], without white space around them.

    >>> [(b.start, b.end) for b in paragraphs("one\\ntwo\\n\\n three ")]
    [(0, 7), (10, 15)]
    """
    found = []
    for match in _PARAGRAPH.finditer(text, start, len(text) if end is None else end):
        length = len(match[0].rstrip())
        found.append(Block(match.start(), match.start() + length, BlockKind.PARAGRAPH))
    return found


def decode(data: bytes, *, name: str, declared: str | None = None) -> str:
    """Bytes of a text in unknown encoding -> the text.

    In order: a byte order mark, `declared` (what the file says of itself), UTF-8, UTF-16 told by its
    zeros, the encoding whose text looks most like a language.

    Raises:
        ReadError: It is binary data.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding) or data.decode(encoding, errors="replace")
    _refuse_binary(data, name)
    for encoding in filter(None, (declared, "utf-8", _utf16(data))):
        if (text := _strictly(data, encoding)) is not None:
            return text
    if (text := _strictly(data, _guessed(data))) is not None:
        return text
    raise ReadError(f"{name} is text in an unknown encoding", fix="save it as UTF-8 and add it again")


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _utf16(data: bytes) -> str | None:
    sample = data[:4096]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) * 4 < len(sample) // 2:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _refuse_binary(data: bytes, name: str) -> None:
    sample = data[:_SAMPLE_BYTES]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    if controls * 50 > len(sample) and not (_utf16(data) and len(data) % 2 == 0 and _plausible_utf16(data)):
        raise ReadError(
            f"{name} is binary data of no format Graft reads", fix="save it as PDF, DOCX, XLSX, HTML or text"
        )


def _plausible_utf16(data: bytes) -> bool:
    text = data[:4096].decode(_utf16(data) or "utf-16-le", errors="replace")
    return sum(1 for c in text if c.isprintable() or c in "\t\r\n") * 10 >= len(text) * 9


def _guessed(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE_BYTES]).best()
    return best.encoding if best else "cp1252"
