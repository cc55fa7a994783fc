"""DOCX -> Document: headings, lists, tables with header rows, foot notes after the paragraph that cites them.

The XML is read here with the standard library: the fast libraries tried dropped text (`&`, `<`, tabs,
no-break hyphens, runs beside a text box). Deleted, hidden and moved-away text, comments, page headers
and footers are left out; inserted text is read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from graft.documents import BlockKind, Document
from graft.errors import ReadError
from graft.readers.archives import open_archive, relationships, xml_member
from graft.readers.building import TextBuilder
from graft.readers.tables import add_table
from graft.settings import ReadingSettings

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT_W = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_CHOICE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"
_SKIPPED = frozenset(W + tag for tag in ("del", "moveFrom", "rPr", "pPr", "instrText", "delText", "sectPr", "tblPr"))
_MARKS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_MARKS_BY_TAG = {W + tag: text for tag, text in _MARKS.items()}
_MATHS = {M + "sSup": "^", M + "sSub": "_", M + "f": "/"}


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read a DOCX file.

    Raises:
        ReadError: Damaged, encrypted, or without text.
        LimitExceeded: Too large once unpacked.
    """
    with open_archive(data, name=name, limits=limits) as archive:
        parts = dict(relationships(archive, "", name=name).values())
        main = parts.get("officeDocument", "word/document.xml")
        root = xml_member(archive, main, name=name)
        body = root.find(W + "body") if root is not None else None
        if body is None:
            kind = "Strict" if root is not None and root.tag.startswith(_STRICT_W) else "unknown"
            raise ReadError(
                f"{name} is a Word file of the {kind} kind, without a body that Graft can read",
                fix="save it as 'Word Document (*.docx)'",
            )
        related = dict(relationships(archive, main, name=name).values())
        styles = _styles(archive, related.get("styles"), name)
        notes = _notes(archive, related, name)
        builder = TextBuilder(name=name, limits=limits)
        _Body(builder, styles, notes).add(body)
        return builder.document("docx", metadata=core_properties(archive, parts.get("core-properties"), name=name))


def core_properties(archive: zipfile.ZipFile, path: str | None, *, name: str) -> dict[str, str | None]:
    """Title, author, subject and date of an office file."""
    root = xml_member(archive, path, name=name) if path else None
    found = {element.tag.rsplit("}", 1)[-1]: element.text for element in (root if root is not None else ())}
    return {
        "title": found.get("title"),
        "author": found.get("creator"),
        "subject": found.get("subject"),
        "modified": found.get("modified"),
    }


@dataclass(frozen=True, slots=True)
class _Style:
    """What a paragraph style says, its ancestors included. `level` is a heading's, 0 for none."""

    level: int = 0
    listed: bool = False


def _styles(archive: zipfile.ZipFile, path: str | None, name: str) -> dict[str, _Style]:
    root = xml_member(archive, path, name=name) if path else None
    elements = {s.get(W + "styleId", ""): s for s in (root.iter(W + "style") if root is not None else ())}

    def resolve(identifier: str) -> _Style:
        level, listed = 0, False
        for _ in range(20):  # a style may be based on itself
            element = elements.get(identifier)
            if element is None:
                break
            level = level or _style_level(element)
            listed = listed or element.find(f"{W}pPr/{W}numPr") is not None
            identifier = _value(element.find(W + "basedOn"))
        return _Style(level, listed and not level)

    return {identifier: resolve(identifier) for identifier in elements}


def _style_level(style: Element) -> int:
    called = _value(style.find(W + "name")).lower()
    if called.startswith("heading ") and called[8:].isdecimal():
        return min(int(called[8:]), 9)
    if called == "title":
        return 1
    return _outline_level(style.find(W + "pPr"))


def _outline_level(properties: Element | None) -> int:
    given = _value(properties.find(W + "outlineLvl")) if properties is not None else ""
    return int(given) + 1 if given.isdecimal() and int(given) < 9 else 0


def _value(element: Element | None) -> str:
    return element.get(W + "val", "") if element is not None else ""


def _notes(archive: zipfile.ZipFile, related: dict[str, str], name: str) -> dict[tuple[str, str], str]:
    """Foot and end notes: (reference tag, id) -> text."""
    found = {}
    for kind in ("footnote", "endnote"):
        root = xml_member(archive, related[f"{kind}s"], name=name) if f"{kind}s" in related else None
        for note in root.iter(W + kind) if root is not None else ():
            if note.get(W + "type") is None:  # separators have one
                text = " ".join(_Paragraph(p).text.strip() for p in note.iter(W + "p"))
                found[f"{W}{kind}Reference", note.get(W + "id", "")] = text
    return found


class _Paragraph:
    """One paragraph's text, and what hangs on it: text boxes and notes."""

    def __init__(self, element: Element) -> None:
        self.boxes: list[Element] = []
        self.references: list[tuple[str, str]] = []
        self.text = "".join(self._pieces(element))

    def _pieces(self, element: Element) -> Iterator[str]:
        for child in element:
            tag = child.tag
            if tag == W + "t":
                yield child.text or ""
            elif tag == W + "r":
                if not _is_hidden(child):
                    yield from self._pieces(child)
            elif tag in _MARKS_BY_TAG:
                yield _MARKS_BY_TAG[tag] if child.get(W + "type") not in ("page", "column") else ""
            elif tag in (W + "footnoteReference", W + "endnoteReference"):
                self.references.append((tag, child.get(W + "id", "")))
            elif tag == W + "sym":
                yield _symbol(child.get(W + "char", ""))
            elif tag == W + "txbxContent":
                self.boxes.append(child)
            elif tag == _CHOICE:  # the same content for newer and for older programs
                yield from self._pieces(child[0]) if len(child) else ()
            elif tag.startswith(M):
                yield _formula(child)
            elif tag not in _SKIPPED:
                yield from self._pieces(child)


