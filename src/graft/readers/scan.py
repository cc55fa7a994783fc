"""Scanned PDF -> Document: pages without a text layer are rendered and recognised (extra `ocr`).

RapidOCR brings its weights inside its package and needs no network. It gives a box for each line, which
is shared out evenly among the line's characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pypdfium2 as pdfium

from graft.documents import Boxes, Document
from graft.readers.building import clean
from graft.readers.page_text import Line, PageLines
from graft.readers.pdf import read_pages
from graft.settings import ReadingSettings

_DPI = 200
_MOST_PIXELS = 2500  # of the longer side: larger pages are rendered more coarsely
_FEWEST_COLUMN_LINES = 5
_CROSSING_SHARE = 0.6  # of the pieces: titles, captions and whole parts of the page may go over both columns
_PROSE_CHARACTERS = 25  # a column's usual line has at least this many
_engine: Any = None


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read a PDF of which some pages are pictures; 4 to 6 processor seconds for each of those.

    Raises: As `graft.readers.pdf.read`, except Scanned.
    """
    return read_pages(data, name=name, limits=limits, recognise=_recognise)


def _recognise(page: pdfium.PdfPage, number: int) -> PageLines:
    global _engine
    if _engine is None:
        from rapidocr import RapidOCR

        _engine = RapidOCR(params={"Global.log_level": "error"})
    width, height = page.get_size()
    scale = min(_DPI / 72, _MOST_PIXELS / max(width, height, 1))
    image = page.render(scale=scale).to_numpy()
    result = _engine(image)
    lines = []
    if result.boxes is not None:
        for corners, text in zip(result.boxes, result.txts, strict=True):
            corners = np.asarray(corners, np.float32) / np.float32(scale)
            left, right = corners[:, 0].min(), corners[:, 0].max()
            top, bottom = height - corners[:, 1].min(), height - corners[:, 1].max()
            text = clean(text).strip()
            if text:
                lines.append(Line(text, _spread(len(text), left, bottom, right, top), float(top - bottom)))
    return PageLines(tuple(in_reading_order(lines, width)), width, height)


def in_reading_order(pieces: Sequence[Line], width: float) -> list[Line]:
    """Order recognised pieces of text: rows of a form or table joined to lines, columns of prose one by one."""
    gutter = _gutter(pieces, width)
    ordered: list[Line] = []
    left: list[Line] = []
    right: list[Line] = []
    for row in _rows(pieces):
        for piece in row if gutter else ():
            if piece.left < gutter < piece.right:  # a title or picture text over both columns
                ordered += [*left, *right, piece]
                left, right = [], []
            else:
                (left if piece.right <= gutter else right).append(piece)
        if not gutter:
            ordered.append(_side_by_side(row))
    return [*ordered, *left, *right]


def _rows(pieces: Sequence[Line]) -> list[list[Line]]:
    """Pieces at the same height, from top to bottom, each row from left to right."""
    rows: list[list[Line]] = []
    for piece in sorted(pieces, key=lambda piece: -float(piece.boxes[0, 3])):
        middle = (piece.boxes[0, 1] + piece.boxes[0, 3]) / 2
        if rows and rows[-1][0].boxes[0, 1] < middle:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [sorted(row, key=lambda piece: piece.left) for row in rows]


def _gutter(pieces: Sequence[Line], width: float) -> float:
    """Where the page is divided into two columns of prose; 0 if it is not. Cells of a table are shorter."""
    for x in np.linspace(0.4 * width, 0.6 * width, 21):
        left = [len(piece.text) for piece in pieces if piece.right <= x]
        right = [len(piece.text) for piece in pieces if piece.left >= x]
        crossing = len(pieces) - len(left) - len(right)
        if min(len(left), len(right)) < _FEWEST_COLUMN_LINES or crossing > _CROSSING_SHARE * len(pieces):
            continue
        if min(median(left), median(right)) >= _PROSE_CHARACTERS:
            return float(x)
    return 0.0


def _side_by_side(row: Sequence[Line]) -> Line:
    joined = row[0]
    space = np.full((1, 4), np.nan, np.float32)
    for piece in row[1:]:
        boxes = np.concatenate([joined.boxes, space, piece.boxes])
        joined = replace(joined, text=f"{joined.text} {piece.text}", boxes=boxes)
    return joined


def _spread(characters: int, left: float, bottom: float, right: float, top: float) -> Boxes:
    """Equal boxes side by side.

    >>> _spread(2, 0.0, 0.0, 10.0, 5.0).tolist()
    [[0.0, 0.0, 5.0, 5.0], [5.0, 0.0, 10.0, 5.0]]
    """
    edges = np.linspace(left, right, characters + 1, dtype=np.float32)
    boxes = np.empty((characters, 4), np.float32)
    boxes[:, 0], boxes[:, 2] = edges[:-1], edges[1:]
    boxes[:, 1], boxes[:, 3] = bottom, top
    return boxes
