"""Answers -> whether they are labels, how these are balanced, and which of them are spelt in two ways.

It does not know inputs.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from graft.dataset.findings import Finding, Severity

MOST_LABELS = 2_000
_LABEL_CHARACTERS = 80
_LEAST_EXAMPLES = 10
_LEAST_OF_A_LABEL = 5
_UNEVEN = 20
_SIGNS = re.compile(r"[\W_]+")


@dataclass(slots=True)
class LabelCounts:
    """Counts answers for as long as they may be labels.

    >>> counts = LabelCounts()
    >>> for number in range(20):
    ...     counts.add("refund" if number % 2 else "delivery")
    >>> sorted(counts.labels().items())
    [('delivery', 10), ('refund', 10)]
    """

    _counts: Counter[str] | None = field(default_factory=Counter)

    def add(self, answer: str) -> None:
        if self._counts is None:
            return
        self._counts[answer.strip()] += 1
        if len(answer) > _LABEL_CHARACTERS or len(self._counts) > MOST_LABELS:
            self._counts = None

    def labels(self) -> Mapping[str, int]:
        """How often each label occurs; empty where answers are not labels: long, or seldom the same."""
        if self._counts is None:
            return {}
        total = sum(self._counts.values())
        return self._counts if total >= _LEAST_EXAMPLES and len(self._counts) <= total / 4 else {}


def check_labels(labels: Mapping[str, int]) -> Iterator[Finding]:
    """One class only, classes too small or far apart in size, two spellings of one."""
    if not labels:
        return
    by_size = sorted(labels.items(), key=lambda item: item[1])
    if len(labels) == 1:
        yield Finding(
            code="one-class",
            severity=Severity.ERROR,
            message=f"every answer is {by_size[0][0]!r}: there is nothing to learn",
            fix="add examples with other answers",
        )
        return
    small = [(label, n) for label, n in by_size if n < _LEAST_OF_A_LABEL]
    if small:
        yield Finding(
            code="rare-labels",
            severity=Severity.WARNING,
            message=f"{len(small)} of {len(labels)} labels have under {_LEAST_OF_A_LABEL} examples: {_told(small)}",
            fix="add examples of them, or leave them out; neither learning nor measuring works with so few",
        )
    if by_size[-1][1] > _UNEVEN * by_size[0][1]:
        yield Finding(
            code="label-balance",
            severity=Severity.WARNING,
            message=f"the most frequent label is {by_size[-1][1] / by_size[0][1]:.0f} times as frequent as the "
            f"rarest: {_told([by_size[-1], by_size[0]])}",
            fix="add examples of the rare ones; report accuracy per label",
        )
    spellings: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for label, n in labels.items():
        spellings[_SIGNS.sub(" ", label.casefold()).strip()].append((label, n))
    for plain, same in spellings.items():
        if len(same) > 1 and plain:
            yield Finding(
                code="label-spelling",
                severity=Severity.WARNING,
                message=f"one label in {len(same)} spellings: {_told(same)}",
                fix="write it the same way everywhere: each spelling is learnt and counted by itself",
            )


def _told(items: list[tuple[str, int]]) -> str:
    shown = ", ".join(f"{label!r} ({n})" for label, n in items[:6])
    return f"{shown}, ..." if len(items) > 6 else shown
