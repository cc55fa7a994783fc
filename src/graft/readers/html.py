"""HTML -> Document: what a visitor reads of the page, without its furniture.

Scripts, navigation, forms and hidden parts are left out; so are headers, footers and asides outside
of the main content, unless hardly anything would remain. It follows no links and loads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from graft.documents import BlockKind, Document
from graft.readers import text as plain
from graft.readers.building import TextBuilder
from graft.readers.tables import add_table
from graft.settings import ReadingSettings

_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
_INVISIBLE = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]))", re.IGNORECASE)
_NEVER = frozenset(
    {"script", "style", "noscript", "template", "svg", "canvas", "head", "nav", "iframe", "object", "embed",
     "audio", "video", "button", "select", "textarea", "input", "dialog", "datalist", "-comment", "!doctype"}
)  # fmt: skip
_FURNITURE = frozenset({"header", "footer", "aside"})
_INLINE = frozenset(
    {"a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i",
     "img", "ins", "kbd", "label", "mark", "math", "mi", "mn", "mo", "mrow", "q", "rp", "rt", "ruby", "s",
     "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr", "-text"}
)  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_EMPTY_LINES = re.compile(r"\0(?:\s*\0)+")  # two <br> in a row are a paragraph's end
_MAIN = "main, [role=main], article"
_MAIN_SHARE = 0.3  # a <main> with less of the page's text than this is not where the content is
_KEPT_SHARE = 0.2  # furniture is kept when the rest would be less of the text than this


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read an HTML page.

    Raises:
        ReadError: Binary data, or no text that a visitor would see.
    """
    declared = _CHARSET.search(data[:4096])
    source = plain.decode(data, name=name, declared=declared[1].decode("ascii") if declared else None)
    tree = LexborHTMLParser(source)
    body = tree.body or tree.root
    builder = TextBuilder(name=name, limits=limits)
    if body is not None:
        _Page(builder).walk(*_content(body))
    return builder.document("html", metadata=_metadata(tree))


def _metadata(tree: LexborHTMLParser) -> dict[str, str | None]:
    title = tree.css_first("title")
    root = tree.root
    metadata = {"title": title.text() if title else None, "language": root.attributes.get("lang") if root else None}
    for key in ("author", "description"):
        node = tree.css_first(f"meta[name={key}]")
        metadata[key] = node.attributes.get("content") if node else None
    return metadata


def _content(body: LexborNode) -> tuple[LexborNode, bool]:
    """Where the content is, and whether furniture around it is to be left out."""
    everything = _length(body)
    mains = [node for node in body.css(_MAIN) if not _is_hidden(node)]
    outermost = max(mains, key=_length, default=None)
    if outermost is not None and _length(outermost) >= _MAIN_SHARE * everything:
        return outermost, False
    without = sum(len(text.split()) for text in _texts(body, _NEVER | _FURNITURE))
    return body, without >= _KEPT_SHARE * everything


def _length(node: LexborNode) -> int:
    return sum(len(text.split()) for text in _texts(node, _NEVER))


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    style = attributes.get("style")
    return bool(style and _INVISIBLE.search(style))


def _texts(root: LexborNode, skipped: frozenset[str]) -> Iterator[str]:
    """The visible pieces of text below `root`, in order."""
    for node, entering in _steps(root, skipped):
        if entering and node.tag == "-text":
            yield node.text_content or ""
        elif entering and node.tag not in _INLINE:
            yield "\n"


def _steps(root: LexborNode, skipped: frozenset[str]) -> Iterator[tuple[LexborNode, bool]]:
    """Enter and leave every visible node below `root`, without recursion: pages may nest without end."""
    stack: list[tuple[LexborNode, bool]] = [(root, True)]
    while stack:
        node, entering = stack.pop()
        if entering and node is not root:
            tag = node.tag or ""
            if tag in skipped or (tag != "-text" and _is_hidden(node)):
                continue
        yield node, entering
        if not entering:
            continue
        stack.append((node, False))
        child = node.last_child
        while child is not None:
            stack.append((child, True))
            child = child.prev


