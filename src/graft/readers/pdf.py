"""PDF -> Document with pages and a box for every character, from the text layer, or by OCR where there is none.

Text comes in the order in which the file draws it, which keeps columns apart. Boxes are in points of the
page as it is shown: cropped and turned. Form fields and annotations are not read.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Callable

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from numpy.typing import NDArray

from graft.documents import Boxes, Document
from graft.errors import LimitExceeded, ReadError
from graft.extras import install
from graft.readers.building import check_length, clean, no_text
from graft.readers.page_text import SOFT_HYPHEN, Line, PageLines, compose
from graft.settings import ReadingSettings

Recognise = Callable[[pdfium.PdfPage, int], PageLines]
"""A page that is a picture, and its number -> its lines."""

_BOLD = re.compile(rb"bold|black|heavy|demi|cmbx", re.IGNORECASE)
_SYMBOL_BULLETS = str.maketrans(dict.fromkeys("\uf0a7\uf0b7\uf0d8\uf0fc\uf06c\uf076", "•"))  # of Symbol and Wingdings
_UNREADABLE_SHARE = 0.5


class Scanned(ReadError):
    """Some pages are pictures; the file can be read by `graft.readers.scan` where OCR is installed."""


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read a PDF's text layer.

    Raises:
        Scanned: No page has text, or some have none and OCR is installed.
        ReadError: Damaged, encrypted, or empty.
        LimitExceeded: Too many pages or characters.
    """
    return read_pages(data, name=name, limits=limits, recognise=None)


def read_pages(data: bytes, *, name: str, limits: ReadingSettings, recognise: Recognise | None) -> Document:
    """Read a PDF; pages without a text layer go to `recognise`.

    Raises: As `read`; Scanned only without `recognise`.
    """
    document = opened(data, name, limits)
    try:
        pages: list[PageLines] = []
        pictures: list[int] = []
        characters = 0
        for index in range(len(document)):
            page = document[index]
            lines = _page_lines(page)
            if not lines.lines and _has_picture(page):
                pictures.append(index + 1)
                if recognise is not None:
                    lines = recognise(page, index + 1)
            page.close()
            characters += sum(len(line.text) for line in lines.lines)
            check_length(characters, name=name, limits=limits)
            pages.append(lines)
        metadata = _metadata(document)
    finally:
        document.close()
    if pictures and recognise is None:
        if not characters or _can_recognise(limits):
            raise Scanned(
                f"{name} is scanned: {len(pictures)} of {len(pages)} pages are pictures without a text layer",
                fix=install("ocr"),
            )
        metadata["pages_without_text"] = ", ".join(map(str, pictures))
    if not characters and pictures:
        raise ReadError(f"{name} holds no text that OCR recognises", fix="scan it again at 300 dpi, or leave it out")
    if not characters:
        raise no_text(name)
    return compose(pages, name=name, limits=limits, metadata=metadata)


def opened(data: bytes, name: str, limits: ReadingSettings) -> pdfium.PdfDocument:
    """The file, to be closed.

    Raises:
        ReadError, LimitExceeded
    """
    try:
        document = pdfium.PdfDocument(data)
        pages = len(document)
    except pdfium.PdfiumError as error:
        if error.err_code == pdfium_c.FPDF_ERR_PASSWORD:
            raise ReadError(
                f"{name} is encrypted with a password", fix="save a copy without the password (print it to PDF)"
            ) from error
        raise ReadError(
            f"{name} is a damaged PDF: {error}", fix="open it in a PDF viewer and print it to a new PDF"
        ) from error
    if pages > limits.max_pages:
        raise LimitExceeded(
            f"{name} has {pages:,} pages, the limit is {limits.max_pages:,}",
            fix="split it, or raise [reading] max_pages in graft.toml",
        )
    return document


def _can_recognise(limits: ReadingSettings) -> bool:
    return limits.max_ocr_seconds > 0 and importlib.util.find_spec("rapidocr") is not None


def _metadata(document: pdfium.PdfDocument) -> dict[str, str | None]:
    keys = {"Title": "title", "Author": "author", "Subject": "subject", "ModDate": "modified"}
    return {ours: _stated(document, theirs) for theirs, ours in keys.items()}


def _stated(document: pdfium.PdfDocument, key: str) -> str:
    """Not PdfDocument.get_metadata_value, which raises for a title that is not whole UTF-16."""
    size = pdfium_c.FPDF_GetMetaText(document, key.encode(), None, 0)
    value = ctypes.create_string_buffer(max(size, 2))
    pdfium_c.FPDF_GetMetaText(document, key.encode(), value, size)
    return value.raw[: size - 2].decode("utf-16-le", "replace") if size > 2 else ""


def _has_picture(page: pdfium.PdfPage) -> bool:
    return next(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE]), None) is not None


