"""A comparison -> the words, orders and choices that every form of its report shares.

So that a terminal, a page and a pull request say the same figure in the same way. It knows no markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import permutations
from math import floor, log10

from graft.comparing.values import SCORE, Arm, ArmReply, Comparison, Pair, Record, Verdict
from graft.evaluation.card import figure
from graft.evaluation.statistics import Estimate

_END = re.compile(r"\.\s+(?=\S)")
_SCORED = {
    "short": "token F1",
    "label": "accuracy",
    "json": "field F1",
    "sql": "the same rows (without a database the same words)",
    "text": "ROUGE-L",
    "unanswerable": "the share declined",
}
"""What decides, by the kind of question, in words."""
APART = 0.5
"""Scores of one question that lie so far apart are a disagreement: half a right answer."""
UNKNOWN = "unknown"
NOT_MEASURED = "not measured"
COLUMNS = (
    "arm",
    "score",
    "against the best",
    "declined",
    "latency p50 / p95",
    "tokens in + out",
    "1,000 questions",
    "once",
)

_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """Text without what a screen would obey or hide: controls, reversed direction, invisible tags, half characters.

    >>> clean("a\\x1b[2Jb\\u202ec\\r\\nd")
    'a[2Jbc\\nd'
    """
    return _UNSHOWN.sub("", text)


def cut(text: str, most: int) -> str:
    """At most so many characters, saying how many are left out.

    >>> cut("abcdef", 4)
    'abcd … (2 more characters)'
    """
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]} … ({counted(left, 'more character')})"


def counted(number: int, noun: str, many: str = "") -> str:
    """
    >>> counted(1, "question"), counted(1200, "question"), counted(2, "reply", "replies")
    ('1 question', '1,200 questions', '2 replies')
    """
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def points(estimate: Estimate | None) -> str:
    """A share as points of 100 with its interval.

    >>> points(Estimate(mean=0.5, low=0.25, high=0.75)), points(None)
    ('50.0 [25.0, 75.0]', 'not measured')
    """
    return NOT_MEASURED if estimate is None else figure(estimate)


def signed(pair: Pair) -> str:
    """A difference in points with its interval, signs always there."""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in (pair.difference, pair.low, pair.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def money(usd: float | None) -> str:
    """Dollars; small sums to two figures, and an unknown price never as 0.

    >>> money(None), money(0), money(0.00123), money(0.0184), money(0.5), money(1234.5)
    ('unknown', '$0', '$0.0012', '$0.018', '$0.50', '$1,234.50')
    """
    if usd is None:
        return UNKNOWN
    if usd == 0:
        return "$0"
    return f"${usd:,.{max(2, 1 - floor(log10(usd)))}f}"


def duration(ms: float | None) -> str:
    """
    >>> duration(None), duration(0.4), duration(845.2), duration(1340), duration(252_000), duration(7_500_000)
    ('not measured', '0.4 ms', '845 ms', '1.3 s', '4 min 12 s', '2 h 5 min')
    """
    if ms is None:
        return NOT_MEASURED
    if ms < 999.5:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(created: str) -> str:
    """
    >>> moment("2026-11-23T10:30:12.345Z"), moment("yesterday")
    ('2026-11-23 10:30 UTC', 'yesterday')
    """
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return created


def chance(p: float) -> str:
    """
    >>> chance(0.0002), chance(0.0412)
    ('< 0.001', '0.041')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def latency(arm: Arm) -> str:
    """Median and 95th percentile until the whole answer was there."""
    figures = arm.latency_ms
    if figures.total_p50 is None:
        return NOT_MEASURED
    return f"{duration(figures.total_p50)} / {duration(figures.total_p95)}"


def tokens(arm: Arm) -> str:
    """Mean tokens of a question; none for what needs no model."""
    if arm.control:
        return "none"
    return NOT_MEASURED if arm.error is not None else f"{arm.tokens.prompt:,.0f} + {arm.tokens.completion:,.0f}"


