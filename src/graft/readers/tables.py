"""Rows of cells -> blocks "a | b | c", with the header row told from titles and data.

It does not know where the rows come from: spreadsheets, CSV, DOCX, PPTX and HTML share it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from graft.documents import BlockKind
from graft.readers.building import TextBuilder

_NUMBER = re.compile(r"[-+(]*[$€£¥]?\s*[-+]?\d[\d.,' \u00a0]*(?:[eE][-+]?\d+)?\s*[%)]*")
_YEAR = re.compile(r"(?:19|20)\d\d")
_MOST_TITLE_ROWS = 10

Rows = Sequence[Sequence[str]]


def row_text(cells: Sequence[str]) -> str:
    """One line for one row; empty cells hold their place, except at the end.

    >>> row_text(["a", "", " b\\nc ", ""])
    'a |  | b c'
    """
    texts = [" ".join(cell.split()) for cell in cells]
    while texts and not texts[-1]:
        texts.pop()
    return " | ".join(texts)


def add_table(builder: TextBuilder, rows: Rows, *, header_rows: int) -> None:
    """Add a table whose number of header rows is known; empty rows are left out.

    Several header rows become one TABLE_HEADER of several lines.
    """
    header = "\n".join(filter(None, map(row_text, rows[:header_rows])))
    builder.add(header, BlockKind.TABLE_HEADER)
    for row in rows[header_rows:]:
        if any(cell.strip() for cell in row):
            builder.add(row_text(row), BlockKind.TABLE_ROW)


def add_grid(builder: TextBuilder, rows: Rows) -> None:
    """Add a grid of which only the cells are known, as in a spreadsheet.

    Leading rows of a single cell above a wider table are its title (paragraphs). The next row is the
    header, unless it is alone or half of its cells are numbers; years count as words.
    """
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    wide = [index for index, row in enumerate(filled) if _count(row) > 1]
    first = wide[0] if wide and wide[0] <= _MOST_TITLE_ROWS else 0
    for row in filled[:first]:
        builder.add(row_text(row).lstrip(" |"), BlockKind.PARAGRAPH)
    table = filled[first:]
    has_header = bool(wide) and len(table) > 1 and _is_header(table[0])
    add_table(builder, table, header_rows=int(has_header))


def _count(row: Sequence[str]) -> int:
    return sum(1 for cell in row if cell.strip())


def _is_header(row: Sequence[str]) -> bool:
    cells = [cell.strip() for cell in row if cell.strip()]
    numbers = sum(1 for cell in cells if _NUMBER.fullmatch(cell) and not _YEAR.fullmatch(cell))
    return numbers * 2 < len(cells)
