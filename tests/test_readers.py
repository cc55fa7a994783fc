"""Each format is read as a person would read it; every reader keeps the shipped contract."""

from __future__ import annotations

import datetime as dt
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docx
import numpy as np
import openpyxl
import pytest
from docx.oxml import parse_xml
from hypothesis import given
from hypothesis import strategies as st
from reportlab.pdfgen.canvas import Canvas

from graft.documents import BlockKind, Document
from graft.errors import GraftError, ReadError
from graft.readers import (
    SandboxedReader,
    delimited,
    html,
    markdown,
    pdf,
    pptx,
    sheets,
    supported_suffixes,
    text,
)
from graft.readers import docx as docx_reader
from graft.readers.detecting import SUFFIXES, detect
from graft.readers.registry import third_party
from graft.readers.wire import document_frame, document_of
from graft.settings import ReadingSettings
from graft.testing.reader import check_document, check_reader

LIMITS = ReadingSettings()
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


@pytest.fixture(scope="module")
def reader() -> Iterator[SandboxedReader]:
    with SandboxedReader() as opened:
        yield opened


@pytest.fixture(scope="module")
def messy(data: Path) -> Path:
    return data / "messy"


def kinds(document: Document) -> list[tuple[str, str]]:
    return [(block.kind.value, document.text[block.start : block.end]) for block in document.blocks]


def pdf_of(text: str) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.drawString(72, 700, text)
    canvas.save()
    return file.getvalue()


def docx_of(build: Callable[[Any], None]) -> bytes:
    document = docx.Document()
    build(document)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def xlsx_of(build: Callable[[openpyxl.Workbook], None]) -> bytes:
    workbook = openpyxl.Workbook()
    build(workbook)
    file = io.BytesIO()
    workbook.save(file)
    return file.getvalue()


# ---- text and Markdown


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_text_is_read_in_the_encoding_it_was_written_in(encoding: str) -> None:
    written = "Der Preis beträgt 15,50 €.\nÜber „Größe“ läßt sich streiten – später."
    document = text.read(written.encode(encoding), name="a.txt", limits=LIMITS)
    assert document.text == written


def test_russian_and_japanese_legacy_encodings_are_recognised() -> None:
    russian = "Сотрудники имеют право на ежегодный отпуск продолжительностью тридцать дней. " * 3
    japanese = "社員は年に三十日の休暇を取ることができます。申請は二週間前までに行ってください。" * 3
    assert text.read(russian.encode("cp1251"), name="a.txt", limits=LIMITS).text == russian
    assert text.read(japanese.encode("shift_jis"), name="a.txt", limits=LIMITS).text == japanese


def test_binary_data_is_not_taken_for_text() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    with pytest.raises(ReadError, match="binary data of no format"):
        text.read(noise, name="a.txt", limits=LIMITS)


def test_paragraphs_are_runs_of_lines_and_line_ends_become_line_feeds() -> None:
    document = text.read(b"one\r\ntwo\r\n\r\n \t\r\n  three\rfour  \r\n", name="a.txt", limits=LIMITS)
    assert kinds(document) == [("paragraph", "one\ntwo"), ("paragraph", "three\nfour")]


@given(st.text())
def test_any_text_is_refused_as_empty_or_kept_and_covered_by_blocks(written: str) -> None:
    try:
        document = text.read(written.encode("utf-8", "surrogatepass"), name="a.txt", limits=LIMITS)
    except ReadError:
        return
    check_document(document, where=repr(written))


@given(st.text(alphabet="ab #*-|>`\n\t1.[]:=_<", max_size=200))
def test_any_markdown_keeps_its_text_and_blocks_cover_it(written: str) -> None:
    try:
        document = markdown.read(written.encode(), name="a.md", limits=LIMITS)
    except ReadError:
        assert not written.strip()
        return
    assert document.text == written
    check_document(document, where=repr(written))


def test_markdown_offsets_point_into_the_source() -> None:
    source = (
        "---\ntitle: Leave policy\nowner: 'HR'\n---\n# Leave\n\nThirty days *a year*.\n\n- one\n  - two\n\n"
        "| City | Days |\n|------|-----:|\n| Bonn | 30 |\n| Rome | 28 |\n\n```sh\nls  -l\n```\n\nNext\n----\n\n[x]: http://y\n"
    )
    document = markdown.read(source.encode(), name="a.md", limits=LIMITS)
    assert document.text == source
    assert document.metadata == {"title": "Leave policy", "owner": "HR"}
    assert kinds(document)[1:] == [
        ("heading", "# Leave"),
        ("paragraph", "Thirty days *a year*."),
        ("list_item", "- one"),
        ("list_item", "- two"),
        ("table_header", "| City | Days |\n|------|-----:|"),
        ("table_row", "| Bonn | 30 |"),
        ("table_row", "| Rome | 28 |"),
        ("code", "```sh\nls  -l\n```"),
        ("heading", "Next\n----"),
        ("paragraph", "[x]: http://y"),
    ]
    assert [block.level for block in document.blocks if block.kind is BlockKind.HEADING] == [1, 2]


