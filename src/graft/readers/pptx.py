"""PPTX -> Document: each slide a page, its title a heading, tables as rows, the speaker's notes last.

Hidden slides are left out. Where shapes stand on the slide is not known, so there are no boxes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from graft.documents import BlockKind, Document, Page
from graft.errors import ReadError
from graft.readers.archives import open_archive, relationships, xml_member
from graft.readers.building import TextBuilder
from graft.readers.docx import core_properties
from graft.readers.tables import add_table
from graft.settings import ReadingSettings

P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_CHOICE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"
_EMU_PER_POINT = 12700
_TITLES = ("title", "ctrTitle")
_FURNITURE = ("sldNum", "dt", "ftr", "hdr")


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read a PPTX file.

    Raises:
        ReadError: Damaged, encrypted, or without text.
        LimitExceeded: Too large once unpacked.
    """
    with open_archive(data, name=name, limits=limits) as archive:
        parts = dict(relationships(archive, "", name=name).values())
        main = parts.get("officeDocument", "ppt/presentation.xml")
        root = xml_member(archive, main, name=name)
        if root is None:
            raise ReadError(f"{name} is a presentation without its main part", fix="save it again as PPTX")
        size = root.find(P + "sldSz")
        width, height = (
            int(size.get(key, "0")) / _EMU_PER_POINT if size is not None else 0.0 for key in ("cx", "cy")
        )
        builder = TextBuilder(name=name, limits=limits)
        pages = []
        related = relationships(archive, main, name=name)
        for number, entry in enumerate(root.iter(P + "sldId"), start=1):
            before = builder.length
            _, path = related.get(entry.get(R + "id", ""), ("", ""))
            _add_slide(builder, archive, path, name)
            start = before + 2 if 0 < before < builder.length else before  # after the blank line
            pages.append(Page(number, start, builder.length, width, height))
        metadata = core_properties(archive, parts.get("core-properties"), name=name)
        return builder.document("pptx", metadata=metadata, pages=pages)


def _add_slide(builder: TextBuilder, archive: zipfile.ZipFile, path: str, name: str) -> None:
    slide = xml_member(archive, path, name=name) if path else None
    if slide is None or slide.get("show") == "0":
        return
    for shape in sorted(_shapes(slide), key=lambda shape: _role(shape) not in _TITLES):
        _add_shape(builder, shape)
    for kind, target in relationships(archive, path, name=name).values():
        notes = xml_member(archive, target, name=name) if kind == "notesSlide" else None
        for shape in _shapes(notes) if notes is not None else ():
            if _role(shape) == "body":
                _add_shape(builder, shape)


def _shapes(element: Element) -> Iterator[Element]:
    """Shapes and tables in order, those in groups included."""
    for child in element:
        if child.tag in (P + "sp", P + "graphicFrame"):
            yield child
        elif child.tag == _CHOICE:
            yield from _shapes(child[0]) if len(child) else ()
        else:
            yield from _shapes(child)


def _role(shape: Element) -> str:
    placeholder = next(shape.iter(P + "ph"), None)
    return placeholder.get("type", "body") if placeholder is not None else ""


def _add_shape(builder: TextBuilder, shape: Element) -> None:
    role = _role(shape)
    if role in _FURNITURE:
        return
    for table in shape.iter(A + "tbl"):
        rows = [[_joined(cell) for cell in row.iter(A + "tc")] for row in table.iter(A + "tr")]
        add_table(builder, rows, header_rows=int(len(rows) > 1))
    if shape.tag == P + "graphicFrame":
        return
    if role in _TITLES:
        builder.add(_joined(shape), BlockKind.HEADING, level=1)
        return
    paragraphs = [text for text in map(_text, shape.iter(A + "p")) if text.strip()]
    kind = BlockKind.LIST_ITEM if role == "body" and len(paragraphs) > 1 else BlockKind.PARAGRAPH
    for text in paragraphs:
        builder.add(text, kind)


def _text(paragraph: Element) -> str:
    """A paragraph's text; breaks are line feeds."""
    return "".join(
        "\n" if e.tag == A + "br" else e.text or "" for e in paragraph.iter() if e.tag in (A + "t", A + "br")
    )


def _joined(element: Element) -> str:
    return " ".join(" ".join(_text(paragraph).split()) for paragraph in element.iter(A + "p")).strip()
