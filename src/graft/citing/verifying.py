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
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from graft.citing.facts import Date, Name, Quantity, dates, names, quantities, same_quantity
from graft.citing.negation import opposed
from graft.citing.sentences import sentences
from graft.citing.words import content_stems, is_function_word, stem

F = TypeVar("F", Quantity, Date)
_NEAR = 5
"""Words before and after a number that tell what it is the number of."""
_BINDING = 2
"""So many more of a claim's words around another number show that the claim took the wrong one."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_PRONOUN = re.compile(r"\b(?:he|she|they|it|its|his|her|their|this|these|those|er|sie|es|dies\w*)\b", re.IGNORECASE)
_TOO_SHORT = 3
"""Content words below which a claim does not say what it is about."""
_SILENT = 0.35
"""Likeness below which a sentence without any of a claim's words says nothing about it, whatever stands over it."""
_UNNAMED = 0.2
"""Taken off the fit of a passage that lacks a name or number of the question."""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class Verdict(StrEnum):
    """What a machine found when it held a claim against the passages."""

    SUPPORTED = "supported"
    PARTLY = "partly"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Passage:
    """A range of a source. `context` is what stands over it: title, headings, a table's header."""

    text: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """The finding on one claim.

    Attributes:
        passage: Index of the passage that bears it best, or None where none speaks of it.
        start, end: The bearing range in that passage's text.
        support: Alignment from 0 to 1; not a probability.
        missing: Numbers, dates and names of the claim that the range does not hold, as written.
        opposed: Whether the range says the opposite.
    """

    verdict: Verdict
    passage: int | None
    start: int
    end: int
    support: float
    missing: tuple[str, ...] = ()
    opposed: bool = False


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where verdicts change; chosen on the development claims of `benchmarks/bench_claims.py`."""

    supported: float = 0.5
    partly: float = 0.35
    contradiction_margin: float = 0.12
    joint: float = 0.3


@dataclass(frozen=True, slots=True)
class _Window:
    """One sentence or two neighbours of a passage, with what stands around it."""

    passage: int
    start: int
    end: int
    text: str
    context: str
    before: str
    stems: frozenset[str]
    own_stems: frozenset[str]
    sentences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Claim:
    text: str
    stems: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    dates: tuple[Date, ...]
    names: tuple[Name, ...]


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
    windows, units = _windows(passages)
    if not claims or not windows:
        return [Checked(Verdict.UNSUPPORTED, None, 0, 0, 0.0) for _ in claims]
    subjects = [_subject(claim, question) for claim in claims]
    vectors = embed([*subjects, *units])
    similarity = vectors[: len(claims)] @ vectors[len(claims) :].T  # (claims, sentences)
    known = frozenset(part for p in passages for name in names(p.text) for part in name.parts)
    return [
        _check(_read(text, known, subject), windows, similarity[row], limits)
        for row, (text, subject) in enumerate(zip(claims, subjects, strict=True))
    ]


def closest(question: str, passages: Sequence[Passage], *, embed: Embed) -> Checked | None:
    """The sentence or two that fit a question best and hold its names and numbers; None without passages."""
    windows, units = _windows(passages)
    if not windows:
        return None
    vectors = embed([question, *units])
    asked = _read(question, frozenset(), question)
    fits = _alignments(asked, windows, vectors[0] @ vectors[1:].T)
    fits -= [_UNNAMED * len(_hold(asked, window, 0, 0.0).missing) for window in windows]
    best = int(np.argmax(fits))
    return _result(asked, windows, _Finding(best, float(fits[best]), (), False), Verdict.SUPPORTED)


def _windows(passages: Sequence[Passage]) -> tuple[list[_Window], list[str]]:
    """All windows, and the sentences to embed; a window points at its sentences' rows."""
    windows: list[_Window] = []
    units: list[str] = []
    for number, passage in enumerate(passages):
        ranges = sentences(passage.text)
        first = len(units)
        units.extend(passage.text[a:b] for a, b in ranges)
        prose = [" | " not in passage.text[a:b] for a, b in ranges]
        spans = [(i, i) for i in range(len(ranges))]
        spans += [(i, i + 1) for i in range(len(ranges) - 1) if prose[i] and prose[i + 1]]  # a row stands alone
        for i, j in spans:
            start, end = ranges[i][0], ranges[j][1]
            text = passage.text[start:end]
            if passage.text[end - 1] in "?？؟" or _is_heading(passage.text[ranges[j][0] : end]):
                continue  # asks or announces, but states nothing
            windows.append(
                _Window(
                    passage=number,
                    start=start,
                    end=end,
                    text=text,
                    context=passage.context,
                    before=passage.text[ranges[i - 1][0] : ranges[i - 1][1]] if i else "",
                    stems=frozenset(content_stems(f"{passage.context} {text}")),
                    own_stems=frozenset(content_stems(_stated_part(text))),
                    sentences=tuple(range(first + i, first + j + 1)),
                )
            )
    return windows, units