# ---- HTML

PAGE = """<!doctype html><html lang="en">
<head><title>Leave &amp; pay</title><style>p {color: red}</style></head><body>
<header><p>ACME portal</p></header><nav><ul><li>Home</li></ul></nav>
<h1>Leave</h1><p>Thirty <b>days</b>\n a year.<br>Ask early.</p><p hidden>secret</p><p style="display: none">secret</p>
<ul><li>Bonn</li><li><p>Rome</p></li></ul><pre>a  b\n  c</pre>
<table><thead><tr><th>City<th>Days</thead><tr><td rowspan=2>Bonn<td>30<tr><td>31</table>
<table><tr><td><h2>Inside a layout table</h2><td>Text</table>
<script>alert("secret")</script><aside>Related</aside><footer>© ACME</footer></body></html>"""


def test_a_web_page_is_read_without_its_furniture_and_hidden_parts() -> None:
    document = html.read(PAGE.encode(), name="a.html", limits=LIMITS)
    assert document.metadata == {"title": "Leave & pay", "language": "en"}
    assert kinds(document) == [
        ("heading", "Leave"),
        ("paragraph", "Thirty days a year.\nAsk early."),
        ("list_item", "Bonn"),
        ("list_item", "Rome"),
        ("code", "a  b\n  c"),
        ("table_header", "City | Days"),
        ("table_row", "Bonn | 30"),
        ("table_row", "Bonn | 31"),
        ("heading", "Inside a layout table"),
        ("paragraph", "Text"),
    ]


def test_a_page_that_is_all_header_and_footer_is_still_read() -> None:
    document = html.read(
        b"<body><header><h1>Opening hours</h1><p>9 to 5</p></header></body>", name="a.html", limits=LIMITS
    )
    assert document.text == "Opening hours\n\n9 to 5"


def test_a_nearly_empty_main_element_does_not_hide_the_rest() -> None:
    page = "<body><main>Loading</main><div>" + "<p>The real content of the page.</p>" * 5 + "</div></body>"
    assert "real content" in html.read(page.encode(), name="a.html", limits=LIMITS).text


def test_html_says_its_own_encoding() -> None:
    page = '<html><head><meta charset="windows-1251"></head><body>Отпуск</body></html>'
    assert html.read(page.encode("cp1251"), name="a.html", limits=LIMITS).text == "Отпуск"


# ---- tables