def _page_lines(page: pdfium.PdfPage) -> PageLines:
    """The lines of a page's text layer; none if most of it has no meaning in Unicode."""
    width, height = page.get_size()
    text_page = page.get_textpage()
    try:
        characters, boxes = _characters(text_page.raw)
        boxes = _as_shown(boxes, page)
        lines = tuple(_lines(text_page.raw, characters, boxes))
    finally:
        text_page.close()
    text = "".join(line.text for line in lines)
    unreadable = sum(1 for c in text if "\ue000" <= c <= "\uf8ff" or c == "\ufffd")
    if unreadable > _UNREADABLE_SHARE * len(text):
        lines = ()
    return PageLines(lines, width, height)


def _characters(text_page: object) -> tuple[list[str], Boxes]:
    """All characters of a page, PDFium's own line breaks included, and their boxes on the unturned page."""
    count = max(pdfium_c.FPDFText_CountChars(text_page), 0)
    rectangles = (pdfium_c.FS_RECTF * count)()
    code_of, box_of, byref = pdfium_c.FPDFText_GetUnicode, pdfium_c.FPDFText_GetLooseCharBox, ctypes.byref
    characters = []
    for index in range(count):
        code = code_of(text_page, index)
        characters.append(chr(code) if 0 < code < 0x110000 else "\ufffd")
        box_of(text_page, index, byref(rectangles[index]))
    raw = np.frombuffer(rectangles, dtype=np.float32).reshape(count, 4) if count else np.empty((0, 4), np.float32)
    return characters, raw[:, [0, 3, 2, 1]]  # FS_RECTF is left, top, right, bottom


def _as_shown(boxes: Boxes, page: pdfium.PdfPage) -> Boxes:
    """Move boxes from the file's coordinates to those of the page as it is shown."""
    left, bottom, right, top = page.get_bbox()
    width, height = right - left, top - bottom
    x0, y0 = boxes[:, 0] - left, boxes[:, 1] - bottom
    x1, y1 = boxes[:, 2] - left, boxes[:, 3] - bottom
    columns: tuple[NDArray[np.float32], ...]
    match page.get_rotation():
        case 90:
            columns = (y0, width - x1, y1, width - x0)
        case 180:
            columns = (width - x1, height - y1, width - x0, height - y0)
        case 270:
            columns = (height - y1, x0, height - y0, x1)
        case _:
            columns = (x0, y0, x1, y1)
    return np.stack(columns, axis=1).astype(np.float32)


def _lines(text_page: object, characters: list[str], boxes: Boxes) -> list[Line]:
    """Cut a page at PDFium's line breaks and where it missed one."""
    lines = []
    breaks = {i for i, c in enumerate(characters) if c in "\r\n"} | _missed_breaks(characters, boxes)
    start = 0
    for end in [*sorted(breaks), len(characters)]:
        first, last = start, end
        while first < last and characters[first].isspace():
            first += 1
        while first < last and characters[last - 1].isspace():
            last -= 1
        start = end
        if first == last:
            continue
        text, rows = _joined_surrogates("".join(characters[first:last]), boxes[first:last])
        text = SOFT_HYPHEN.join(clean(part) for part in text.split(SOFT_HYPHEN))
        if text.strip(SOFT_HYPHEN + " "):
            bold = _is_bold(text_page, first) and _is_bold(text_page, last - 1)
            size = float(np.median(rows[:, 3] - rows[:, 1]))
            lines.append(Line(text.translate(_SYMBOL_BULLETS), rows, size, bold))
    return lines


def _missed_breaks(characters: list[str], boxes: Boxes) -> set[int]:
    """Where the text goes on further left and lower without a line break, as it does in some converted pages."""
    visible = np.array([i for i, c in enumerate(characters) if not c.isspace()], np.intp)
    if len(visible) < 2:
        return set()
    previous, current = boxes[visible[:-1]], boxes[visible[1:]]
    height = current[:, 3] - current[:, 1]
    jumps = (current[:, 3] < previous[:, 1] + 0.2 * height) & (current[:, 0] < previous[:, 0] - height)
    return {
        int(i)
        for i, before in zip(visible[1:][jumps], visible[:-1][jumps], strict=True)
        if characters[before] != SOFT_HYPHEN
    }


def _is_bold(text_page: object, index: int) -> bool:
    """By the font's name: the weights that PDFium reports make Arial Italic bolder than Arial Bold."""
    name = ctypes.create_string_buffer(128)
    pdfium_c.FPDFText_GetFontInfo(text_page, index, name, len(name), ctypes.c_int())
    return bool(_BOLD.search(name.value))


def _joined_surrogates(text: str, boxes: Boxes) -> tuple[str, Boxes]:
    """PDFium gives characters beyond U+FFFF as two; a pair becomes one character with the first one's box."""
    low = [i + 1 for i in range(len(text) - 1) if "\ud800" <= text[i] < "\udc00" <= text[i + 1] < "\ue000"]
    if not low:
        return text, boxes
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    kept = np.delete(boxes, low, axis=0)
    return (joined, kept) if len(joined) == len(kept) else (text, boxes)
