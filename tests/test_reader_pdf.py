"""PDF: text, boxes, paragraphs, columns, and pages that are pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from graft.documents import Document
from graft.errors import LimitExceeded, ReadError
from graft.extras import install
from graft.readers import SandboxedReader, pdf, scan
from graft.readers.page_text import Line
from graft.settings import ReadingSettings
from graft.testing.reader import check_document

LIMITS = ReadingSettings()


@pytest.fixture(scope="module")
def messy(data: Path) -> Path:
    return data / "messy"


def kinds(document: Document) -> list[tuple[str, str]]:
    return [(block.kind.value, document.text[block.start : block.end]) for block in document.blocks]


def pdf_of(*pages: Callable[[Canvas], None], **options: Any) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=A4, invariant=1, **options)
    for draw in pages:
        draw(canvas)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def lines(
    *texts: str, x: float = 72, top: float = 760, size: float = 11, font: str = "Helvetica"
) -> Callable[[Canvas], None]:
    def draw(canvas: Canvas) -> None:
        canvas.setFont(font, size)
        for index, line in enumerate(texts):
            canvas.drawString(x, top - index * size * 1.2, line)

    return draw


def test_boxes_of_a_pdf_lie_where_the_text_was_drawn() -> None:
    data = pdf_of(lines("Thirty days a year.", x=100, top=500, size=20), lines("Second page.", x=50, top=300))
    document = pdf.read(data, name="a.pdf", limits=LIMITS)
    assert document.boxes is not None
    start = document.text.index("days")
    left, bottom, right, top = document.boxes[start]
    assert 100 < left < right < 300
    assert 490 < bottom < 500 < top < 525
    assert document.page_of(start) == 1
    assert document.page_of(document.text.index("Second")) == 2
    assert np.isnan(document.boxes[document.text.index("\n")]).all()


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_boxes_lie_on_the_ink_of_the_page_as_shown_turned_and_cropped(turn: int) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setPageRotation(turn)
        canvas.setCropBox((20, 30, 560, 570))
        canvas.drawString(100, 400, "x")

    data = pdf_of(draw)
    document = pdf.read(data, name="a.pdf", limits=LIMITS)
    assert document.boxes is not None
    left, bottom, right, top = document.boxes[0]
    rendered = pypdfium2.PdfDocument(data)[0].render(scale=1).to_numpy()
    rows, columns = np.nonzero(rendered[:, :, 0] < 128)
    assert len(rows) > 4
    assert left - 1 <= columns.min() <= columns.max() <= right + 1
    assert bottom - 1 <= rendered.shape[0] - rows.max() <= rendered.shape[0] - rows.min() <= top + 1


def test_paragraphs_headings_and_bullets_of_a_pdf_are_told_by_gaps_and_sizes() -> None:
    def draw(canvas: Canvas) -> None:
        lines("Leave policy", size=18, top=760)(canvas)
        lines("Everybody has thirty days a year, and", "may take them at any time.", top=720)(canvas)
        lines("Ask your manager two weeks before", "and write it into the calendar.", top=670)(canvas)
        lines("• Bonn", "• Rome", top=620)(canvas)

    assert kinds(pdf.read(pdf_of(draw), name="a.pdf", limits=LIMITS)) == [
        ("heading", "Leave policy"),
        ("paragraph", "Everybody has thirty days a year, and\nmay take them at any time."),
        ("paragraph", "Ask your manager two weeks before\nand write it into the calendar."),
        ("list_item", "• Bonn"),
        ("list_item", "• Rome"),
    ]


def test_columns_of_a_pdf_are_not_interleaved() -> None:
    def draw(canvas: Canvas) -> None:
        lines(*(f"left column line {i}" for i in range(20)), x=50)(canvas)
        lines(*(f"right column line {i}" for i in range(20)), x=320)(canvas)

    found = pdf.read(pdf_of(draw), name="a.pdf", limits=LIMITS).text
    assert found.rindex("left") < found.index("right")


def test_hyphens_at_line_ends_are_joined_as_the_document_writes_the_word() -> None:
    page = lines("A long-term plan is an agree-", "ment for the long-", "term, which all sign.")
    document = pdf.read(pdf_of(page), name="a.pdf", limits=LIMITS)
    assert "an agreement for" in document.text
    assert document.text.count("long-term") == 2
    assert document.boxes is not None and len(document.boxes) == len(document.text)


def test_running_headers_are_kept_once_and_body_text_never_dropped() -> None:
    def page(number: int) -> Callable[[Canvas], None]:
        def draw(canvas: Canvas) -> None:
            lines("ACME annual report", top=820)(canvas)
            lines("The same sentence on every page.", f"And one of page {number} alone.", top=500)(canvas)
            lines(f"Page {number} of 6", top=30)(canvas)

        return draw

    found = pdf.read(pdf_of(*map(page, range(1, 7))), name="a.pdf", limits=LIMITS)
    assert found.text.count("ACME annual report") == 1
    assert found.text.count("Page ") == 1
    assert found.text.count("The same sentence") == 6
    assert all(found.page_of(found.text.index(f"page {n} alone")) == n for n in range(1, 7))


def test_a_title_that_is_broken_text_does_not_keep_a_pdf_from_being_read() -> None:
    whole = pdf_of(lines("Thirty days a year."), pageCompression=0).replace(
        b"/Title (untitled)", b"/Title <FEFFD8000041>"
    )
    document = pdf.read(whole, name="a.pdf", limits=LIMITS)
    assert document.text.strip() == "Thirty days a year." and document.metadata["title"] == "\ufffdA"
    named = pdf_of(lines("Thirty days a year.")).replace(b"/Title (untitled)", b"/Title <FEFF004C00E9>")
    assert pdf.read(named, name="a.pdf", limits=LIMITS).metadata["title"] == "Lé"


def test_an_encrypted_pdf_says_so() -> None:
    with pytest.raises(ReadError, match="encrypted with a password") as caught:
        pdf.read(pdf_of(lines("secret"), encrypt="pw"), name="a.pdf", limits=LIMITS)
    assert "without the password" in caught.value.fix


def test_a_scan_without_ocr_says_what_to_install(messy: Path) -> None:
    source = messy / "ocrmypdf+OCRmyPDF/tests/resources/linn.pdf"
    with pytest.raises(pdf.Scanned, match="1 of 1 pages are pictures") as caught:
        pdf.read(source.read_bytes(), name=source.name, limits=LIMITS)
    assert caught.value.fix == install("ocr")


@pytest.mark.slow
def test_a_scan_is_recognised_where_ocr_is_installed(messy: Path) -> None:
    pytest.importorskip("rapidocr", reason="needs the extra ocr")
    source = messy / "ocrmypdf+OCRmyPDF/tests/resources/c02-22.pdf"
    with SandboxedReader() as reader:
        document = reader.read(source.read_bytes(), name=source.name)
        assert reader.read(b"next", name="a.txt").text == "next"
    check_document(document, where=source.name)
    assert "stooping down so as" in document.text


@pytest.mark.slow
def test_recognition_with_too_little_memory_says_so(messy: Path) -> None:
    pytest.importorskip("rapidocr", reason="needs the extra ocr")
    source = messy / "ocrmypdf+OCRmyPDF/tests/resources/c02-22.pdf"
    with (
        SandboxedReader(ReadingSettings(max_memory_mb=500)) as reader,
        pytest.raises(LimitExceeded, match=r"reading c02-22\.pdf takes more than 500 MB of memory"),
    ):
        reader.read(source.read_bytes(), name=source.name)


def piece(written: str, left: float, right: float, bottom: float) -> Line:
    return Line(written, scan._spread(len(written), left, bottom, right, bottom + 10), 10.0)


def test_recognised_rows_of_a_form_are_joined_and_columns_of_prose_are_not() -> None:
    form = [piece("Blood pressure", 50, 150, 700), piece("142/88", 300, 350, 701), piece("Pulse", 50, 90, 680)]
    assert [line.text for line in scan.in_reading_order(form, 600)] == ["Blood pressure 142/88", "Pulse"]
    prose = [
        piece(f"{side} column, a whole line {i}", x, x + 200, 700 - 20 * i)
        for i in range(6)
        for side, x in (("left", 50), ("right", 350))
    ]
    ordered = [line.text for line in scan.in_reading_order([piece("A title over both", 50, 550, 740), *prose], 600)]
    assert ordered[0] == "A title over both"
    assert [line.split()[0] for line in ordered[1:]] == ["left"] * 6 + ["right"] * 6