def declined(arm: Arm, comparison: Comparison) -> str:
    """Of how many questions it said that there is no answer."""
    return NOT_MEASURED if arm.error is not None else f"{arm.declined:,} of {comparison.questions:,}"


def once(arm: Arm) -> str:
    """What the arm cost before its first question."""
    told = money(arm.one_time_cost_usd)
    if arm.one_time is None:
        return "none recorded" if arm.one_time_cost_usd is None else told
    told = "price unknown" if arm.one_time_cost_usd is None else told
    took = duration(1000 * arm.one_time.seconds)
    if arm.one_time.train_tokens is not None:
        took += f", {arm.one_time.train_tokens:,} tokens"
    if arm.one_time.joules is not None:
        took += f", {arm.one_time.joules / 3600:.3g} Wh"
    return f"{told} ({took})"


def score(arm: Arm) -> Estimate | None:
    """The figure that decides."""
    return arm.metrics.get(SCORE)


def ranked(arms: Sequence[Arm]) -> list[Arm]:
    """Best score first."""
    return sorted(arms, key=lambda arm: -1.0 if (s := score(arm)) is None else s.mean, reverse=True)


def with_model(comparison: Comparison) -> list[Arm]:
    """The arms that are compared, best first."""
    return ranked([arm for arm in comparison.arms if not arm.control])


def without_model(comparison: Comparison) -> list[Arm]:
    """The controls, best first."""
    return ranked([arm for arm in comparison.arms if arm.control])


def groups(comparison: Comparison) -> list[tuple[str, list[Arm]]]:
    """Tables of arms by title; a report keeps what needs no model apart. Empty ones are left out."""
    both = (("With a model", with_model(comparison)), ("Without a model", without_model(comparison)))
    return [(title, arms) for title, arms in both if arms]


def leader(comparison: Comparison) -> Arm | None:
    """The best mean of those with a model that answered at all; whether that is chance, the pairs say."""
    return next((arm for arm in with_model(comparison) if arm.error is None and score(arm) is not None), None)


def against_best(arm: Arm, comparison: Comparison) -> str:
    """How an arm stands to the leader, in a word or two."""
    best = leader(comparison)
    if best is None or arm.name == best.name:
        return "best mean" if best is not None and len(comparison.arms) > 1 else ""
    for pair in score_pairs(comparison):
        if {pair.a, pair.b} == {arm.name, best.name}:
            if pair.verdict == "no significant difference":
                return pair.verdict
            return "better" if winner(pair) == arm.name else "worse"
    return ""


def winner(pair: Pair) -> str | None:
    """Which of the two is better beyond chance; None where neither is shown to be."""
    return {"better": pair.a, "worse": pair.b}.get(pair.verdict)


def outcome(pair: Pair) -> str:
    """The verdict with the name of the better one."""
    better = winner(pair)
    return pair.verdict if better is None else f"{better} is better"


def score_pairs(comparison: Comparison) -> list[Pair]:
    """Pairs by the score, the arm with the better mean first in each, those with the leader first of all."""
    best, order = leader(comparison), {arm.name: rank for rank, arm in enumerate(arms_in_order(comparison))}
    pairs = [pair for pair in comparison.pairs if pair.metric == SCORE]

    def rank(pair: Pair) -> tuple[bool, int, int]:
        first, second = sorted((order.get(pair.a, len(order)), order.get(pair.b, len(order))))
        return best is None or best.name not in (pair.a, pair.b), first, second

    return [turned(pair) if order.get(pair.a, 0) > order.get(pair.b, 0) else pair for pair in sorted(pairs, key=rank)]


def turned(pair: Pair) -> Pair:
    """The same pair, seen from the other arm."""
    verdict: Verdict = pair.verdict
    if verdict != "no significant difference":
        verdict = "worse" if verdict == "better" else "better"
    return replace(
        pair, a=pair.b, b=pair.a, difference=-pair.difference, low=-pair.high, high=-pair.low, verdict=verdict
    )


