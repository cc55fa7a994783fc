"""Document + where its tokens stand -> chunks, each an exact range of the document's text.

Cuts fall between blocks: sections start chunks, paragraphs and table rows stay whole, and a table's
later rows carry its header as context. Only a block longer than a chunk is cut inside, at the end of a
sentence where there is one, and only there do chunks overlap. It does not know embedders or stores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graft.documents import Block, BlockKind, Document
from graft.settings import ChunkingSettings

_SENTENCE_END = re.compile(r"[.!?。！？؟।]['\"”’)\]]*(?=\s|$)|\n")
_SMALL_SECTION = 4
"""A section below 1/4 of a chunk shares its chunk with the next one."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of a document that is searched as one.

    Attributes:
        start, end: Range in the document's text; `text == document.text[start:end]`, always.
        context: What helps to find it and is embedded and indexed with it, but is not part of the
            range: title, heading path, a table's header row.
        page: Number of the page on which it starts, or None.
    """

    start: int
    end: int
    text: str
    context: str
    page: int | None


def searchable(context: str, text: str) -> str:
    """What of a chunk is embedded: its context, then its text."""
    return f"{context}\n{text}" if context else text


def chunk(document: Document, *, tokens: NDArray[np.int32], title: str, settings: ChunkingSettings) -> list[Chunk]:
    """Cut a document.

    Args:
        tokens: Shape (tokens, 2): start and end of each token in `document.text`, in order.
        title: The first part of every chunk's context.
    Returns: In order of start; together they hold every block; none has more than
        `settings.max_tokens` tokens, but for a single token that is longer than that.
    """
    counter = _Tokens(tokens)
    return [
        Chunk(
            start=piece.start,
            end=piece.end,
            text=document.text[piece.start : piece.end],
            context=_context(title, piece, settings.context_characters),
            page=document.page_of(piece.start),
        )
        for piece in _pieces(document, counter, settings)
    ]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk to be: its range, the headings above it, and the header of the table it starts inside."""

    start: int
    end: int
    headings: tuple[str, ...]
    table_header: str


class _Tokens:
    """Counts of tokens in ranges, from their sorted positions."""

    def __init__(self, offsets: NDArray[np.int32]) -> None:
        self.starts = offsets[:, 0]
        self.ends = offsets[:, 1]

    def count(self, start: int, end: int) -> int:
        return int(np.searchsorted(self.starts, end) - np.searchsorted(self.starts, start))

    def after(self, start: int, count: int) -> int:
        """Offset at which `count` tokens from `start` on have ended."""
        last = min(int(np.searchsorted(self.starts, start)) + count, len(self.ends)) - 1
        return max(start + 1, int(self.ends[last])) if last >= 0 else start + 1

    def next_start(self, offset: int, end: int) -> int:
        """Offset of the first token that begins at `offset` or later, or `end`: a cut never splits a token."""
        number = int(np.searchsorted(self.starts, offset))
        return min(int(self.starts[number]), end) if number < len(self.starts) else end

    def before(self, end: int, count: int) -> int:
        """Offset at which the last `count` tokens before `end` begin."""
        return int(self.starts[max(0, int(np.searchsorted(self.starts, end)) - count)])


def _pieces(document: Document, tokens: _Tokens, settings: ChunkingSettings) -> Iterator[_Piece]:
    """Pack blocks greedily; start anew at a heading, cut a block only where it is too long alone."""
    path: list[tuple[int, str]] = []
    header = ""
    open_piece: _Piece | None = None
    for block in document.blocks:
        is_heading = block.kind is BlockKind.HEADING
        full = open_piece is not None and tokens.count(open_piece.start, block.end) > settings.max_tokens
        section_ends = (
            is_heading
            and open_piece is not None
            and tokens.count(open_piece.start, open_piece.end) * _SMALL_SECTION >= settings.max_tokens
        )
        if open_piece is not None and (full or section_ends):
            yield open_piece
            open_piece = None
        if is_heading:
            level = block.level or 1
            path = [(depth, text) for depth, text in path if depth < level]
        headings = tuple(text for _, text in path)
        header = _header_after(block, header, document)
        inherited = header if block.kind is BlockKind.TABLE_ROW else ""
        if open_piece is not None:
            open_piece = _Piece(open_piece.start, block.end, open_piece.headings, open_piece.table_header)
        elif tokens.count(block.start, block.end) <= settings.max_tokens:
            open_piece = _Piece(block.start, block.end, headings, inherited)
        else:
            for start, end in _cut(document.text, block, tokens, settings):
                yield _Piece(start, end, headings, inherited)
        if is_heading:
            path.append((block.level or 1, " ".join(document.text[block.start : block.end].lstrip("#").split())))
    if open_piece is not None:
        yield open_piece


def _header_after(block: Block, header: str, document: Document) -> str:
    """The table header in force once `block` has been read."""
    if block.kind is BlockKind.TABLE_HEADER:
        return " ".join(document.text[block.start : block.end].split())
    return header if block.kind is BlockKind.TABLE_ROW else ""


def _cut(text: str, block: Block, tokens: _Tokens, settings: ChunkingSettings) -> Iterator[tuple[int, int]]:
    """Ranges of a block too long for one chunk, each ending a sentence if one ends in its second half."""
    start = block.start
    while tokens.count(start, block.end) > settings.max_tokens:
        limit = min(tokens.after(start, settings.max_tokens), block.end)
        middle = (start + limit) // 2
        ends = [match.end() for match in _SENTENCE_END.finditer(text, middle, limit)]
        end = ends[-1] if ends else _word_end(text, middle, limit)
        yield start, end
        overlapping = tokens.next_start(max(tokens.before(end, settings.overlap_tokens), middle), end)
        sentence = _SENTENCE_END.search(text, overlapping, end - 1)
        start = _skip_space(text, sentence.end() if sentence else _word_start(text, overlapping, end), end)
    if start < block.end:
        yield start, block.end


def _word_end(text: str, low: int, high: int) -> int:
    """The last offset in (low, high] where a word has ended; `high` in a text without spaces."""
    if high == len(text) or text[high].isspace():
        return high
    space = max(text.rfind(" ", low, high), text.rfind("\n", low, high))
    return space if space > low else high


def _word_start(text: str, low: int, high: int) -> int:
    """The first offset in [low, high) after a space; `low` in a text without spaces."""
    space = text.find(" ", low, high)
    return space + 1 if 0 <= space < high - 1 else low


def _skip_space(text: str, start: int, end: int) -> int:
    while start < end and text[start].isspace():
        start += 1
    return start


def _context(title: str, piece: _Piece, limit: int) -> str:
    parts = [title, *(heading for heading in piece.headings if heading != title)]
    line = " > ".join(part for part in parts if part)[:limit]
    return "\n".join(part for part in (line, piece.table_header[:limit]) if part)
