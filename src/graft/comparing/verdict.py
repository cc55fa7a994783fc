"""Arms and their pairs -> what follows in one sentence: which is better, and what that takes in time and money.

It does not know replies or statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

from graft.comparing.report_figures import duration, money
from graft.comparing.values import SCORE, Arm, Pair

_APART = 1.2
"""Times as long, or as dear, from which one of two that score alike is called the faster or the cheaper."""
_MUCH = 2.0
"""The same for an arm that scores more: from here on, its price belongs into the verdict."""


def ranked(arms: Sequence[Arm]) -> list[Arm]:
    """Arms with a model that answered something, the best first."""
    able = [arm for arm in arms if not arm.control and arm.error is None and SCORE in arm.metrics]
    return sorted(able, key=lambda arm: -arm.metrics[SCORE].mean)


def verdict_of(arms: Sequence[Arm], pairs: Sequence[Pair]) -> str:
    """What the scores say, in one sentence; a difference that chance may have made is called none.

    Of arms that score alike, the cheapest is named, or where prices are unknown or nothing the fastest; of an arm
    that scores more, what it takes beside the next where that is much more.
    """
    order = ranked(arms)
    if not order:
        why = next((f": {arm.error}" for arm in arms if arm.error is not None), "")
        return f"no arm with a model answered a single question, so nothing can be said{why}"
    best = order[0]
    beaten, level = [], []
    for other in order[1:]:
        verdict, gain = _against(best.name, other.name, pairs)
        (beaten.append((other, gain)) if verdict == "better" else level.append(other))
    parts = []
    if beaten:
        gains = [f"{other.name} by {100 * gain:.1f}" for other, gain in beaten]
        parts.append(f"{best.name} is better than {_listed(gains)} points{_at_what_price(best, beaten[0][0])}")
    if level:
        names = _listed([other.name for other in level])
        lightest = _lightest([best, *level])
        parts.append(f"between {best.name} and {names} there is no significant difference{lightest}")
    if not parts:
        parts.append(f"{best.name} is the only arm with a model that answered")
    unbeaten = [arm.name for arm in arms if arm.control and _against(best.name, arm.name, pairs)[0] != "better"]
    if unbeaten:
        needs = "needs" if len(unbeaten) == 1 else "need"
        parts.append(f"{best.name} is not shown to be better than {_listed(unbeaten)}, which {needs} no model")
    return "; ".join(parts)


def _lightest(alike: Sequence[Arm]) -> str:
    """Which of several that score alike costs or takes least, beside the most; "" where they hardly differ."""
    for word, figure, shown, of in (
        ("cheapest", _price, money, "for 1,000 questions"),
        ("fastest", _time, duration, "a question"),
    ):
        known = [(value, arm) for arm in alike if (value := figure(arm)) is not None]
        if len(known) < len(alike):
            continue
        (least, arm), (most, other) = min(known, key=_first), max(known, key=_first)
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