class _Page:
    """Turns the walk over a page into blocks."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._pieces: list[str] = []
        self._open: list[tuple[str, BlockKind, int]] = []
        self._inside_table: LexborNode | None = None

    def walk(self, root: LexborNode, without_furniture: bool) -> None:
        """Add everything visible below `root`."""
        for node, entering in _steps(root, _NEVER | _FURNITURE if without_furniture else _NEVER):
            if self._inside_table is not None:
                if not entering and node == self._inside_table:
                    self._inside_table = None
                continue
            tag = node.tag or ""
            if tag not in _INLINE and tag != "br":
                self._flush()
                self._boundary(tag, node, entering)
            elif entering and tag == "-text":
                self._pieces.append(node.text_content or "")
            elif entering and tag == "br":
                self._pieces.append("\n" if self._kind()[0] is BlockKind.CODE else "\0")
        self._flush()

    def _boundary(self, tag: str, node: LexborNode, entering: bool) -> None:
        if tag == "table" and entering and (rows := _rows(node)) is not None:
            add_table(self._builder, rows, header_rows=_header_rows(node, rows))
            self._inside_table = node
            return
        kind = _block_kind(tag)
        if kind is None:
            return
        if entering:
            self._open.append((tag, *kind))
        elif self._open and self._open[-1][0] == tag:
            self._open.pop()

    def _kind(self) -> tuple[BlockKind, int]:
        return self._open[-1][1:] if self._open else (BlockKind.PARAGRAPH, 0)

    def _flush(self) -> None:
        text, self._pieces = "".join(self._pieces), []
        kind, level = self._kind()
        if kind is BlockKind.CODE:
            self._builder.add(text, kind)
        elif kind is BlockKind.HEADING:
            self._builder.add(" ".join(text.replace("\0", " ").split()), kind, level=level)
        else:
            for paragraph in _EMPTY_LINES.split(text):
                self._builder.add(_collapse(paragraph), kind)


def _block_kind(tag: str) -> tuple[BlockKind, int] | None:
    if tag in _HEADINGS:
        return BlockKind.HEADING, _HEADINGS[tag]
    if tag == "li":
        return BlockKind.LIST_ITEM, 0
    if tag in ("pre", "xmp", "listing"):
        return BlockKind.CODE, 0
    return None


def _collapse(text: str) -> str:
    """White space becomes single spaces; NUL stands for a line break that the page asks for."""
    return "\n".join(" ".join(line.split()) for line in text.split("\0"))


def _rows(table: LexborNode) -> list[list[str]] | None:
    """The cells of a data table, spans filled downwards; None for a table that only lays out the page."""
    if table.attributes.get("role") == "presentation" or table.css_first("table table, h1, h2, h3, pre") is not None:
        return None
    rows: list[list[str]] = []
    below: dict[int, tuple[int, str]] = {}  # column -> rows still to fill, text
    for row in table.css("tr"):
        if _is_hidden(row):
            continue
        cells: list[str] = []
        for cell in (node for node in row.iter() if node.tag in ("td", "th") and not _is_hidden(node)):
            _fill(cells, below)
            text = " ".join("".join(_texts(cell, _NEVER)).split())
            if (span := _span(cell)) > 1:
                below[len(cells)] = (span - 1, text)
            cells.append(text)
        _fill(cells, below)
        rows.append(cells)
    return rows if max(map(len, rows), default=0) > 1 else None


def _fill(cells: list[str], below: dict[int, tuple[int, str]]) -> None:
    while (waiting := below.pop(len(cells), None)) is not None:
        left, text = waiting
        if left > 1:
            below[len(cells)] = (left - 1, text)
        cells.append(text)


def _span(cell: LexborNode) -> int:
    given = cell.attributes.get("rowspan") or ""
    return min(int(given), 1000) if given.isdecimal() else 1


def _header_rows(table: LexborNode, rows: list[list[str]]) -> int:
    headers = 0
    for row in table.css("tr"):
        parent = row.parent
        in_head = parent is not None and parent.tag == "thead"
        cells = [node.tag for node in row.iter() if node.tag in ("td", "th")]
        if not cells or not (in_head or all(tag == "th" for tag in cells)):
            break
        headers += 1
    return headers if headers < len(rows) else 0
