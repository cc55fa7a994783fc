"""sources/**/*.md and *.csv -> handbook/**/*.pdf, *.docx and *.xlsx, the same bytes every time.

`sources/a/b.pdf.md` becomes `handbook/a/b.pdf`, likewise `.docx.md`. A folder `sources/a/b.xlsx/` becomes
one workbook, each `1 Name.csv` in it one sheet. The Markdown is the plain part only: `#` headings,
paragraphs on one line, `- ` and `1. ` lists, `|` tables; between `---` lines on top, `header:` and
`footer:` give what is printed on each page, and `page: A5` a smaller page. The text formats of the
handbook are not made here.

Run: `pip install reportlab python-docx openpyxl`, then `python samples/render.py`.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docx
import openpyxl
from docx.shared import Pt
from openpyxl.styles import Font, PatternFill
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4, A5
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, PageTemplate, Paragraph, Spacer, Table

HERE = Path(__file__).parent
DATE = dt.datetime(2026, 6, 15, 9, 0)  # written into every file, so that rendering twice gives the same bytes
_ENTRY_TIME = (2026, 6, 15, 9, 0, 0)
_NUMBERED = re.compile(r"\d+\. ")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_GREY, _PALE = colors.HexColor("#444444"), colors.HexColor("#e4ebe6")


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a source: a heading with its level, a paragraph, a list item or a table's rows."""

    kind: str  # heading, paragraph, bullet, number, table
    text: str = ""
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed Markdown source: what is printed on each page, and the blocks."""

    header: str
    footer: str
    page: tuple[float, float]  # width and height, points
    blocks: tuple[Block, ...]

    @property
    def title(self) -> str:
        """The first heading."""
        return next(block.text for block in self.blocks if block.kind == "heading")


def parse(text: str) -> Source:
    """Split a source into its page furniture and its blocks.

    >>> parse("# A\\n\\n- b").blocks[1]
    Block(kind='bullet', text='b', level=0, rows=())
    """
    furniture: dict[str, str] = {}
    if text.startswith("---\n"):
        front, text = text[4:].split("\n---\n", 1)
        furniture = {key: value.strip() for key, value in (line.split(":", 1) for line in front.splitlines())}
    page = A5 if furniture.get("page") == "A5" else A4
    blocks = tuple(_blocks(text.splitlines()))
    return Source(furniture.get("header", ""), furniture.get("footer", ""), page, blocks)


def _blocks(lines: list[str]) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
            continue
        if rows:
            yield Block("table", rows=(rows[0], *rows[2:]))  # the second row is only dashes
            rows = []
        if line.startswith("#"):
            marks, text = line.split(" ", 1)
            yield Block("heading", text, level=len(marks))
        elif line.startswith("- "):
            yield Block("bullet", line[2:])
        elif numbered := _NUMBERED.match(line):
            yield Block("number", line[numbered.end() :])
        elif line.strip():
            yield Block("paragraph", line)


# --- PDF


def render_pdf(source: Source) -> bytes:
    """Lay a source out on pages with the header, the footer and the page number on each."""
    out = io.BytesIO()
    width, height = source.page
    margin = width / 10
    document = BaseDocTemplate(
        out, pagesize=source.page, leftMargin=margin, rightMargin=margin, topMargin=26 * mm, bottomMargin=24 * mm,
        title=source.title, author="Brackenhaul", invariant=1,
    )  # fmt: skip
    frame = Frame(document.leftMargin, document.bottomMargin, document.width, document.height, id="text")

    def furniture(canvas: Canvas, _: object) -> None:
        canvas.saveState()
        canvas.setFont("Helvetica", 8 if source.page == A4 else 6.5)
        canvas.setFillColor(_GREY)
        canvas.drawString(margin, height - 15 * mm, source.header)
        canvas.line(margin, height - 17 * mm, width - margin, height - 17 * mm)
        canvas.drawString(margin, 13 * mm, source.footer)
        canvas.drawRightString(width - margin, 13 * mm, f"Page {canvas.getPageNumber()}")
        canvas.restoreState()

    document.addPageTemplates([PageTemplate(id="page", frames=[frame], onPage=furniture)])
    document.build(list(_flowables(source.blocks, document.width)))
    return out.getvalue()


def _flowables(blocks: tuple[Block, ...], width: float) -> Iterator[Flowable]:
    styles = getSampleStyleSheet()
    body = ParagraphStyle("body", parent=styles["BodyText"], fontSize=10.5, leading=15, spaceAfter=6)
    cell = ParagraphStyle("cell", parent=body, fontSize=9.5, leading=12, spaceAfter=0, spaceBefore=0)
    heading = [ParagraphStyle(name, parent=styles[name], keepWithNext=1) for name in ("Heading1", "Heading2")]
    item = ParagraphStyle("item", parent=body, leftIndent=16, bulletIndent=2, spaceAfter=3)
    number = 0
    for block in blocks:
        number = number + 1 if block.kind == "number" else 0
        match block.kind:
            case "heading":
                yield Paragraph(_escaped(block.text), heading[block.level - 1])
            case "table":
                rows = [[Paragraph(_escaped(text), cell) for text in row] for row in block.rows]
                yield _table(rows, width)
                yield Spacer(1, 4 * mm)
            case "bullet":
                yield Paragraph(_escaped(block.text), item, bulletText="•")
            case "number":
                yield Paragraph(_escaped(block.text), item, bulletText=f"{number}.")
            case _:
                yield Paragraph(_escaped(block.text), body)


def _table(rows: list[list[Paragraph]], width: float) -> Table:
    columns = len(rows[0])
    first = width * max(0.22, 1 / columns)
    table = Table(rows, colWidths=[first] + [(width - first) / (columns - 1)] * (columns - 1), repeatRows=1)
    table.setStyle(
        [
            ("GRID", (0, 0), (-1, -1), 0.4, colors.grey),
            ("BACKGROUND", (0, 0), (-1, 0), _PALE),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ]
    )
    return table


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- DOCX


def render_docx(source: Source) -> bytes:
    """Write a source as a Word file with real headings, lists and tables."""
    document = docx.Document()
    document.styles["Normal"].font.name = "Calibri"
    document.styles["Normal"].font.size = Pt(11)
    document.sections[0].header.paragraphs[0].text = source.header
    properties = document.core_properties
    properties.title, properties.author, properties.comments = source.title, "Brackenhaul", ""
    properties.created = properties.modified = DATE
    styles = {"bullet": "List Bullet", "number": "List Number", "paragraph": None}
    for block in source.blocks:
        if block.kind == "heading":
            document.add_heading(block.text, level=block.level)
        elif block.kind == "table":
            _add_table(document, block.rows)
        else:
            document.add_paragraph(block.text, style=styles[block.kind])
    out = io.BytesIO()
    document.save(out)
    return _with_fixed_times(out.getvalue())


def _add_table(document: Any, rows: tuple[tuple[str, ...], ...]) -> None:
    table = document.add_table(rows=len(rows), cols=len(rows[0]), style="Light Grid Accent 1")
    for row, texts in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    document.add_paragraph()


# --- XLSX


def render_xlsx(folder: Path) -> bytes:
    """Write a workbook, one sheet for each CSV file in the folder, in the order of their numbers."""
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for path in sorted(folder.glob("*.csv")):
        sheet = workbook.create_sheet(path.stem.split(" ", 1)[1])
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                sheet.append([_value(text) for text in row])
        for cell in sheet[1]:
            cell.font = Font(bold=True)
            cell.fill = PatternFill("solid", fgColor="E4EBE6")
        for column in sheet.columns:
            width = max(len(str(cell.value or "")) for cell in column)
            sheet.column_dimensions[column[0].column_letter].width = width + 2
        sheet.freeze_panes = "A2"
    properties = workbook.properties
    properties.creator, properties.title = "Brackenhaul", folder.stem
    out = io.BytesIO()
    workbook.save(out)
    return _with_fixed_times(out.getvalue())


def _value(text: str) -> str | int | float | None:
    """A number where the text is one, so that the sheet can calculate.

    >>> [_value(text) for text in ("4950", "14.50", "1 to 4", "")]
    [4950, 14.5, '1 to 4', None]
    """
    if not _NUMBER.fullmatch(text):
        return text or None
    return float(text) if "." in text else int(text)


# --- the files


def _with_fixed_times(archive: bytes) -> bytes:
    """The same Office file with one date everywhere: both libraries write the time of the run."""
    out = io.BytesIO()
    stamp = DATE.isoformat().encode() + b"Z"
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"(?<=>)\d{4}-\d\d-\d\dT[\d:.]+Z?(?=<)", stamp, content)
            entry = zipfile.ZipInfo(name, _ENTRY_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, content)
    return out.getvalue()


def main() -> None:
    """Render every source, and name the files written."""
    sources, handbook = HERE / "sources", HERE / "handbook"
    rendered: dict[Path, bytes] = {}
    for path in sorted(sources.rglob("*.md")):
        source = parse(path.read_text(encoding="utf-8"))
        target = handbook / path.relative_to(sources).with_suffix("")
        rendered[target] = render_pdf(source) if target.suffix == ".pdf" else render_docx(source)
    for folder in sorted(sources.rglob("*.xlsx")):
        rendered[handbook / folder.relative_to(sources)] = render_xlsx(folder)
    for target, content in rendered.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        print(f"{target.relative_to(HERE)}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