def test_numbers_dates_and_titles_of_a_workbook_are_written_as_people_do() -> None:
    def build(workbook: openpyxl.Workbook) -> None:
        sheet = workbook.active
        assert sheet is not None
        sheet.title = "Budget"
        sheet["A1"] = "Budget of 2024"
        sheet.merge_cells("A1:C1")
        for row in [
            ("Team", "Until", 2024),
            ("Sales", dt.date(2024, 5, 1), 4950),
            ("", dt.datetime(2024, 5, 1, 9, 30), 0.3),
        ]:
            sheet.append(row)
        sheet.merge_cells("A3:A4")
        hidden = workbook.create_sheet("Salaries")
        hidden["A1"] = "secret"
        hidden.sheet_state = "hidden"

    document = sheets.read(xlsx_of(build), name="a.xlsx", limits=LIMITS)
    assert kinds(document) == [
        ("heading", "Budget"),
        ("paragraph", "Budget of 2024"),
        ("table_header", "Team | Until | 2024"),
        ("table_row", "Sales | 2024-05-01 | 4950"),
        ("table_row", "Sales | 2024-05-01 09:30:00 | 0.3"),
    ]
    assert document.metadata == {"sheets": "Budget", "hidden_sheets": "Salaries"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_csv_file_is_found(delimiter: str) -> None:
    source = f'Name{delimiter}Price\n"Screw{delimiter} 3 mm"{delimiter}1.50\nNut{delimiter}0.75\n'
    document = delimited.read(source.encode(), name="a.csv", limits=LIMITS)
    assert kinds(document) == [
        ("table_header", "Name | Price"),
        ("table_row", f"Screw{' ' if delimiter == chr(9) else delimiter} 3 mm | 1.50".replace("  ", " ")),
        ("table_row", "Nut | 0.75"),
    ]


def test_decimal_commas_do_not_split_a_semicolon_file() -> None:
    document = delimited.read(b"Jahr;Umsatz\n2022;143,1\n2023;215,32\n", name="a.csv", limits=LIMITS)
    assert document.text.splitlines()[1] == "2022 | 143,1"


def test_a_table_of_numbers_has_no_header() -> None:
    document = delimited.read(b"1,2\n3,4\n", name="a.csv", limits=LIMITS)
    assert {block.kind for block in document.blocks} == {BlockKind.TABLE_ROW}


# ---- Office


def run(content: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{content}</w:t></w:r>'


def test_no_text_of_a_word_file_is_lost_and_none_that_was_deleted_or_hidden_is_read() -> None:
    def build(document: Any) -> None:
        for content in (
            run("AT&amp;T &lt; 5, day")
            + "<w:r><w:noBreakHyphen/></w:r>"
            + run("to")
            + "<w:r><w:tab/></w:r>"
            + run("day"),
            run("kept ") + f'<w:ins w:id="1" w:author="a">{run("inserted")}</w:ins>'
            f'<w:del w:id="2" w:author="a"><w:r><w:delText>deleted</w:delText></w:r></w:del>'
            + run("hidden", "<w:vanish/>"),
            f"<w:sdt><w:sdtContent>{run('in a control')}</w:sdtContent></w:sdt>",
            run("beside the box")
            + f"<w:r><w:pict><w:txbxContent><w:p>{run('in the box')}</w:p></w:txbxContent></w:pict></w:r>",
        ):
            document.element.body.insert(len(document.element.body) - 1, parse_xml(f"<w:p {W}>{content}</w:p>"))

    document = docx_reader.read(docx_of(build), name="a.docx", limits=LIMITS)
    assert document.text.split("\n\n") == [
        "AT&T < 5, day-to\tday",
        "kept inserted",
        "in a control",
        "beside the box",
        "in the box",
    ]


def test_headings_lists_and_tables_of_a_word_file_keep_their_structure() -> None:
    def build(document: Any) -> None:
        document.add_heading("Leave", 1)
        document.add_paragraph("Thirty days.")
        document.add_paragraph("Bonn", "List Bullet")
        table = document.add_table(3, 3)
        for row, cells in enumerate([("City", "Days", "From"), ("Bonn", "30", "May"), ("", "31", "June")]):
            for column, cell in enumerate(cells):
                table.cell(row, column).text = cell
        table.cell(1, 0).merge(table.cell(2, 0))

    document = docx_reader.read(docx_of(build), name="a.docx", limits=LIMITS)
    assert kinds(document) == [
        ("heading", "Leave"),
        ("paragraph", "Thirty days."),
        ("list_item", "Bonn"),
        ("table_header", "City | Days | From"),
        ("table_row", "Bonn | 30 | May"),
        ("table_row", "Bonn | 31 | June"),
    ]


def test_each_slide_is_a_page_with_its_title_as_heading(messy: Path) -> None:
    source = messy / "Unstructured-IO+unstructured/example-docs/fake-power-point-table.pptx"
    document = pptx.read(source.read_bytes(), name=source.name, limits=LIMITS)
    assert kinds(document)[:3] == [
        ("heading", "A Slide with a Table"),
        ("table_header", "Column 1 | Column 2 | Column 3"),
        ("table_row", "Red | Green | Blue"),
    ]
    assert [(page.number, page.width, page.height) for page in document.pages] == [(1, 720.0, 540.0)]


# ---- choosing the reader


def test_a_mislabelled_file_is_read_by_what_it_is(reader: SandboxedReader) -> None:
    word = docx_of(lambda document: document.add_paragraph("A Word file."))
    assert reader.read(pdf_of("A PDF."), name="notes.txt").format == "pdf"
    assert reader.read(word, name="notes.pdf").format == "docx"
    assert reader.read(PAGE.encode(), name="page.txt").format == "html"
    assert reader.read(b"a;b\n1;2\n", name="export.xls").format == "csv"
    with pytest.raises(ReadError, match=r"picture\.pdf is a PNG picture"):
        reader.read(b"\x89PNG\r\n\x1a\n" + bytes(50), name="picture.pdf")
    with pytest.raises(ReadError, match="called a PDF but is none"):
        reader.read(b"404 not found", name="report.pdf")


def test_every_foreign_format_is_named_and_has_a_remedy(messy: Path) -> None:
    seen = set()
    for path in messy.rglob("*"):
        if path.suffix in (".epub", ".msg", ".odt", ".rtf", ".heic", ".tiff", ".zip", ".eml"):
            with pytest.raises(ReadError) as caught:
                detect(path.read_bytes(), path.name)
            assert path.name in caught.value.message and caught.value.fix
            seen.add(path.suffix)
    assert len(seen) == 8


def test_an_empty_file_is_a_failure(reader: SandboxedReader) -> None:
    with pytest.raises(ReadError, match=r"a\.txt is empty"):
        reader.read(b"", name="/some/where/a.txt")
    with pytest.raises(ReadError, match=r"a\.txt holds no text"):
        reader.read(b" \n\t", name="a.txt")


def test_all_suffixes_lead_to_a_reader() -> None:
    assert set(SUFFIXES) <= supported_suffixes()
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES)


def test_another_package_brings_a_reader_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shouting.py").write_text(
        "from graft.readers import text\n"
        "def read(data, *, name, limits):\n"
        "    return text.read(data.upper(), name=name, limits=limits)\n"
    )
    distribution = tmp_path / "shouting-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[graft.readers]\nshout = shouting\nbroken = no_such_module\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with SandboxedReader() as reader:
        assert reader.read(b"thirty days", name="a.shout").text == "THIRTY DAYS"
        assert reader.read(pdf_of("A PDF."), name="a.shout").text == "A PDF."
        with pytest.raises(ReadError, match=r"the reader no_such_module for \.broken cannot be loaded"):
            reader.read(b"text", name="a.broken")
    monkeypatch.syspath_prepend(tmp_path)
    third_party.cache_clear()
    assert ".shout" in supported_suffixes()
    third_party.cache_clear()


