"""Columns of hashes and signatures -> findings that show only among all examples: duplicates and conflicts.

It does not hold texts: a row is an id, a line and two hashes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graft.dataset.findings import Finding, Severity
from graft.dataset.near import Links, Signatures, similarities


def _column() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Rows:
    """One entry an example in every column, in the file's order; hashes are of normalised texts."""

    ids: list[str] = field(default_factory=list)
    lines: array[int] = field(default_factory=_column)
    inputs: array[int] = field(default_factory=_column)
    answers: array[int] = field(default_factory=_column)

    def finding(self, row: int, code: str, severity: Severity, message: str, fix: str) -> Finding:
        """About the example of a row."""
        return Finding(code=code, severity=severity, message=message, fix=fix, line=self.lines[row], id=self.ids[row])


def same_inputs(rows: Rows) -> Iterator[Finding]:
    """Examples whose input was there before: with the same answer duplicates, with another conflicts."""
    for group in _groups(np.frombuffer(rows.inputs, dtype=np.int64)):
        first_with: dict[int, int] = {}
        for row in map(int, group):
            answer = rows.answers[row]
            if answer in first_with:
                line = rows.lines[first_with[answer]]
                message = f"the same as line {line}"
                yield rows.finding(row, "duplicate", Severity.WARNING, message, "graft dataset dedupe FILE")
                continue
            if first_with:
                lines = ", ".join(str(rows.lines[other]) for other in list(first_with.values())[:5])
                yield rows.finding(
                    row,
                    "conflict",
                    Severity.WARNING,
                    f"the same input as line {lines}, with another answer",
                    "decide which answer is right, and remove the other",
                )
            first_with[answer] = row


def near_inputs(rows: Rows, links: Links, marks: Signatures, *, labels: bool) -> Iterator[Finding]:
    """Examples whose input is nearly one before: with the same answer near-duplicates; with another label, for
    people to look at, because one word may rightly make the difference."""
    told: set[int] = set()
    inputs, answers = (np.frombuffer(column, dtype=np.int64) for column in (rows.inputs, rows.answers))
    links = links[inputs[links[:, 0]] != inputs[links[:, 1]]] if len(links) else links
    similar = similarities(marks, links[:, 0], marks, links[:, 1])
    for (first, row), similarity in zip(links.tolist(), similar.tolist(), strict=True):
        same_answer = answers[first] == answers[row]
        if row in told or not (same_answer or labels):
            continue
        told.add(row)
        line = rows.lines[first]
        if same_answer:
            message = f"nearly the same as line {line} (about {similarity:.0%} alike), with the same answer"
            yield rows.finding(row, "near-duplicate", Severity.WARNING, message, "graft dataset dedupe FILE")
        else:
            message = f"nearly the same input as line {line} (about {similarity:.0%} alike), with another label"
            yield rows.finding(row, "near-conflict", Severity.NOTE, message, "see whether both labels are right")


def _groups(values: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows of each value that occurs more than once, in order.

    >>> [group.tolist() for group in _groups(np.array([7, 5, 7, 6, 7]))]
    [[0, 2, 4]]
    """
    if not len(values):
        return
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    bounds = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1], True])
    for at in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[at] : bounds[at + 1]]
