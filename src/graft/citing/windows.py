"""passages -> windows: the sentences, pairs of neighbours and table rows that a claim can be held against.

A row is read under its table's header, a sentence under the heading over it. It does not know claims.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from graft.citing.sentences import sentences
from graft.citing.words import content_stems

_CELLS = " | "
_RULE = re.compile(r"[\s|:+-]+")
_FULL_STOPS = '.!?…:;"”’)。！？؟।'
"""What ends prose; a line that ends otherwise is a row, an item or a heading, and stands alone."""
_LONGEST_HEADING = 80
_QUESTION = re.compile(r"[^.!?]*[?？؟]\s")


@dataclass(frozen=True, slots=True)
class Passage:
    """A range of a source. `context` is what stands over it: title, headings, a table's header."""

    text: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """One sentence, two neighbours, or a row of a table.

    Attributes:
        passage: Index of its passage; `start` and `end` are its range there.
        context: What stands over it: the passage's context, the heading and the table's header before it.
        heading: The nearest heading over it, "" where none is.
        header: Of a row, its table's first row; else "".
        before: The sentence before it.
        first_sentence: Length of its first sentence; the rest is the second.
        passage_text: All of its passage after its context; the window begins there at `offset`.
        units: Rows of its sentences in the texts to embed.
        stems: Of its words and its context's; `own` are those of what it states itself, numbers included.
    """

    passage: int
    start: int
    end: int
    text: str
    context: str
    heading: str
    header: str
    before: str
    first_sentence: int
    passage_text: str
    offset: int
    units: tuple[int, ...]
    stems: frozenset[str]
    own: frozenset[str]

    @property
    def is_row(self) -> bool:
        """Whether it is a row of a table."""
        return _CELLS in self.text

    @property
    def is_title(self) -> bool:
        """Whether it is the line that its passage begins with, and names what follows."""
        line_alone = self.start == 0 and self.passage_text[self.offset + self.end :].startswith("\n")
        return line_alone and "\n" not in self.text and len(self.text) <= _LONGEST_HEADING and self._is_no_prose

    @property
    def _is_no_prose(self) -> bool:
        return not self.is_row and self.text[-1] not in _FULL_STOPS


@dataclass(frozen=True, slots=True)
class _Over:
    """What stands over a sentence: a heading within its passage, else the last one above; its table's header."""

    inner: str
    above: str
    header: str

    @property
    def heading(self) -> str:
        return self.inner or self.above

    @property
    def both(self) -> str:
        """What the passage's own context does not say."""
        return " ".join(part for part in (self.inner, self.header) if part)


def windows_of(passages: Sequence[Passage]) -> tuple[list[Window], list[str]]:
    """All windows, and the texts to embed: each sentence once, a row after its header."""
    windows: list[Window] = []
    units: list[str] = []
    for number, passage in enumerate(passages):
        ranges = [(a, b) for a, b in sentences(passage.text) if not _RULE.fullmatch(passage.text[a:b])]
        texts = [passage.text[a:b] for a, b in ranges]
        over = _standing_over(texts, passage.context)
        whole = f"{passage.context} {passage.text}"
        first = len(units)
        units += [f"{over[i].both}\n{text}" if _CELLS in text else text for i, text in enumerate(texts)]
        for i, text in enumerate(texts):
            states = not _announces(text)
            if states:
                windows.append(_window(number, passage, whole, ranges, over, first, i, i))
            prose = i + 1 < len(texts) and text[-1] in _FULL_STOPS and _CELLS not in texts[i + 1]
            if prose and not _announces(texts[i + 1]):
                windows.append(_window(number, passage, whole, ranges, over, first, i, i + 1))
    return windows, units


def _window(
    number: int,
    passage: Passage,
    whole: str,
    ranges: Sequence[tuple[int, int]],
    over: Sequence[_Over],
    first: int,
    i: int,
    j: int,
) -> Window:
    start, end = ranges[i][0], ranges[j][1]
    text = passage.text[start:end]
    context = f"{passage.context}\n{over[i].both}" if over[i].both else passage.context
    question = _QUESTION.match(text)
    stated = text[question.end() :] if question else text
    return Window(
        passage=number,
        start=start,
        end=end,
        text=text,
        context=context,
        heading=over[i].heading,
        header=over[i].header,
        before=passage.text[ranges[i - 1][0] : ranges[i - 1][1]] if i else "",
        first_sentence=ranges[i][1] - start,
        passage_text=whole,
        offset=len(whole) - len(passage.text) + start,
        units=tuple(range(first + i, first + j + 1)),
        stems=frozenset(content_stems(f"{context} {text}")),
        own=frozenset(content_stems(stated)) | frozenset(re.findall(r"\d+", stated)),
    )


def _standing_over(texts: Sequence[str], context: str) -> list[_Over]:
    """What stands over each sentence."""
    over: list[_Over] = []
    heading = ""
    lines = context.split("\n")
    above = lines[0].split(" > ")[-1] if " > " in lines[0] else ""
    header = lines[-1] if _CELLS in lines[-1] else ""
    in_table = bool(header)
    for text in texts:
        if _CELLS in text:
            if not in_table:
                header = text
            in_table = True
            over.append(_Over(heading, above, header if header != text else ""))
            continue
        in_table = False
        over.append(_Over(heading, above, ""))
        if _is_heading(text):
            heading = text.lstrip("#").strip()
    return over


def _is_heading(text: str) -> bool:
    return text.startswith("#") or (
        len(text) <= _LONGEST_HEADING and "\n" not in text and text[-1].isalnum() and not text.startswith(("-", "*"))
    )


def _announces(text: str) -> bool:
    """Whether a sentence asks or heads something, and so states nothing."""
    return text[-1] in "?？؟" or text.startswith("#")
