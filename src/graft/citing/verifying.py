"""claims + passages -> for each claim: is it supported, by which exact range, and what is missing?

A claim is supported when one sentence (or two neighbours, or two places that share the work) speaks of
the same thing, with the same polarity, and holds every number, date and name of the claim. The model's
own markers ("[2]") are not believed. A well aligned sentence that contradicts the claim outweighs a
badly aligned one that happens to hold its numbers. It does not know models or where passages come from.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from graft.citing.binding import Claim, Range, conflicts, missing_facts, read_claim
from graft.citing.facts import names
from graft.citing.negation import opposed
from graft.citing.windows import Passage, Window, windows_of
from graft.citing.words import content_stems

_AS_GOOD = 0.05
"""A sentence that denies the claim outweighs one that holds it, unless that fits better by so much."""
_TOO_SHORT = 3
"""Content words below which a claim does not say what it is about."""
_SILENT = 0.35
"""Likeness below which a sentence without any of a claim's words says nothing about it, whatever stands over it."""
_UNNAMED = 0.2
"""Taken off the fit of a passage that lacks a name or number of the question."""
_EMPTY = 1.0
"""Taken off the fit of what cannot answer: more than any other difference."""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class Verdict(StrEnum):
    """What a machine found when it held a claim against the passages."""

    SUPPORTED = "supported"
    PARTLY = "partly"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Checked:
    """The finding on one claim.

    Attributes:
        passage: Index of the passage that bears it best, or None where none speaks of it.
        start, end: The bearing range in that passage's text.
        support: Alignment from 0 to 1; not a probability.
        missing: Numbers, dates and names of the claim that the range does not hold, as written.
        opposed: Whether the range says the opposite.
        heading: The nearest heading over the range, a sheet's name for one; "" where none is.
        header: Of a table's row, the row that names its columns.
    """

    verdict: Verdict
    passage: int | None
    start: int
    end: int
    support: float
    missing: tuple[str, ...] = ()
    opposed: bool = False
    heading: str = ""
    header: str = ""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where verdicts change; chosen on the development claims of `benchmarks/bench_samples.py`."""

    supported: float = 0.5
    per_fact: float = 0.04  # taken off for each of the first two facts held exactly
    partly: float = 0.35
    contradiction_margin: float = 0.12
    joint: float = 0.3


@dataclass(frozen=True, slots=True)
class _Finding:
    """A window held against a claim."""

    window: int
    alignment: float
    missing: tuple[tuple[int, int], ...]
    opposed: bool

    @property
    def holds(self) -> bool:
        return not self.missing and not self.opposed


def verify(
    claims: Sequence[str],
    passages: Sequence[Passage],
    *,
    embed: Embed,
    question: str = "",
    thresholds: Thresholds | None = None,
) -> list[Checked]:
    """Check each claim against all passages.

    Args:
        embed: Texts -> (n, dim) rows of unit length.
        question: What the claims answer; a claim too short to say what it is about ("140 EUR.") is read
            together with it.
    Returns: One finding a claim, in order.
    """
    limits = thresholds or Thresholds()
    windows, units = windows_of(passages)
    if not claims or not windows:
        return [Checked(Verdict.UNSUPPORTED, None, 0, 0, 0.0) for _ in claims]
    subjects = [_subject(claim, question) for claim in claims]
    vectors = embed([*subjects, *units])
    similarity = vectors[: len(claims)] @ vectors[len(claims) :].T  # (claims, sentences)
    known = frozenset(part for p in passages for name in names(p.text) for part in name.parts)
    return [
        _check(read_claim(text, subject=subject, question=question, known=known), windows, similarity[row], limits)
        for row, (text, subject) in enumerate(zip(claims, subjects, strict=True))
    ]


def closest(question: str, passages: Sequence[Passage], *, embed: Embed) -> Checked | None:
    """The sentence or two that fit a question best and hold its names and numbers; None without passages.

    A title, or what only repeats the question's words, fits it well and answers nothing: it comes last.
    """
    windows, units = windows_of(passages)
    if not windows:
        return None
    vectors = embed([question, *units])
    asked = read_claim(question, subject=question, question="", known=frozenset())
    fits = _alignments(asked, windows, vectors[0] @ vectors[1:].T)
    fits -= [_UNNAMED * len(_hold(asked, window, 0, 0.0).missing) for window in windows]
    repeated = frozenset(content_stems(question))
    fits -= [_EMPTY * (window.is_title or window.own <= repeated) for window in windows]
    best = int(np.argmax(fits))
    return _result(asked, windows, _Finding(best, float(fits[best]), (), False), Verdict.SUPPORTED)


def _subject(claim: str, question: str) -> str:
    return f"{question} {claim}" if question and len(set(content_stems(claim))) < _TOO_SHORT else claim


def _check(
    claim: Claim,
    windows: Sequence[Window],
    similarity: NDArray[np.float32],
    limits: Thresholds,
) -> Checked:
    alignments = _alignments(claim, windows, similarity)
    order = np.argsort(-alignments, kind="stable")
    best = alignments[order[0]]
    near = [int(i) for i in order if alignments[i] >= max(limits.partly, best - limits.contradiction_margin)]
    findings = [_hold(claim, windows[i], i, float(alignments[i])) for i in near]
    if not findings:
        return _result(
            claim, windows, _hold(claim, windows[order[0]], int(order[0]), float(best)), Verdict.UNSUPPORTED
        )
    holding = next((f for f in findings if f.holds), None)
    denying = next((f for f in findings if f.opposed and not f.missing and len(windows[f.window].units) == 1), None)
    if denying is not None and (holding is None or denying.alignment >= holding.alignment - _AS_GOOD):
        return _result(claim, windows, denying, Verdict.UNSUPPORTED)
    if holding is None:
        holding = _jointly(claim, findings, windows, alignments, limits)
    if holding is not None:
        facts = len(claim.quantities) + len(claim.dates) + len(claim.names)
        enough = limits.supported - limits.per_fact * min(2, facts)
        verdict = Verdict.SUPPORTED if holding.alignment >= enough else Verdict.PARTLY
        return _result(claim, windows, holding, verdict)
    closest = min(findings, key=lambda f: (f.opposed, len(f.missing)))
    contradicted = closest.opposed or conflicts(claim, closest.missing, windows[closest.window])
    return _result(claim, windows, closest, Verdict.UNSUPPORTED if contradicted else Verdict.PARTLY)


def _alignments(claim: Claim, windows: Sequence[Window], similarity: NDArray[np.float32]) -> NDArray[np.float64]:
    """How well each window fits the claim's words and meaning; rare words weigh more."""
    single = [window.stems for window in windows if len(window.units) == 1]
    spread = Counter(word for stems in single for word in stems)
    weight = {word: math.log(1 + len(single) / (1 + spread[word])) for word in claim.stems}
    return np.array([_alignment(claim, window, similarity, weight) for window in windows])


