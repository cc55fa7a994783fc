"""Blocks one after the other -> Document; the one place where a reader's text is cleaned and limited.

It does not know formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from graft.documents import Block, BlockKind, Document, Page
from graft.errors import LimitExceeded, ReadError
from graft.extras import install
from graft.settings import ReadingSettings

# NUL is refused by PostgreSQL, lone surrogates by UTF-8; other control characters only hide things.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_BREAKS = "\x0b\x0c\x85\u2028\u2029"
_TIGHT = frozenset({BlockKind.LIST_ITEM, BlockKind.TABLE_HEADER, BlockKind.TABLE_ROW})
_MAX_METADATA = 500


def clean(text: str) -> str:
    """Replace characters no text should hold, one by one, so that offsets stay.

    >>> clean("a\\x00b\\x0cc\\ud800")
    'a b\\nc�'
    """

    def replacement(match: re.Match[str]) -> str:
        character = match[0]
        if character in _BREAKS:
            return "\n"
        return "\ufffd" if character >= "\ud800" else " "

    return _UNWANTED.sub(replacement, text)


def unify_newlines(text: str) -> str:
    """Write every line end as a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def finish(
    text: str,
    format: str,
    blocks: Iterable[Block],
    *,
    name: str,
    limits: ReadingSettings,
    pages: Sequence[Page] = (),
    metadata: Mapping[str, str | None] | None = None,
) -> Document:
    """Make the Document of cleaned text.

    Raises:
        ReadError: There is no text.
        LimitExceeded: The text is longer than `limits.max_characters`.
    """
    check_length(len(text), name=name, limits=limits)
    if not text.strip():
        raise no_text(name)
    return Document(text, format, tuple(blocks), tuple(pages), metadata=stated(metadata or {}))


def no_text(name: str) -> ReadError:
    """The failure of a file that could be opened but says nothing."""
    return ReadError(f"{name} holds no text", fix=f"if its text stands in pictures, save it as PDF: {install('ocr')}")


def check_length(characters: int, *, name: str, limits: ReadingSettings) -> None:
    """Raises LimitExceeded when a text is too long."""
    if characters > limits.max_characters:
        raise LimitExceeded(
            f"{name} has more than {limits.max_characters:,} characters of text",
            fix="split the file, or raise [reading] max_characters in graft.toml",
        )


def stated(metadata: Mapping[str, str | None]) -> dict[str, str]:
    """Only what the file states, on one line each, at most 500 characters."""
    cleaned = {key: " ".join(clean(value or "").split())[:_MAX_METADATA] for key, value in metadata.items()}
    return {key: value for key, value in cleaned.items() if value}


class TextBuilder:
    """Collects blocks and lays them out: a blank line between paragraphs, a line each for items and rows."""

    def __init__(self, *, name: str, limits: ReadingSettings) -> None:
        self._name = name
        self._limits = limits
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    def add(self, text: str, kind: BlockKind, *, level: int = 0) -> None:
        """Append one block; white space around it is dropped, and one of nothing else is not added.

        Raises:
            LimitExceeded: The text has become too long.
        """
        text = clean(unify_newlines(text))
        text = text.strip("\n").rstrip() if kind is BlockKind.CODE else text.strip()
        if not text.strip():
            return
        if self._blocks:
            tight = kind in _TIGHT and self._blocks[-1].kind in _TIGHT and kind is not BlockKind.TABLE_HEADER
            self._append("\n" if tight else "\n\n")
        start = self._length
        self._append(text)
        self._blocks.append(Block(start, self._length, kind, level))
        check_length(self._length, name=self._name, limits=self._limits)

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)

    def document(
        self, format: str, *, metadata: Mapping[str, str | None] | None = None, pages: Sequence[Page] = ()
    ) -> Document:
        """The Document of all that was added.

        Raises:
            ReadError: Nothing was.
        """
        return finish(
            "".join(self._parts),
            format,
            self._blocks,
            name=self._name,
            limits=self._limits,
            pages=pages,
            metadata=metadata,
        )
