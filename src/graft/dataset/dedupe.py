"""Examples -> those that say something new: exact and near-duplicates out, the first of each kept.

Two examples are one when their inputs are nearly the same and their answers too; the same input with another
answer is a conflict, which a person must decide, and both stay. It does not know splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from graft.dataset.examples import Example
from graft.dataset.leakage import input_text
from graft.dataset.near import jaccard, near_links, normalised, signatures, stacked
from graft.settings import DatasetSettings

_DIGITS = re.compile(r"\d+")
_SLACK = 0.1
"""Signatures estimate to within .05; pairs so far below the threshold are still compared exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """An example that was left out, and the one that says the same.

    Attributes:
        similarity: Of the two inputs, from 0 to 1, exact; 1 for case and punctuation apart.
    """

    id: str
    origin: str
    kind: Literal["exact", "near"]
    kept_id: str
    kept_origin: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Deduped:
    """What is kept, in the file's order, and what was left out.

    Attributes:
        unread: Lines of a file that are no examples, and so are not kept either.
    """

    kept: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    unread: int = 0


def dedupe(examples: Sequence[Example], *, near: bool = True, threshold: float | None = None) -> Deduped:
    """Keep the first of examples that are the same, or nearly.

    Args:
        near: Also leave out near-duplicates; else only those equal but for case, punctuation and spacing.
        threshold: Share of common character 5-grams of inputs, and of answers where these differ.

    >>> from graft.models import Message
    >>> def example(id, asked):
    ...     return Example(id=id, messages=(Message("user", asked), Message("assistant", "card_arrival")))
    >>> result = dedupe([example("a", "Where is my card?"), example("b", "where is my card")])
    >>> [kept.id for kept in result.kept], result.dropped[0].kind, result.dropped[0].kept_id
    (['a'], 'exact', 'a')
    """
    dropped: dict[int, Dropped] = {}
    first: dict[tuple[str, ...], int] = {}
    for row, example in enumerate(examples):
        same = first.setdefault(_exactly(example), row)
        if same != row:
            dropped[row] = _dropped(example, examples[same], "exact", 1.0)
    if near:
        limit = DatasetSettings().near_duplicate if threshold is None else threshold
        rest = [row for row in range(len(examples)) if row not in dropped]
        for row, other, similarity in _near_duplicates(examples, rest, limit):
            dropped[row] = _dropped(examples[row], examples[other], "near", similarity)
    return Deduped(
        kept=tuple(example for row, example in enumerate(examples) if row not in dropped),
        dropped=tuple(dropped[row] for row in sorted(dropped)),
    )


def _near_duplicates(
    examples: Sequence[Example], rows: Sequence[int], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Row to leave out, the earlier row kept for it, and the similarity of their inputs; none through a third."""
    texts = [input_text(examples[row]) for row in rows]
    gone: set[int] = set()
    for a, b in near_links(stacked(signatures(texts)), threshold=threshold - _SLACK).tolist():
        if a in gone or b in gone:
            continue
        similarity = jaccard(texts[a], texts[b])
        one, other = examples[rows[a]], examples[rows[b]]
        same = similarity >= threshold and _opening(one) == _opening(other)
        if same and _same_answer(one.answer, other.answer, threshold):
            gone.add(b)
            yield rows[b], rows[a], similarity


def _opening(example: Example) -> str:
    """The system's turn: another task's examples are no duplicates."""
    return example.messages[0].content if example.messages[0].role == "system" else ""


def _exactly(example: Example) -> tuple[str, ...]:
    return tuple(f"{turn.role}:{normalised(turn.content) or turn.content}" for turn in example.messages)


def _same_answer(one: str, other: str, threshold: float) -> bool:
    """Nearly the same words, and exactly the same numbers: "4 people" is not "5 people"."""
    if normalised(one) == normalised(other):
        return True
    return _DIGITS.findall(one) == _DIGITS.findall(other) and jaccard(one, other) >= threshold


def _dropped(example: Example, kept: Example, kind: Literal["exact", "near"], similarity: float) -> Dropped:
    return Dropped(
        id=example.id,
        origin=example.origin,
        kind=kind,
        kept_id=kept.id,
        kept_origin=kept.origin,
        similarity=round(similarity, 3),
    )
