"""Arms and their pairs -> what follows in a few sentences: what to do, which is better, and what that takes.

It does not know replies or statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

from graft.comparing.report_figures import duration, money
from graft.comparing.values import SCORE, Arm, Pair
from graft.evaluation.statistics import Estimate

_APART = 1.2
"""Times as long, or as dear, from which one of two that score alike is called the faster or the cheaper."""
_MUCH = 2.0
"""The same for an arm that scores more: from here on, its price belongs into the verdict."""
_FIT = 0.5
"""An arm that is right less often than this, the upper end of its interval included, is fit for nothing."""
_NOTHING, _MOST = 0.001, 10_000
"""A difference that is none; and a number of questions that nobody writes."""


def ranked(arms: Sequence[Arm]) -> list[Arm]:
    """Arms with a model that answered something, the best first."""
    able = [arm for arm in arms if not arm.control and arm.error is None and SCORE in arm.metrics]
    return sorted(able, key=lambda arm: -arm.metrics[SCORE].mean)


def verdict_of(arms: Sequence[Arm], pairs: Sequence[Pair], fitness: Estimate | None = None) -> str:
    """What the scores say, in sentences; the first says what to do.

    A difference that chance may have made is called none. Of arms that score alike, the cheapest is named, or where
    prices are unknown or nothing the fastest; of an arm that scores more, what it takes beside the next where that
    is much more. What is not better than an arm without a model, or right on less than half of the questions, is
    not recommended.

    Args:
        fitness: The best arm's share of right answers, by the mildest metric there is.
    """
    order = ranked(arms)
    if not order:
        why = next((f": {arm.error}" for arm in arms if arm.error is not None), "")
        return f"No arm with a model answered a single question, so nothing can be said{why}."
    best = order[0]
    beaten, level = [], []
    for other in order[1:]:
        verdict, gain = _against(best.name, other.name, pairs)
        (beaten.append((other, gain)) if verdict == "better" else level.append(other))
    unbeaten = [arm for arm in arms if arm.control and _against(best.name, arm.name, pairs)[0] != "better"]
    parts = [_what_to_do(best, beaten, level, unbeaten, fitness)]
    if beaten:
        gains = [f"{other.name} by {100 * gain:.1f}" for other, gain in beaten]
        parts.append(f"{best.name} is better than {_listed(gains)} points{_at_what_price(best, beaten[0][0])}.")
    if level:
        names = _listed([other.name for other in level])
        lightest = _lightest([best, *level])
        parts.append(f"Between {best.name} and {names} there is no significant difference{lightest}.")
        parts.append(_to_settle(best, level[0], pairs))
    if unbeaten:
        needs = "needs" if len(unbeaten) == 1 else "need"
        names = _listed([arm.name for arm in unbeaten])
        parts.append(f"{best.name} is not shown to be better than {names}, which {needs} no model.")
    return " ".join(part for part in parts if part)


def _what_to_do(
    best: Arm,
    beaten: Sequence[tuple[Arm, float]],
    level: Sequence[Arm],
    unbeaten: Sequence[Arm],
    fitness: Estimate | None,
) -> str:
    if fitness is not None and fitness.high < _FIT:
        right = f"{100 * fitness.mean:.0f}% of the questions right"
        return f"None of these is fit for use as it is: the best, {best.name}, answers {right}."
    if unbeaten:
        return f"Use no model yet: none is shown to be better than {unbeaten[0].name}, which needs none."
    if level and beaten:
        return f"Not decided between {_listed([best.name, *(arm.name for arm in level)])}, which lead."
    if level:
        return "Not decided: no arm is shown to be better than the others."
    if beaten:
        return f"Use {best.name}."
    return f"{best.name} is the only arm with a model that answered, so that there is nothing to choose from."


def _to_settle(best: Arm, next_best: Arm, pairs: Sequence[Pair]) -> str:
    """How many questions would show a difference as large as the one that was measured."""
    for pair in pairs:
        if pair.metric == SCORE and {pair.a, pair.b} == {best.name, next_best.name}:
            apart = abs(pair.difference)
            if apart < _NOTHING or pair.detectable <= apart:
                return ""
            needed = pair.questions * (pair.detectable / apart) ** 2
            if needed > _MOST:
                return f"{best.name} and {next_best.name} are too much alike to be told apart by asking more."
            rounded = max(10, round(needed, -1 if needed < 1000 else -2))
            return (
                f"If the {100 * apart:.1f} points between {best.name} and {next_best.name} are real, about "
                f"{rounded:,.0f} questions would show it."
            )
    return ""


def _lightest(alike: Sequence[Arm]) -> str:
    """Which of several that score alike costs or takes least, beside the most; "" where they hardly differ."""
    for word, figure, shown, of in (
        ("cheapest", _price, money, "for 1,000 questions"),
        ("fastest", _time, duration, "for half of the questions"),
    ):
        known = [(value, arm) for arm in alike if (value := figure(arm)) is not None]
        if len(known) < len(alike):
            continue
        (least, arm), (most, other) = min(known, key=_first), max(known, key=_first)
        if word == "fastest" and any(_slow(one) < _slow(arm) for one in alike):
            return ""  # the fastest at the median is not the fastest at its slowest
        if most > _APART * least:
            figures = f"{shown(least)} {of} against {shown(most)} of {other.name}"
            return f", and {arm.name} is the {word} of them ({figures})"
    return ""


def _at_what_price(best: Arm, next_best: Arm) -> str:
    """Where the best arm takes much more than the best of those that it beats; "" where it does not."""
    dear, cheap, slow, fast = _price(best), _price(next_best), _time(best), _time(next_best)
    told = []
    if dear is not None and cheap is not None and dear > _MUCH * cheap:
        told.append(f"{money(dear)} instead of {money(cheap)} for 1,000 questions")
    if slow is not None and fast is not None and slow > _MUCH * fast:
        told.append(f"{duration(slow)} instead of {duration(fast)} a question")
    return f" ({_listed(told)})" if told else ""


def _price(arm: Arm) -> float | None:
    return arm.cost_usd_per_1000


def _time(arm: Arm) -> float | None:
    return arm.latency_ms.total_p50


def _slow(arm: Arm) -> float:
    return arm.latency_ms.total_p95 or 0.0


def _first(known: tuple[float, Arm]) -> float:
    return known[0]


def _against(best: str, other: str, pairs: Sequence[Pair]) -> tuple[str, float]:
    turned = {"better": "worse", "worse": "better"}
    for pair in pairs:
        if pair.metric == SCORE and {pair.a, pair.b} == {best, other}:
            if pair.a == best:
                return pair.verdict, pair.difference
            return turned.get(pair.verdict, pair.verdict), -pair.difference
    return "no significant difference", 0.0


def _listed(names: Sequence[str]) -> str:
    """
    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