# ---- the contract, on real files


def test_every_reader_keeps_the_contract(messy: Path) -> None:
    unstructured, markitdown = messy / "Unstructured-IO+unstructured/example-docs", messy / "microsoft+markitdown"
    tests = markitdown / "packages/markitdown/tests/test_files"
    samples: list[tuple[Any, list[Path]]] = [
        (text, [unstructured / "norwich-city.txt", unstructured / "fake-text-utf-16.txt"]),
        (markdown, [unstructured / "README.md"]),
        (html, [tests / "test_blog.html", unstructured / "example-10k-1p.html"]),
        (pdf, [unstructured / "pdf/multi-column-2p.pdf", unstructured / "pdf/layout-parser-paper-fast.pdf"]),
        (docx_reader, [tests / "test.docx", unstructured / "docx-tables.docx", unstructured / "page-breaks.docx"]),
        (pptx, [tests / "test.pptx"]),
        (sheets, [tests / "test.xlsx", tests / "test.xls", unstructured / "vodafone.xlsx"]),
        (delimited, [unstructured / "stanley-cups.csv", unstructured / "stanley-cups-utf-16.csv"]),
    ]
    checked = 0
    for reader, paths in samples:
        check_reader(reader, {path.name: path.read_bytes() for path in paths})
        checked += len(paths)
    assert checked == 16


def test_documents_survive_the_wire() -> None:
    for document in (
        pdf.read(pdf_of("Thirty days."), name="a.pdf", limits=LIMITS),
        markdown.read("# Ünïcode 🤠\n\ntext".encode(), name="a.md", limits=LIMITS),
    ):
        returned = document_of(document_frame(document), max_characters=100)
        assert json.dumps(dict(returned.metadata)) == json.dumps(dict(document.metadata))
        assert (returned.text, returned.blocks, returned.pages) == (document.text, document.blocks, document.pages)


@pytest.mark.slow
def test_none_of_the_awkward_files_crashes_or_hangs_the_reader(messy: Path) -> None:
    read = failed = 0
    with SandboxedReader(ReadingSettings(max_ocr_seconds=0)) as reader:
        for path in sorted(messy.rglob("*")):
            if not path.is_file():
                continue
            try:
                check_document(reader.read(path.read_bytes(), name=path.name), where=path.name)
                read += 1
            except GraftError as error:
                assert error.message and error.fix
                assert "cannot be read" not in error.message, f"an unforeseen exception: {error}"
                failed += 1
    assert read >= 350
    assert failed >= 150


def test_a_zip_member_that_is_not_xml_is_reported(reader: SandboxedReader) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<w:document><unclosed>")
    with pytest.raises(ReadError, match=r"a.docx \(word/document.xml\) is not XML"):
        reader.read(file.getvalue(), name="a.docx")
