"""The values that a reader returns: one immutable text, and what is known about ranges of it.

Offsets are counts of Python characters into `Document.text`; every range is half open, [start, end).
It does not know formats (readers) or chunks (chunking).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
"""Shape (len(text), 4): left, bottom, right, top of each character in PDF points, origin bottom left;
a row of NaN where the character has no place on a page (an inserted line break)."""


class BlockKind(StrEnum):
    """What a range of a document's text is."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST_ITEM = "list_item"
    TABLE_HEADER = "table_header"
    TABLE_ROW = "table_row"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """A structural range. `level` is a heading's depth from 1, else 0."""

    start: int
    end: int
    kind: BlockKind
    level: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a paged format: its number from 1, its range, its size in points."""

    number: int
    start: int
    end: int
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Document:
    """What one file says.

    Attributes:
        text: The whole text. Blocks cover everything in it but white space.
        format: Short name of the format: text, markdown, html, pdf, docx, xlsx, csv.
        blocks: In order of start, not overlapping, none empty. A TABLE_HEADER holds for the
            TABLE_ROWs that follow it directly.
        pages: In order, not overlapping; empty for formats without pages.
        boxes: Where each character stands on its page, or None.
        metadata: Title, author, sheet names and the like, where the file states them.
    """

    text: str
    format: str
    blocks: tuple[Block, ...]
    pages: tuple[Page, ...] = ()
    boxes: Boxes | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_ranges("block", [(b.start, b.end) for b in self.blocks], len(self.text))
        _check_ranges("page", [(p.start, p.end) for p in self.pages], len(self.text), allow_empty=True)
        if self.boxes is not None and self.boxes.shape != (len(self.text), 4):
            raise ValueError(f"boxes have shape {self.boxes.shape}, text has {len(self.text)} characters")

    def page_of(self, offset: int) -> int | None:
        """The number of the page that holds the character at `offset`, or None without pages."""
        return page_at(self.pages, offset)


def page_at(pages: tuple[Page, ...], offset: int) -> int | None:
    """The number of the last page that starts at or before `offset`, or None without pages.

    >>> page_at((Page(1, 0, 10, 612, 792), Page(2, 11, 20, 612, 792)), 12)
    2
    """
    number = None
    for page in pages:
        if page.start > offset:
            break
        number = page.number
    return number


def _check_ranges(what: str, ranges: list[tuple[int, int]], length: int, *, allow_empty: bool = False) -> None:
    last = 0
    for start, end in ranges:
        if not last <= start <= end <= length or (start == end and not allow_empty):
            raise ValueError(f"{what} [{start}, {end}) is empty, overlaps or leaves the text of {length}")
        last = end


def line_boxes(boxes: Boxes) -> tuple[tuple[float, float, float, float], ...]:
    """Boxes of characters in reading order -> a box for each line that they stand on.

    >>> rows = [[0, 10, 5, 20], [5, 11, 9, 20], [float("nan")] * 4, [0, 0, 4, 9]]
    >>> line_boxes(np.array(rows, np.float32))
    ((0.0, 10.0, 9.0, 20.0), (0.0, 0.0, 4.0, 9.0))
    """
    lines: list[list[float]] = []
    for left, bottom, right, top in boxes[~np.isnan(boxes).any(axis=1)].tolist():
        middle = (bottom + top) / 2
        if lines and lines[-1][1] <= middle <= lines[-1][3] and left >= lines[-1][0]:
            _, low, far, high = lines[-1]
            lines[-1][1:] = [min(low, bottom), max(far, right), max(high, top)]
        else:
            lines.append([left, bottom, right, top])
    return tuple((one[0], one[1], one[2], one[3]) for one in lines)
