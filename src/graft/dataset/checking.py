"""A file of examples -> a report: every line that would spoil the training or its measure, with the fix.

One pass over the file; of each example only its id, its hashes and its signature are kept, so a million
examples take some hundred MB. It does not know how to train, and changes nothing.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from graft.dataset.examples import Example
from graft.dataset.findings import Finding, FindingLog, Severity, Span
from graft.dataset.labels import LabelCounts, check_labels
from graft.dataset.languages import MOST_LOOKED_AT, LanguageCounts
from graft.dataset.leakage import LEAK_FIX, Others, exact_leaks, input_text, near_leaks, read_others
from graft.dataset.near import Signatures, near_links, normalised, signatures, stacked
from graft.dataset.personal import find_personal, masked
from graft.dataset.reading import Reader
from graft.dataset.together import Rows, near_inputs, same_inputs
from graft.dataset.turns import cut_short, estimated_tokens, most_tokens, too_long
from graft.models import Message
from graft.settings import DatasetSettings

_COUNTED_EXACTLY = 500
"""Examples whose tokens a real tokenizer counts for the percentiles; those near the limit are counted all."""

_MOST_SPANS = 100
"""Kept of one example: a long one may hold a hundred thousand addresses."""

CountTokens = Callable[[Sequence[Message]], int]
Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSummary:
    """Tokens of an example, template included. `estimated`: from characters, no tokenizer was given."""

    p50: int
    p95: int
    max: int
    context: int
    estimated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a file holds and what is wrong with it.

    Attributes:
        findings: By line; the first thousand of each code.
        counts: Findings by code, all of them.
        severities: Findings by severity, all of them.
        lines: Of the file; 0 where examples were given.
        tokens: None where there are no examples.
        labels: Answer -> examples, where answers are labels; else empty.
        languages: ISO code -> texts, of those long enough to tell.
        shapes: Examples by the shape they had in the file.
    """

    file: str
    lines: int
    examples: int
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    severities: Mapping[str, int]
    tokens: TokenSummary | None
    labels: Mapping[str, int]
    languages: Mapping[str, int]
    shapes: Mapping[str, int]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no error was found; warnings may have been."""
        return self.severities[Severity.ERROR] == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What examples are held against and measured by.

    Attributes:
        count_tokens: Of the model to be trained; None estimates.
        context_tokens: Of that model.
        splits: Other parts of the same data (dev, test); shared inputs and sources are leaks.
        benchmarks: Files of questions to be reported on.
        personal: Whether to look for personal data, which is a quarter of the time.
    """

    count_tokens: CountTokens | None = None
    context_tokens: int = 4096
    splits: Sequence[Path | str] = ()
    benchmarks: Sequence[Path | str] = ()
    personal: bool = True


def check(
    examples: Path | str | Iterable[Example],
    against: Against | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
    limits: DatasetSettings | None = None,
    progress: Progress = lambda done, total: None,
) -> CheckReport:
    """Look at every example once, then at how they stand to each other.

    Args:
        examples: A file in any format that `reading` knows, or examples already read.
        mapping: See `formats.parse_mapping`; for a file.
        progress: Told examples done and lines in all, now and then.
    Raises:
        LimitExceeded, ReadError, UsageError: The file, or one to be held against, cannot be read at all.
    """
    began = time.perf_counter()
    against, limits = against or Against(), limits or DatasetSettings()
    others = [read_others(Path(path), benchmark=False, limits=limits) for path in against.splits]
    others += [read_others(Path(path), benchmark=True, limits=limits) for path in against.benchmarks]
    reader = Reader(Path(examples), mapping, limits) if isinstance(examples, (Path, str)) else None
    log = FindingLog() if reader is None else reader.log
    seen = _Pass(log, against, others)
    if reader is None:
        given = tuple(cast(Iterable[Example], examples))
        marks = signatures(seen.each(enumerate(given, start=1), lambda: len(given), progress))
    else:
        marks = signatures(seen.each(reader, lambda: reader.lines, progress))
    seen.together(stacked(marks), limits.near_duplicate)
    return CheckReport(
        file="" if reader is None else str(reader.path),
        lines=0 if reader is None else reader.lines,
        examples=len(seen.rows.ids),
        findings=log.kept,
        counts=log.counts,
        severities=log.severities,
        tokens=seen.token_summary(),
        labels=dict(seen.labels.labels()),
        languages=dict(seen.languages.counts.most_common()),
        shapes={} if reader is None else dict(reader.shapes),
        seconds=round(time.perf_counter() - began, 3),
    )