def _stated_part(text: str) -> str:
    """The text without a question that opens it."""
    question = re.match(r"[^.!?]*[?？؟]\s", text)
    return text[question.end() :] if question else text


def _is_heading(line: str) -> bool:
    return line.startswith("#")


def _subject(claim: str, question: str) -> str:
    return f"{question} {claim}" if question and len(set(content_stems(claim))) < _TOO_SHORT else claim


def _read(text: str, known: frozenset[str], subject: str) -> _Claim:
    return _Claim(
        text=text,
        stems=tuple(content_stems(subject)),
        quantities=tuple(quantities(text)),
        dates=tuple(dates(text)),
        names=tuple(names(text, known=known)),
    )


def _check(
    claim: _Claim,
    windows: Sequence[_Window],
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
    if holding is None:
        holding = _jointly(claim, findings, windows, alignments, limits)
    if holding is not None:
        verdict = Verdict.SUPPORTED if holding.alignment >= limits.supported else Verdict.PARTLY
        return _result(claim, windows, holding, verdict)
    closest = min(findings, key=lambda f: (f.opposed, len(f.missing)))
    contradicted = closest.opposed or _conflicts(claim, closest, windows[closest.window])
    return _result(claim, windows, closest, Verdict.UNSUPPORTED if contradicted else Verdict.PARTLY)


def _alignments(claim: _Claim, windows: Sequence[_Window], similarity: NDArray[np.float32]) -> NDArray[np.float64]:
    """How well each window fits the claim's words and meaning; rare words weigh more."""
    single = [window.stems for window in windows if len(window.sentences) == 1]
    spread = Counter(word for stems in single for word in stems)
    weight = {word: math.log(1 + len(single) / (1 + spread[word])) for word in claim.stems}
    return np.array([_alignment(claim, window, similarity, weight) for window in windows])


def _alignment(claim: _Claim, window: _Window, similarity: NDArray[np.float32], weight: dict[str, float]) -> float:
    """Half the share of the claim's words that the window holds, half the likeness in meaning."""
    asked = sum(weight.values())
    shared = sum(w for word, w in weight.items() if word in window.stems)
    coverage = shared / asked if asked else 0.0
    meaning = max(float(similarity[row]) for row in window.sentences)
    longer = 0.02 * (len(window.sentences) - 1)  # of two that say it, take the shorter
    fit = 0.5 * coverage + 0.5 * max(0.0, meaning) - longer
    silent = window.own_stems.isdisjoint(weight) and float(similarity[window.sentences[-1]]) < _SILENT
    return min(fit, _SILENT) if silent else fit


def _hold(claim: _Claim, window: _Window, index: int, alignment: float) -> _Finding:
    numbers, days = _stated(window, quantities), _stated(window, dates)
    missing = _unmatched(claim, claim.quantities, numbers, same_quantity, lambda a, b: a.unit == b.unit)
    missing += _unmatched(claim, claim.dates, days, Date.agrees, lambda a, b: True)
    missing += [(n.start, n.end) for n in claim.names if not _names_hold(n, window)]
    return _Finding(index, alignment, tuple(missing), opposed(claim.text, window.text))


def _stated(window: _Window, read: Callable[[str], Sequence[F]]) -> list[tuple[F, frozenset[str]]]:
    """The facts of a window and of what stands over it, each with the words around it."""
    return [
        (fact, _around(text, fact.start, fact.end)) for text in (window.text, window.context) for fact in read(text)
    ]


def _unmatched(
    claim: _Claim,
    facts: Sequence[F],
    stated: Sequence[tuple[F, frozenset[str]]],
    same: Callable[[F, F], bool],
    comparable: Callable[[F, F], bool],
) -> list[tuple[int, int]]:
    """Ranges of the claim's facts that the window does not state, or states of something else.

    Of several facts of one kind, the one amid the claim's own words is the one the claim speaks of.
    """
    missing = []
    for fact in facts:
        around = _around(claim.text, fact.start, fact.end)
        agreeing = [len(around & words) for other, words in stated if same(fact, other)]
        others = [len(around & words) for other, words in stated if comparable(fact, other) and not same(fact, other)]
        taken = any(
            f is not fact and not same(f, fact) and same(f, o) for f in facts for o, _ in stated if same(fact, o)
        )
        if not agreeing or (others and max(others) >= max(agreeing) + _BINDING) or (taken and len(agreeing) < 2):
            missing.append((fact.start, fact.end))
    return missing


def _around(text: str, start: int, end: int) -> frozenset[str]:
    """Stems of the words next to a range, within its sentence."""
    before = re.split(r"[.;!?\n|]\s", text[max(0, start - 60) : start])[-1]
    after = re.split(r"[.;!?\n|](?:\s|$)", text[end : end + 60])[0]
    return frozenset(content_stems(before)[-_NEAR:] + content_stems(after)[:_NEAR])


def _names_hold(name: Name, window: _Window) -> bool:
    """Whether every part of a name stands in the window or over it; just before it, if the window says "she"."""
    before = window.before if _PRONOUN.search(window.text) else ""
    text = f"{window.context} {before} {window.text}".lower().replace("’", "'")
    words = frozenset(_WORD.findall(text))
    return all(
        part in words or stem(part) in window.stems or (not part.isalpha() and part in text)
        for whole in name.parts
        for part in whole.split("-")
        if not is_function_word(part)
    )


def _conflicts(claim: _Claim, finding: _Finding, window: _Window) -> bool:
    """Whether the window states another number or date of the kind that it lacks."""
    units = {q.unit for q in claim.quantities if (q.start, q.end) in finding.missing}
    lacks_date = any((d.start, d.end) in finding.missing for d in claim.dates)
    return any(q.unit in units for q in quantities(window.text)) or (lacks_date and bool(dates(window.text)))


def _jointly(
    claim: _Claim,
    findings: Sequence[_Finding],
    windows: Sequence[_Window],
    alignments: NDArray[np.float64],
    limits: Thresholds,
) -> _Finding | None:
    """A finding completed by a second place that holds what it lacks and speaks of the same words."""
    for finding in findings:
        if finding.opposed or _conflicts(claim, finding, windows[finding.window]):
            continue
        around = frozenset(w for a, b in finding.missing for w in content_stems(claim.text[max(0, a - 40) : b + 40]))
        for other in np.argsort(-alignments, kind="stable"):
            if alignments[other] < limits.joint:
                break
            second = _hold(claim, windows[other], int(other), float(alignments[other]))
            lacks = set(finding.missing) & set(second.missing)
            agree = not second.opposed and not _conflicts(claim, second, windows[other])
            if not lacks and agree and 2 * len(around & windows[other].stems) >= len(around):
                return _Finding(finding.window, finding.alignment, (), False)
    return None


def _result(claim: _Claim, windows: Sequence[_Window], finding: _Finding, verdict: Verdict) -> Checked:
    window = windows[finding.window]
    return Checked(
        verdict=verdict,
        passage=window.passage,
        start=window.start,
        end=window.end,
        support=round(min(1.0, max(0.0, finding.alignment)), 3),
        missing=tuple(claim.text[a:b].strip() for a, b in finding.missing),
        opposed=finding.opposed,
    )