def _is_hidden(run: Element) -> bool:
    vanish = run.find(f"{W}rPr/{W}vanish")
    return vanish is not None and _value(vanish) not in ("0", "false", "off")


def _symbol(code: str) -> str:
    """A character of a symbol font, if its number means the same in Unicode."""
    try:
        number = int(code, 16)
    except ValueError:
        return ""
    return "" if 0xE000 <= number <= 0xF8FF else chr(number)


def _formula(element: Element) -> str:
    """An equation on one line: (a)/(b), a^b, a_b; what has no such form is put side by side."""
    if element.tag == M + "t":
        return (element.text or "").replace("\u2061", "")  # an invisible "function of"
    if element.tag == M + "d":
        return f"({''.join(map(_formula, element))})"
    if sign := _MATHS.get(element.tag):
        parts = [_formula(child) for child in element if not child.tag.endswith("Pr")]
        return sign.join(part if len(part) == 1 or part.isalnum() else f"({part})" for part in parts)
    return "".join(_formula(child) for child in element)


class _Body:
    """Adds the blocks of a body, a cell or a text box in order."""

    def __init__(self, builder: TextBuilder, styles: dict[str, _Style], notes: dict[tuple[str, str], str]) -> None:
        self._builder = builder
        self._styles = styles
        self._notes = notes

    def add(self, container: Element) -> None:
        """Add every paragraph and table below `container`; content controls and the like are looked through."""
        for child in container:
            if child.tag == W + "p":
                self._add_paragraph(child)
            elif child.tag == W + "tbl":
                self._add_table(child)
            elif child.tag not in _SKIPPED:
                self.add(child)

    def _add_paragraph(self, element: Element) -> None:
        paragraph = _Paragraph(element)
        properties = element.find(W + "pPr")
        style, level, numbered = _Style(), 0, False
        if properties is not None:
            style = self._styles.get(_value(properties.find(W + "pStyle")), style)
            number = properties.find(f"{W}numPr/{W}numId")
            numbered = number is not None and _value(number) != "0"
            level = _outline_level(properties)
        level = level or style.level
        if level:
            self._builder.add(" ".join(paragraph.text.split()), BlockKind.HEADING, level=level)
        else:
            listed = numbered or style.listed
            self._builder.add(paragraph.text, BlockKind.LIST_ITEM if listed else BlockKind.PARAGRAPH)
        for box in paragraph.boxes:
            self.add(box)
        for reference in paragraph.references:
            self._builder.add(self._notes.get(reference, ""), BlockKind.PARAGRAPH)

    def _add_table(self, table: Element) -> None:
        rows = [row for row in _within(table, W + "tr") if row.find(f"{W}trPr/{W}del") is None]
        cells = [list(_within(row, W + "tc")) for row in rows]
        if max(map(len, cells), default=0) < 2:  # one column is a frame around text, not a table
            for cell in (cell for row in cells for cell in row):
                self.add(cell)
            return
        above: dict[int, str] = {}
        texts = [self._row(row, above) for row in cells]
        marked = [row.find(f"{W}trPr/{W}tblHeader") is not None for row in rows]
        headers = marked.index(False) if False in marked else 1
        add_table(self._builder, texts, header_rows=max(headers, 1) if len(texts) > 1 else 0)

    def _row(self, cells: list[Element], above: dict[int, str]) -> list[str]:
        """A row's texts; a cell merged with those above it repeats their text, one merged sideways does not."""
        texts = []
        column = 0
        for cell in cells:
            merge = cell.find(f"{W}tcPr/{W}vMerge")
            text = _cell_text(cell, self._notes)
            if merge is not None and _value(merge) != "restart":
                text = above.get(column, "")
            above[column] = text
            span = _value(cell.find(f"{W}tcPr/{W}gridSpan"))
            column += int(span) if span.isdecimal() else 1
            texts.append(text)
        return texts


def _cell_text(cell: Element, notes: dict[tuple[str, str], str]) -> str:
    """All text of a cell or text box, inner tables and boxes included, on one line."""
    texts = []
    for paragraph in map(_Paragraph, _paragraphs(cell)):
        texts += [paragraph.text, *(notes.get(reference, "") for reference in paragraph.references)]
        texts += [_cell_text(box, notes) for box in paragraph.boxes]
    return " ".join(filter(None, (text.strip() for text in texts)))


def _paragraphs(container: Element) -> Iterator[Element]:
    for child in container:
        if child.tag == W + "p":
            yield child
        elif child.tag not in _SKIPPED:
            yield from _paragraphs(child)


def _within(container: Element, tag: str) -> Iterator[Element]:
    """Rows of a table or cells of a row, those inside content controls included, those of inner tables not."""
    for child in container:
        if child.tag == tag:
            yield child
        elif child.tag not in (W + "tbl", W + "tc", W + "tr"):
            yield from _within(child, tag)