def _alignment(claim: Claim, window: Window, similarity: NDArray[np.float32], weight: dict[str, float]) -> float:
    """Half the share of the claim's words that the window holds, half the likeness in meaning."""
    asked = sum(weight.values())
    said = {*weight, *re.findall(r"\d+", claim.text)}
    shared = sum(w for word, w in weight.items() if word in window.stems)
    coverage = shared / asked if asked else 0.0
    meaning = max(float(similarity[row]) for row in window.units)
    longer = 0.02 * (len(window.units) - 1)  # of two that say it, take the shorter
    fit = 0.5 * coverage + 0.5 * max(0.0, meaning) - longer
    silent = window.own.isdisjoint(said) and float(similarity[window.units[-1]]) < _SILENT
    return min(fit, _SILENT) if silent else fit


def _hold(claim: Claim, window: Window, index: int, alignment: float) -> _Finding:
    return _Finding(index, alignment, missing_facts(claim, window), opposed(claim.text, window.text))


def _jointly(
    claim: Claim,
    findings: Sequence[_Finding],
    windows: Sequence[Window],
    alignments: NDArray[np.float64],
    limits: Thresholds,
) -> _Finding | None:
    """A finding completed by other places that hold what it lacks, amid the same words."""
    for finding in findings:
        if finding.opposed or conflicts(claim, finding.missing, windows[finding.window]):
            continue
        lacks = set(finding.missing)
        for other in np.argsort(-alignments, kind="stable"):
            if not lacks or alignments[other] < limits.joint:
                break
            if not _same_table(windows[finding.window], windows[other]):
                lacks -= _completed(claim, lacks, windows[other])
        if not lacks:
            return _Finding(finding.window, finding.alignment, (), False)
    return None


def _same_table(one: Window, other: Window) -> bool:
    """Whether both are rows of one table, each about something of its own."""
    return one.is_row and other.is_row and one.passage == other.passage


def _completed(claim: Claim, lacks: set[Range], window: Window) -> set[Range]:
    """Those of the facts that a window holds amid the claim's own words, if it contradicts nothing else."""
    still = set(missing_facts(claim, window))
    if opposed(claim.text, window.text) or conflicts(claim, [r for r in lacks if r in still], window):
        return set()
    return {(a, b) for a, b in lacks - still if _speaks_of(claim.text[max(0, a - 40) : b + 40], window)}


def _speaks_of(part: str, window: Window) -> bool:
    words = frozenset(content_stems(part))
    return 2 * len(words & window.stems) >= len(words)


def _result(claim: Claim, windows: Sequence[Window], finding: _Finding, verdict: Verdict) -> Checked:
    window = windows[finding.window]
    return Checked(
        verdict=verdict,
        passage=window.passage,
        start=window.start,
        end=window.end,
        support=round(min(1.0, max(0.0, finding.alignment)), 3),
        missing=tuple(claim.text[a:b].strip() for a, b in finding.missing),
        opposed=finding.opposed,
        heading=window.heading,
        header=window.header,
    )
