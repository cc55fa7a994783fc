"""Lines of characters with their boxes -> the text, blocks, pages and boxes of a paged document.

Shared by the PDF text layer and by OCR. It does not know where the characters come from.

Box arrays have shape (characters, 4): left, bottom, right, top in points of the page as it is shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import numpy as np

from graft.documents import Block, BlockKind, Boxes, Document, Page
from graft.readers.building import check_length, no_text, stated
from graft.settings import ReadingSettings

SOFT_HYPHEN = "\x02"
"""A hyphen at a line's end that may only be there because the line ends; PDFium writes it so."""

_WORDS = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_ITEM = re.compile(r"[•◦▪●‣∙·■□➢✓]|[-–—*]\s|\(?(?:\d{1,2}|[a-z]|[ivx]{1,5})[.)]\s", re.IGNORECASE)
_BULLET = re.compile(r"[•◦▪●‣∙·■□➢✓]|[-–—*]\s")
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’)\]]*$")
_EDGE = 0.12  # share of the page's height at its top and its bottom where running headers and footers stand
_REPEATED_ON = 0.5  # share of the pages on which a line must stand to be a running header or footer
_FEWEST_PAGES = 4  # fewer pages prove nothing
_HEADING_SIZE = 1.12  # a heading is set this much larger than the body
_LONGEST_HEADING = 160
_SHORTEST_SENTENCE = 40  # what ends with a full stop and is longer is a sentence, not a heading


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a page, or two joined by a SOFT_HYPHEN.

    Attributes:
        boxes: One row for each character of `text`.
        size: Height of the type in points.
        bold: Whether its first character is.
    """

    text: str
    boxes: Boxes
    size: float
    bold: bool = False

    @property
    def right(self) -> float:
        return float(np.nanmax(self.boxes[:, 2]))

    @property
    def left(self) -> float:
        return float(np.nanmin(self.boxes[:, 0]))

    @property
    def first_bottom(self) -> float:
        return float(self.boxes[0, 1])

    @property
    def last_bottom(self) -> float:
        return float(self.boxes[-1, 1])


@dataclass(frozen=True, slots=True)
class PageLines:
    """The lines of one page in reading order, and its size in points."""

    lines: tuple[Line, ...]
    width: float
    height: float


def compose(
    pages: Sequence[PageLines], *, name: str, limits: ReadingSettings, metadata: Mapping[str, str | None]
) -> Document:
    """Join lines to paragraphs, find headings and list items, drop running headers and footers.

    A running header or footer stands at the same edge of at least half of the pages (numbers may
    differ); its first occurrence is kept, so that nothing is lost.

    Raises:
        ReadError: No text on any page.
        LimitExceeded: Too many characters.
    """
    pages = _without_repeated_edges(pages)
    words = Counter(word for page in pages for line in page.lines for word in _WORDS.findall(line.text.lower()))
    sizes: Counter[float] = Counter()
    for page in pages:
        for line in page.lines:
            sizes[_rounded(line.size)] += len(line.text)
    if not sizes:
        raise no_text(name)
    kinds = _Kinds(sizes, _mostly_bold(pages))
    writer = _Writer()
    ranges = []
    for number, page in enumerate(pages, start=1):
        start = writer.begin_page()
        lines = [_without_soft_hyphens(line, words) for line in _joined_fragments(page.lines)]
        for block in _paragraphs(lines):
            writer.add(block, *kinds.of(block))
        check_length(writer.length, name=name, limits=limits)
        ranges.append(Page(number, min(start, writer.length), writer.length, page.width, page.height))
    text, boxes = writer.result()
    return Document(text, "pdf", tuple(writer.blocks), tuple(ranges), boxes, stated(metadata))


class _Writer:
    """Collects text and boxes in step; separators have no box."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.length = 0
        self._texts: list[str] = []
        self._boxes: list[Boxes] = []

    def begin_page(self) -> int:
        """Where the next page's text will start."""
        return self.length + 2 if self.length else 0

    def add(self, lines: Sequence[Line], kind: BlockKind, level: int) -> None:
        if self.length:
            self._separate("\n\n")
        start = self.length
        for index, line in enumerate(lines):
            if index:
                self._separate("\n")
            self._texts.append(line.text)
            self._boxes.append(line.boxes)
            self.length += len(line.text)
        self.blocks.append(Block(start, self.length, kind, level))

    def _separate(self, text: str) -> None:
        self._texts.append(text)
        self._boxes.append(np.full((len(text), 4), np.nan, np.float32))
        self.length += len(text)

    def result(self) -> tuple[str, Boxes]:
        return "".join(self._texts), np.concatenate(self._boxes) if self._boxes else np.empty((0, 4), np.float32)


class _Kinds:
    """Tells headings and list items from paragraphs by the document's own type sizes."""

    def __init__(self, sizes: Counter[float], mostly_bold: bool) -> None:
        self._body = sizes.most_common(1)[0][0]
        larger = sorted((size for size in sizes if size >= self._body * _HEADING_SIZE), reverse=True)
        self._levels = {size: min(rank, 6) for rank, size in enumerate(larger, start=1)}
        self._bold_level = 0 if mostly_bold else min(len(larger) + 1, 6)

    def of(self, lines: Sequence[Line]) -> tuple[BlockKind, int]:
        text = " ".join(line.text for line in lines)
        first = lines[0]
        wordy = len(text) <= _LONGEST_HEADING and sum(map(str.isalpha, text)) * 2 > len(text) > 2
        sentence = len(text) > _SHORTEST_SENTENCE and text.endswith((".", ";", ","))
        level = self._levels.get(_rounded(first.size), 0)
        if not level and first.bold and len(lines) == 1 and first.size >= self._body:
            level = self._bold_level
        if level and wordy and not sentence and not _BULLET.match(text):
            return BlockKind.HEADING, level
        return (BlockKind.LIST_ITEM if _ITEM.match(text) else BlockKind.PARAGRAPH), 0