def arms_in_order(comparison: Comparison) -> list[Arm]:
    """Those with a model, then the controls, each best first: the order of every table."""
    return [*with_model(comparison), *without_model(comparison)]


def cells(arm: Arm, comparison: Comparison) -> tuple[str, ...]:
    """An arm's row under COLUMNS."""
    return (
        arm.name,
        points(score(arm)),
        against_best(arm, comparison),
        declined(arm, comparison),
        latency(arm),
        tokens(arm),
        money(arm.cost_usd_per_1000),
        once(arm),
    )


def headline(comparison: Comparison) -> str:
    """The verdict's first sentence: what to do."""
    return _sentences(comparison.verdict)[0]


def because(comparison: Comparison) -> str:
    """The rest of the verdict."""
    return _sentences(comparison.verdict)[1]


def _sentences(verdict: str) -> tuple[str, str]:
    end = _END.search(verdict)
    return (verdict, "") if end is None else (verdict[: end.start() + 1], verdict[end.end() :])


def rests_on(comparison: Comparison) -> Iterator[str]:
    """What the verdict stands on, a sentence each: questions, documents, the leader's pairs, what was not tried."""
    kinds = [f"{number:,} {kind}" for kind, number in comparison.kinds.items()]
    asked = counted(comparison.questions, "question")
    yield f"{asked} ({', '.join(kinds)}), the same for every arm." if kinds else f"{asked}, the same for every arm."
    if scored := [f"{_SCORED[kind]} of {kind} answers" for kind in comparison.kinds if kind in _SCORED]:
        yield f"The score is {', '.join(scored)}, in points of 100; a failed question counts as 0."
    if {"short", "text"} & set(comparison.kinds) and not comparison.judged:
        yield "It counts words, and a right answer in other words loses points: --judge MODEL reads them instead."
    yield from _documents(comparison)
    best = leader(comparison)
    if best is not None:
        yield f"Best mean of the arms with a model: {best.name}, {points(score(best))} of 100 points."
        rivals = [arm.name for arm in (*with_model(comparison)[1:3], *without_model(comparison)[:1])]
        near = [
            pair
            for pair in score_pairs(comparison)
            if {pair.a, pair.b} & {best.name} and {pair.a, pair.b} & {*rivals}
        ]
        yield from (f"{pair.a} minus {pair.b}: {signed(pair)} points, {_reading(pair)}." for pair in near)
    if comparison.sample:
        yield f"{comparison.sample[0].upper()}{comparison.sample[1:]}."
    unknown = comparison.cost_usd is None
    cost = "What the replies cost is not known" if unknown else f"The replies cost {money(comparison.cost_usd)}"
    yield f"{cost}; begun on {moment(comparison.created)}."
    yield from _not_tried(comparison)


def _documents(comparison: Comparison) -> Iterator[str]:
    held = comparison.settings.get("documents")
    if isinstance(held, Mapping) and isinstance(held.get("documents"), int) and isinstance(held.get("passages"), int):
        yield f"{counted(held['documents'], 'document')}, cut into {counted(held['passages'], 'passage')}."


def _not_tried(comparison: Comparison) -> Iterator[str]:
    """The limits of what was measured: the models, and the arms that were left out."""
    request = comparison.settings.get("request")
    base = request.get("model") if isinstance(request, Mapping) else None
    if isinstance(base, str) and base:
        yield f"All of it with {base} and what was tuned from it: another model may order the arms in another way."
    left_out = comparison.settings.get("not_run")
    if isinstance(left_out, Mapping) and left_out:
        yield f"Not run: {'; '.join(f'{name} ({needs})' for name, needs in left_out.items())}."


def _reading(pair: Pair) -> str:
    return f"{outcome(pair)} (Holm p {chance(pair.p_holm)}; visible from {100 * pair.detectable:.1f} points)"


