"""Markdown -> Document whose text is the file's own text, so that offsets point into the source.

markdown-it's block parser gives line numbers; what it gives no block for (front matter, rules, link
definitions) becomes paragraphs, so that nothing is lost.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from graft.documents import Block, BlockKind, Document
from graft.readers import text as plain
from graft.readers.building import clean, finish, unify_newlines
from graft.settings import ReadingSettings

_FRONT_MATTER = re.compile(r"---[^\S\n]*\n(.*?)^(?:---|\.\.\.)[^\S\n]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEY_VALUE = re.compile(r"^([A-Za-z][\w-]*):[^\S\n]*(\S.*)$", re.MULTILINE)
_LEAVES = {
    "paragraph_open": BlockKind.PARAGRAPH,
    "html_block": BlockKind.PARAGRAPH,
    "fence": BlockKind.CODE,
    "code_block": BlockKind.CODE,
    "thead_open": BlockKind.TABLE_HEADER,
}


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read Markdown.

    Raises:
        ReadError: Binary data, or no text.
    """
    text = clean(unify_newlines(plain.decode(data, name=name)))
    front = _FRONT_MATTER.match(text)
    metadata: dict[str, str | None] = {}
    if front:
        metadata = {m[1].lower(): m[2].strip("\"' ") for m in _KEY_VALUE.finditer(front[1])}
    blocks = _fill_gaps(text, _blocks(text, front.end() if front else 0))
    title = next((text[b.start : b.end].strip("# \n=") for b in blocks if b.kind is BlockKind.HEADING), None)
    metadata.setdefault("title", title)
    return finish(text, "markdown", blocks, name=name, limits=limits, metadata=metadata)


def _blocks(text: str, body: int) -> list[Block]:
    """Blocks of text[body:], from markdown-it's tokens; inline markup is not parsed."""
    line_starts = [body, *(m.end() for m in re.compile("\n").finditer(text, body))]
    line_starts.append(len(text))
    parser = MarkdownIt("commonmark").enable("table").disable("inline")
    blocks: list[Block] = []
    depth_of_lists = 0
    last_row = -1
    for token in parser.parse(text[body:]):
        depth_of_lists += {"list_item_open": 1, "list_item_close": -1}.get(token.type, 0)
        kind = _LEAVES.get(token.type)
        level = 0
        lines = token.map
        if token.type == "heading_open":
            kind, level = BlockKind.HEADING, int(token.tag[1])
        elif token.type == "tr_open" and lines and lines[0] > last_row:
            kind = BlockKind.TABLE_ROW
        if kind is BlockKind.PARAGRAPH and depth_of_lists:
            kind = BlockKind.LIST_ITEM
        if kind is None or lines is None:
            continue
        first, last = lines
        if kind is BlockKind.TABLE_HEADER:
            last = first + 2  # the line of dashes belongs to the header
            last_row = last - 1
        start, end = line_starts[first], line_starts[min(last, len(line_starts) - 1)]
        start = max(start, blocks[-1].end if blocks else start)
        _append_trimmed(blocks, text, start, end, kind, level)
    return blocks


def _append_trimmed(blocks: list[Block], text: str, start: int, end: int, kind: BlockKind, level: int) -> None:
    content = text[start:end]
    stripped = content.strip("\n") if kind is BlockKind.CODE else content.strip()
    if stripped.strip():
        start += content.index(stripped)
        blocks.append(Block(start, start + len(stripped.rstrip()), kind, level))


def _fill_gaps(text: str, blocks: list[Block]) -> list[Block]:
    """Add paragraphs for what lies between the blocks."""
    complete: list[Block] = []
    position = 0
    for block in blocks:
        complete += plain.paragraphs(text, position, block.start)
        complete.append(block)
        position = block.end
    complete += plain.paragraphs(text, position)
    return complete
