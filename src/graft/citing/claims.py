"""answer -> its claims: the statements that can be true or false, without markers.

It does not know sources.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from graft.citing.sentences import sentences
from graft.citing.words import content_stems

_BRACKET = re.compile(r"\s*[\[【]\s*(?:sources?\s*)?(\d{1,3}(?:\s*,\s*\d{1,3})*)\s*[\]】]", re.IGNORECASE)
_LABEL = re.compile(
    r"^(?:(?:the )?(?:correct )?(?:answer|response)(?: to (?:the|your) question)?(?: is\b|(?=\s*[:\n]))|a(?=\s*:))"
    r"\s*[:,\n]?\s*(?=\S)",
    re.IGNORECASE,
)
_LEADING = re.compile(r"^(?:[-*•]\s+|\d{1,2}[.)]\s+)")

_EMPTY = frozenset(content_stems("yes okay answer answers question source sources document documents text passage"))


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of an answer: its range there, its words without markers, the sources it names."""

    start: int
    end: int
    text: str
    markers: tuple[int, ...]


def split_claims(answer: str) -> list[Claim]:
    """The claims of an answer, in order, each once; questions and phrases without content are not claims.

    >>> [(c.text, c.markers) for c in split_claims("Claims close on 5 March [2]. It is 40 EUR.[1] OK?")]
    [('Claims close on 5 March.', (2,)), ('It is 40 EUR.', (1,))]
    """
    found: list[Claim] = []
    said: set[str] = set()
    for start, end in _with_trailing_markers(answer):
        raw = answer[start:end]
        markers = tuple(int(n) for match in _BRACKET.finditer(raw) for n in match[1].split(","))
        text = _LABEL.sub("", _LEADING.sub("", _BRACKET.sub("", raw).strip())).strip(" *_`")
        states = frozenset(content_stems(text)) - _EMPTY or re.search(r"\d", text)
        if text and not text.endswith("?") and states and text.lower() not in said:
            said.add(text.lower())
            found.append(Claim(start, end, text, markers))
    return found


def without_markers(answer: str) -> str:
    """The answer as plain prose.

    >>> without_markers("It is 40 EUR [1], paid in May [2, 3].")
    'It is 40 EUR, paid in May.'
    """
    return _BRACKET.sub("", answer)


def _with_trailing_markers(answer: str) -> list[tuple[int, int]]:
    """Ranges of sentences, a marker that follows the full stop belonging to the sentence before it."""
    ranges: list[tuple[int, int]] = []
    for start, end in sentences(answer):
        lead = re.match(r"(?:[\[【]\s*\d[\d\s,]*[\]】]\s*)+", answer[start:end])
        if lead and ranges:
            ranges[-1] = (ranges[-1][0], start + len(lead.group().rstrip()))
            start += lead.end()
        if start < end:
            ranges.append((start, end))
    return ranges