def alone(comparison: Comparison) -> str:
    """Why an interval may lie clear of 0 and the pair still not be called different; "" where none does."""
    pairs = score_pairs(comparison)
    clear = [pair for pair in pairs if pair.low * pair.high > 0 and winner(pair) is None]
    if not clear:
        return ""
    return (
        f"The interval of {clear[0].a} minus {clear[0].b} lies clear of 0, and yet no difference is claimed: an "
        f"interval looks at one pair alone, and of {counted(len(pairs), 'pair')} one in twenty would lie so by "
        "chance. The corrected p decides."
    )


def examples(comparison: Comparison, *, most: int) -> list[Record]:
    """Questions from all over the file, to see what was said."""
    step = max(1, len(comparison.records) // most)
    return list(comparison.records[::step][:most])


def failures(comparison: Comparison) -> list[str]:
    """Arms with questions that got no answer, which count as 0."""
    told = []
    for arm in arms_in_order(comparison):
        if arm.error is not None:
            told.append(f"{arm.name} failed on every question: {arm.error}")
        elif arm.failed:
            told.append(f"{arm.name} failed on {counted(arm.failed, 'question')}, counted as 0")
    return told


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From how many questions on an arm that costs more once, and less each, is the cheaper one in all."""

    cheaper: str
    dearer: str
    questions: float


FRESH_COLUMNS = ("arm", "right before", "the new fact", "the old one", "neither", "findable after")


def fresh_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One line an arm that was asked about changed facts."""
    found: list[tuple[str, ...]] = []
    for arm in arms_in_order(comparison):
        fresh = arm.freshness
        if fresh is not None:
            neither = fresh.questions - fresh.new - fresh.old
            new = f"{fresh.new} of {fresh.questions}"
            found.append((arm.name, str(fresh.knew), new, str(fresh.old), str(neither), catches_up(arm)))
    return found


def catches_up(arm: Arm) -> str:
    """How long a change in the documents takes to reach its answers."""
    if arm.freshness is not None and arm.freshness.after_ms is not None:
        return duration(arm.freshness.after_ms)
    if arm.one_time is not None:
        return f"a new training ({duration(1000 * arm.one_time.seconds)})"
    return "reads no documents"


def break_evens(comparison: Comparison) -> list[BreakEven]:
    """Of the arms with a model, the pairs whose prices are all known and which have such a point."""
    found = []
    for one, other in permutations(with_model(comparison), 2):
        once_a, each_a, once_b, each_b = (
            *(one.one_time_cost_usd, one.cost_usd_per_1000),
            *(other.one_time_cost_usd, other.cost_usd_per_1000),
        )
        if once_a is None or each_a is None or once_b is None or each_b is None:
            continue
        if once_a > once_b and each_a < each_b:
            found.append(BreakEven(one.name, other.name, 1000 * (once_a - once_b) / (each_b - each_a)))
    return sorted(found, key=lambda case: case.questions)


@dataclass(frozen=True, slots=True)
class Disagreements:
    """Questions on which the arms part, the most telling first; `total` with those that are not shown."""

    shown: tuple[Record, ...]
    total: int


def disagreements(comparison: Comparison, *, most: int) -> Disagreements:
    """Questions whose scores lie at least APART: first where the two best arms part, then by the spread.

    Of the arms with a model, where there are two; else of all.
    """
    arms = with_model(comparison)
    if len(arms) < 2:
        arms = arms_in_order(comparison)
    found = []
    for record in comparison.records:
        scores = [reached(record.replies[arm.name]) for arm in arms if arm.name in record.replies]
        known = [value for value in scores if value is not None]
        if known and max(known) - min(known) >= APART:
            top = [value for value in scores[:2] if value is not None]
            found.append((max(top, default=0.0) - min(top, default=0.0), max(known) - min(known), record))
    found.sort(key=lambda entry: entry[:2], reverse=True)
    return Disagreements(tuple(record for *_, record in found[:most]), len(found))


def reached(reply: ArmReply) -> float | None:
    """A reply's score; 0 where there was none, None where nothing could be said of it."""
    return 0.0 if reply.error is not None else reply.scores.get(SCORE)