def _rounded(size: float) -> float:
    return round(size * 2) / 2


def _mostly_bold(pages: Sequence[PageLines]) -> bool:
    bold = total = 0
    for page in pages:
        for line in page.lines:
            total += len(line.text)
            bold += len(line.text) * line.bold
    return bold * 4 > total


def _without_repeated_edges(pages: Sequence[PageLines]) -> list[PageLines]:
    """Drop running headers and footers after their first occurrence."""
    if len(pages) < _FEWEST_PAGES:
        return list(pages)
    keys = [[_edge_key(line, page.height) for line in page.lines] for page in pages]
    seen_on = Counter(key for page in keys for key in set(page) if key)
    needed = len(pages) * _REPEATED_ON
    repeated = {key for key, count in seen_on.items() if count >= needed}
    kept: set[str] = set()
    result = []
    for page, page_keys in zip(pages, keys, strict=True):
        lines = []
        for line, key in zip(page.lines, page_keys, strict=True):
            if key not in repeated or key not in kept:
                lines.append(line)
            if key in repeated:
                kept.add(key)
        result.append(replace(page, lines=tuple(lines)))
    return result


def _edge_key(line: Line, height: float) -> str:
    """What makes two lines the same running header; empty for a line inside the page."""
    bottom = line.first_bottom
    edge = "top" if bottom > height * (1 - _EDGE) else "bottom" if bottom < height * _EDGE else ""
    if not edge or len(line.text) > _LONGEST_HEADING:
        return ""
    return f"{edge} {round(bottom / 4)} {re.sub(r'[0-9]+', '#', line.text)}"


def _without_soft_hyphens(line: Line, words: Counter[str]) -> Line:
    """Decide each SOFT_HYPHEN by how the document itself writes the word; unknown words are joined."""
    while (at := line.text.find(SOFT_HYPHEN)) >= 0:
        before = re.search(r"[^\W\d_]*$", line.text[:at])
        after = re.match(r"[^\W\d_]*", line.text[at + 1 :])
        left, right = before[0] if before else "", after[0] if after else ""
        joined, hyphenated = (left + right).lower(), f"{left}-{right}".lower()
        keep = not left or not right[:1].islower() or (words[hyphenated] > 0 and not words[joined])
        if keep:
            line = replace(line, text=line.text[:at] + "-" + line.text[at + 1 :])
        else:
            boxes = np.delete(line.boxes, at, axis=0)
            line = replace(line, text=line.text[:at] + line.text[at + 1 :], boxes=boxes)
    return line


def _joined_fragments(lines: Sequence[Line]) -> list[Line]:
    """Join what stands side by side on one line, as a name and the raised number of its foot note do."""
    joined: list[Line] = []
    for line in lines:
        gap = _gap(joined[-1], line) if joined else None
        if gap is None:
            joined.append(line)
            continue
        last = joined[-1]
        digits = last.text[-1].isdigit() and line.text[0].isdigit()  # a raised 1 must not make 12.3 into 12.31
        space = " " if digits or gap > 0.15 * max(last.size, line.size) else ""
        boxes = [last.boxes, np.full((len(space), 4), np.nan, np.float32), line.boxes]
        joined[-1] = replace(last, text=last.text + space + line.text, boxes=np.concatenate(boxes))
    return joined


def _gap(left: Line, right: Line) -> float | None:
    """Points between two neighbours on one line; None if they are not, or are columns apart."""
    end, begin = left.boxes[-1], right.boxes[0]
    overlap = min(end[3], begin[3]) - max(end[1], begin[1])
    if overlap < 0.4 * min(left.size, right.size):
        return None
    gap = float(begin[0] - end[2])
    size = max(left.size, right.size)
    return gap if -0.3 * size <= gap <= 1.2 * size else None


def _paragraphs(lines: Sequence[Line]) -> list[list[Line]]:
    """Group a page's lines: a new paragraph where the gap, the type size, an indent or a bullet says so."""
    pitches = [a.last_bottom - b.first_bottom for a, b in pairwise(lines)]
    usual = median([p for p, line in zip(pitches, lines, strict=False) if 0.5 < p / (line.size or 1) < 3] or [0.0])
    groups: list[list[Line]] = []
    for index, line in enumerate(lines):
        if not index or _begins_paragraph(lines[index - 1], line, groups[-1], pitches[index - 1], usual):
            groups.append([])
        groups[-1].append(line)
    return groups


def _begins_paragraph(previous: Line, line: Line, group: Sequence[Line], pitch: float, usual: float) -> bool:
    size = max(previous.size, line.size, 1.0)
    if abs(previous.size - line.size) > 0.12 * size or (previous.bold != line.bold and len(group) == 1):
        return True
    if pitch < -0.5 * size:  # up again: another column
        return True
    if usual and pitch > max(usual * 1.3, usual + 0.25 * size):
        return True
    if _BULLET.match(line.text):
        return True
    if not _SENTENCE_END.search(previous.text):
        return False
    return bool(_ITEM.match(line.text)) or line.left > min(member.left for member in group) + 0.9 * size
