"""a report -> the arm that costs least among those not shown to be worse than the best.

What is required (sources shown, nothing private in weights, a model left as it is) excludes arms, however well they
score. It does not know rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from graft.advising.arms import approach_of, costed_as, is_tuned, place_of, retrieves
from graft.advising.breaking_even import monthly_total
from graft.advising.costs import ArmCost
from graft.advising.needs import Needs
from graft.advising.report import MeasuredArm, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One measured arm.

    Attributes:
        standing: "recommended", "not shown to be worse than the best", "worse than the best", "needs no tuning or
            retrieval of ours", or why it is left out.
        monthly_usd: With what it costs to build, spread; None where unknown.
    """

    arm: str
    score: float
    low: float
    high: float
    latency_ms: float | None
    monthly_usd: float | None
    standing: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a report decides."""

    arm: str
    sentence: str
    arms: tuple[Evidence, ...]


def excluded(arm: str, needs: Needs) -> str | None:
    """Why an arm cannot be had, whatever it scores; None where it can."""
    if needs.sources == "required" and not retrieves(arm):
        return "shows no sources, which you require"
    if is_tuned(arm) and needs.private == "yes":
        return "takes into its weights what must not enter them"
    if is_tuned(arm) and needs.base_model == "unchanged":
        return "changes the model, which must stay as it is"
    return None


def settled(report: Report, needs: Needs, costs: Sequence[ArmCost]) -> Settled | None:
    """The arm that the report speaks for; None where it has none that the needs allow.

    Of arms not shown to be worse than the best, the one that costs least a month; where a price is unknown, the
    simplest.
    """
    allowed = [arm for arm in report.arms if approach_of(arm.name) and not excluded(arm.name, needs)]
    if not allowed:
        return None
    best = max(allowed, key=lambda arm: arm.score)
    alike = [arm for arm in allowed if not report.worse(arm.name, than=best.name)]
    spent = {arm.name: _spent(arm, costs, needs) for arm in alike}
    known = all(usd is not None for usd in spent.values())

    def rank(arm: MeasuredArm) -> tuple[float, int]:
        usd = spent[arm.name]
        return (usd if known and usd is not None else inf), place_of(arm.name)

    chosen = min(alike, key=rank)
    return Settled(
        arm=chosen.name,
        sentence=_sentence(report, chosen, best, known=known),
        arms=tuple(_row(arm, chosen, best, report, needs, costs) for arm in report.arms),
    )


def _spent(arm: MeasuredArm, costs: Sequence[ArmCost], needs: Needs) -> float | None:
    cost = next((cost for cost in costs if cost.arm == costed_as(arm.name)), None)
    return None if cost is None else monthly_total(cost, needs.questions_per_month, needs.months)


def _sentence(report: Report, chosen: MeasuredArm, best: MeasuredArm, *, known: bool) -> str:
    shown = f"on {report.questions:,} questions {chosen.name} scored {_figure(chosen)}"
    if chosen is best:
        return f"{shown}, the most of what you can use"
    why = "costs more" if known else "takes more work"
    return f"{shown}; {best.name}, with {_figure(best)}, is not shown to be better and {why}"


def _figure(arm: MeasuredArm) -> str:
    return f"{100 * arm.score:.1f} ({100 * arm.low:.1f} to {100 * arm.high:.1f}) of 100 points"


def _row(
    arm: MeasuredArm,
    chosen: MeasuredArm,
    best: MeasuredArm,
    report: Report,
    needs: Needs,
    costs: Sequence[ArmCost],
) -> Evidence:
    if arm is chosen:
        standing = "recommended"
    elif approach_of(arm.name) is None:
        standing = "needs no tuning or retrieval of ours"
    elif reason := excluded(arm.name, needs):
        standing = f"left out: {reason}"
    else:
        worse = report.worse(arm.name, than=best.name)
        standing = "worse than the best" if worse else "not shown to be worse than the best"
    return Evidence(
        arm=arm.name,
        score=arm.score,
        low=arm.low,
        high=arm.high,
        latency_ms=arm.latency_ms,
        monthly_usd=_spent(arm, costs, needs),
        standing=standing,
    )
