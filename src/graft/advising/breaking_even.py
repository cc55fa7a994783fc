"""two arms' costs -> the volumes at which they change places. Exact: what each costs is made of straight pieces.

It does not know which arm answers better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import inf
from typing import Any

from graft.advising.costs import ArmCost, Line


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """Two arms over all volumes.

    Attributes:
        cheapest: From which number of questions a month which of them costs less, the first from 0; None where
            a price is not known. One that goes on to any volume stands last.
    """

    a: str
    b: str
    cheapest: tuple[tuple[float, str], ...] | None

    @property
    def volumes(self) -> tuple[float, ...]:
        """Questions a month at which they change places, rising."""
        return tuple(start for start, _ in self.cheapest[1:]) if self.cheapest else ()

    @property
    def words(self) -> str:
        if self.cheapest is None:
            return "not known: a price is missing"
        first, *rest = self.cheapest
        if not rest:
            return f"{first[1]} costs less at every volume"
        return f"{first[1]} costs less" + "".join(
            f", from {start:,.0f} questions a month {arm}" for start, arm in rest
        )

    def to_json(self) -> dict[str, Any]:
        ranges = None if self.cheapest is None else [{"from": start, "arm": arm} for start, arm in self.cheapest]
        return {"a": self.a, "b": self.b, "cheapest": ranges, "words": self.words}


def monthly_total(cost: ArmCost, questions: float, months: int) -> float | None:
    """What an arm costs a month, what it costs to build being spread over `months`."""
    initial, monthly = cost.initial_usd(), cost.monthly_usd(questions)
    return None if initial is None or monthly is None else initial / months + monthly


def break_even(a: ArmCost, b: ArmCost, *, months: int) -> BreakEven:
    """Where a and b change places; where they cost the same, the one that stood before stays."""
    pieces = _pieces(a, b, months)
    if pieces is None:
        return BreakEven(a=a.arm, b=b.arm, cheapest=None)
    found: list[tuple[float, str]] = []
    for start, end, at, slope in pieces:
        for point, sign in _signs(start, end, at, slope):
            arm = a.arm if sign < 0 else b.arm
            if sign and (not found or found[-1][1] != arm):
                found.append((point if found else 0.0, arm))
    return BreakEven(a=a.arm, b=b.arm, cheapest=tuple(found or [(0.0, a.arm)]))


def break_evens(costs: Sequence[ArmCost], *, months: int) -> tuple[BreakEven, ...]:
    """Every pair of arms."""
    return tuple(break_even(a, b, months=months) for a, b in combinations(costs, 2))


def _pieces(a: ArmCost, b: ArmCost, months: int) -> list[tuple[float, float, float, float]] | None:
    """a - b as straight pieces: from, to, difference at from, rise for each question more."""
    if monthly_total(a, 0, months) is None or monthly_total(b, 0, months) is None:
        return None
    kinks = {0.0}.union(*(_kinks(line) for line in (*a.monthly, *b.monthly)))
    starts = sorted(kinks)
    pieces = []
    for start, end in zip(starts, [*starts[1:], inf], strict=True):
        within = (start + end) / 2 if end < inf else 2 * start + 1
        rise = _less(_slope(a, within), _slope(b, within))
        pieces.append((start, end, _difference(a, b, start, months), rise))
    return pieces


def _kinks(line: Line) -> Iterator[float]:
    """Every volume at which a line may bend: where one of its ways leaves its least, or two of them cross."""
    for one, other in product(line.ways, repeat=2):
        for gap, rise in (
            (one.least_usd - other.fixed_usd, other.per_question_usd),
            (one.fixed_usd - other.fixed_usd, other.per_question_usd - one.per_question_usd),
        ):
            if rise > 0 and 0 < gap / rise < inf:
                yield gap / rise


def _slope(cost: ArmCost, volume: float) -> float:
    """What one question more costs, away from kinks."""
    found = 0.0
    for line in cost.monthly:
        way = min(line.ways, key=lambda way: way.usd(volume))
        found += way.per_question_usd if way.fixed_usd + way.per_question_usd * volume > way.least_usd else 0.0
    return found


def _difference(a: ArmCost, b: ArmCost, volume: float, months: int) -> float:
    left, right = monthly_total(a, volume, months), monthly_total(b, volume, months)
    assert left is not None and right is not None
    return _less(left, right)


def _less(left: float, right: float) -> float:
    """left - right, and 0 for what adding up in another order leaves."""
    found = left - right
    return found if abs(found) > 1e-9 * (abs(left) + abs(right)) else 0.0


def _signs(start: float, end: float, at: float, slope: float) -> list[tuple[float, int]]:
    """Where a straight piece begins or changes sign, and the sign from there on."""
    here = (at > 0) - (at < 0)
    rising = (slope > 0) - (slope < 0)
    if not here:
        return [(start, rising)]
    crossing = -at / slope if slope else -1.0
    return [(start, here), (start + crossing, rising)] if 0 < crossing < end - start else [(start, here)]
