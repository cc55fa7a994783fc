"""What is wrong with a line, said so that a person can put it right; and a log of many such sayings.

It does not know what is looked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

MOST_KEPT = 1_000
"""Findings of one code that are kept; all are counted. A million broken lines have one cause, not a million."""


class Severity(StrEnum):
    """How much it matters: an error spoils the training or its measure, a warning may, a note is for knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of one turn's text.

    Attributes:
        turn: Index in `Example.messages`.
        kind: What stands there, such as "email".
        masked: What stands there, hidden but for what helps to find it.
    """

    turn: int
    start: int
    end: int
    kind: str
    masked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found.

    Attributes:
        code: Short name of the kind, the same for all of its kind.
        message: What is wrong, with the value and the limit.
        fix: What to do about it.
        line: In the file, from 1; None where it concerns the whole file.
        id: Of the example; None where there is none.
        spans: Where in the example; the first hundred.
    """

    code: str
    severity: Severity
    message: str
    fix: str
    line: int | None = None
    id: str | None = None
    spans: tuple[Span, ...] = ()


@dataclass(slots=True)
class FindingLog:
    """Counts every finding and keeps the first `MOST_KEPT` of each code.

    >>> log = FindingLog()
    >>> log.add(Finding(code="json", severity=Severity.ERROR, message="not JSON", fix="quote the keys", line=3))
    >>> log.errors, log.counts["json"]
    (1, 1)
    """

    _kept: list[Finding] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _severities: Counter[Severity] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        self._counts[finding.code] += 1
        self._severities[finding.severity] += 1
        if self._counts[finding.code] <= MOST_KEPT:
            self._kept.append(finding)

    def extend(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.add(finding)

    @property
    def kept(self) -> tuple[Finding, ...]:
        """By line; those of the whole file first."""
        return tuple(sorted(self._kept, key=lambda finding: finding.line or 0))

    @property
    def counts(self) -> Mapping[str, int]:
        """How many there are of each code, kept or not."""
        return MappingProxyType(dict(self._counts))

    @property
    def severities(self) -> Mapping[str, int]:
        """How many errors, warnings and notes there are."""
        return MappingProxyType({severity.value: self._severities[severity] for severity in Severity})

    @property
    def errors(self) -> int:
        return self._severities[Severity.ERROR]