@dataclass(slots=True)
class _Pass:
    """One pass over the examples, and what is kept of those that have passed."""

    log: FindingLog
    against: Against
    others: Sequence[Others]
    rows: Rows = field(default_factory=Rows)
    tokens: array[int] = field(default_factory=lambda: array("q"))
    labels: LabelCounts = field(default_factory=LabelCounts)
    languages: LanguageCounts = field(default_factory=LanguageCounts)
    leaked: set[tuple[str, int]] = field(default_factory=set)
    _longest: int = 0

    def each(
        self, numbered: Iterable[tuple[int, Example]], total: Callable[[], int], progress: Progress
    ) -> Iterator[str]:
        """Look at each example by itself; yields its input, for the signature."""
        for count, (line, example) in enumerate(numbered):
            text = input_text(example)
            system = example.messages[0].content if example.messages[0].role == "system" else ""
            self.rows.ids.append(example.id)
            self.rows.lines.append(line)
            self.rows.inputs.append(hash((normalised(text) or text, system)))
            self.rows.answers.append(hash(normalised(example.answer) or example.answer))
            self.labels.add(example.answer)
            self.log.extend(cut_short(example, line))
            self._count_tokens(example, line, sampled=count % (total() // _COUNTED_EXACTLY + 1) == 0)
            if self.against.personal:
                self._look_for_personal(example, line)
            if count % (total() // MOST_LOOKED_AT + 1) == 0:
                self.languages.add(example, line)
            for other in self.others:
                for finding in exact_leaks(example, line, text, other):
                    self.leaked.add((other.name, count))
                    self.log.add(finding)
            if count % 1_000 == 0:
                progress(count, total())
            yield text

    def together(self, marks: Signatures, threshold: float) -> None:
        """What shows only among all: duplicates, conflicts, leaks of near inputs, labels, languages."""
        labels = self.labels.labels()
        self.log.extend(same_inputs(self.rows))
        links = near_links(marks, threshold=threshold)
        self.log.extend(near_inputs(self.rows, links, marks, labels=bool(labels)))
        for other in self.others:
            for row, code, message in near_leaks(marks, other, threshold=threshold):
                if (other.name, row) not in self.leaked:
                    self.log.add(self.rows.finding(row, code, Severity.ERROR, message, LEAK_FIX))
        self.log.extend(check_labels(labels))
        self.log.extend(self.languages.findings())

    def token_summary(self) -> TokenSummary | None:
        if not self.tokens:
            return None
        p50, p95 = np.percentile(np.frombuffer(self.tokens, dtype=np.int64), [50, 95])
        return TokenSummary(
            p50=int(p50),
            p95=int(p95),
            max=max(self.tokens),
            context=self.against.context_tokens,
            estimated=self.against.count_tokens is None,
        )

    def _count_tokens(self, example: Example, line: int, *, sampled: bool) -> None:
        """By the tokenizer where it decides something: a sample, the longest so far, and what may not fit."""
        about, count = estimated_tokens(example.messages), self.against.count_tokens
        context = self.against.context_tokens
        if count is None:
            tokens = about
        elif sampled or about > self._longest or most_tokens(example.messages) > context:
            self._longest = max(self._longest, about)
            tokens = count(example.messages)
        else:
            return
        self.tokens.append(tokens)
        if tokens > context:
            self.log.add(too_long(example, line, tokens, context, estimated=count is None))

    def _look_for_personal(self, example: Example, line: int) -> None:
        spans = [
            Span(
                turn=turn, start=at.start, end=at.end, kind=at.kind, masked=masked(message.content[at.start : at.end])
            )
            for turn, message in enumerate(example.messages)
            for at in find_personal(message.content)
        ]
        for secret in (True, False):
            found = tuple(span for span in spans if (span.kind == "secret") == secret)
            if found:
                told = ", ".join(f"{span.kind} {span.masked}" for span in found[:4])
                self.log.add(
                    Finding(
                        code="secret" if secret else "personal-data",
                        severity=Severity.ERROR if secret else Severity.WARNING,
                        message=f"{told}{', ...' if len(found) > 4 else ''}",
                        fix="revoke it and take it out: a model can be made to say what it has learnt"
                        if secret
                        else "replace it by an invented one, or see that you may use it",
                        line=line,
                        id=example.id,
                        spans=found[:_MOST_SPANS],
                    )
                )
