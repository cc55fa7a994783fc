"""Arms -> where the marks, ticks and labels of a plot of quality against latency or cost stand.

Positions only: the page's template draws them, so that text in a plot is escaped like all other text, and colours
follow the reader's light or dark screen. That is why no chart library is used: matplotlib weighs 30 MB and bakes
colours in; pygal (LGPL) loads a script from outside and has no error bars in scatter plots; leather has neither
error bars nor themes; drawsvg and svg.py write shapes but know no axes. It knows no markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from graft.comparing.report_figures import score
from graft.comparing.values import Arm

WIDTH, TOP, LEFT, RIGHT = 480.0, 14.0, 44.0, 300.0
"""Units of the drawing; arms' names stand to the right of RIGHT."""
_BELOW = 48.0
_LABEL = 17.0
_LOG_FROM = 20.0  # largest over smallest above which a linear axis would crowd the small ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An arm in the plot: its mean, its score's interval (top to bottom), its 95th percentile where there is one."""

    arm: Arm
    x: float
    y: float
    high_y: float
    low_y: float
    far_x: float | None
    label_y: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A drawing WIDTH wide and `height` high; `without` names the arms that lack the figure."""

    height: float
    bottom: float
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    without: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """Values to places; where `log`, a value of 0 stands at the very start."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Its place in the drawing."""
        if not self.log:
            return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)
        if value <= 0:
            return self.start
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        room = 0.12 * (self.end - self.start)  # between 0 and the smallest value
        return self.start + room + (self.end - self.start - room) * share


def plot(
    arms: Sequence[Arm],
    x_of: Callable[[Arm], float | None],
    *,
    written: Callable[[float], str],
    far_of: Callable[[Arm], float | None] = lambda arm: None,
) -> Plot | None:
    """Quality upwards, `x_of` to the right; None where fewer than one arm has both.

    Args:
        written: A value of `x_of` as a tick's label.
        far_of: A second, greater value of the same kind, drawn as a line to the right.
    """
    drawn = [(arm, x, estimate) for arm in arms if (x := x_of(arm)) is not None and (estimate := score(arm))]
    if not drawn:
        return None
    bottom = TOP + max(240.0, _LABEL * len(drawn))
    xs = [x for _, x, _ in drawn] + [far for arm, _, _ in drawn if (far := far_of(arm)) is not None]
    across = _across(xs)
    up, y_steps = _upwards([e.low for *_, e in drawn], [e.high for *_, e in drawn], bottom)
    heights = [up.at(estimate.mean) for *_, estimate in drawn]
    marks = [
        Mark(
            arm=arm,
            x=across.at(x),
            y=up.at(estimate.mean),
            high_y=up.at(estimate.high),
            low_y=up.at(estimate.low),
            far_x=None if (far := far_of(arm)) is None else across.at(far),
            label_y=label,
        )
        for (arm, x, estimate), label in zip(drawn, spread(heights, _LABEL, TOP, bottom), strict=True)
    ]
    return Plot(
        height=bottom + _BELOW,
        bottom=bottom,
        marks=tuple(marks),
        x_ticks=tuple(Tick(across.at(value), written(value)) for value in _x_steps(across, xs)),
        y_ticks=tuple(Tick(up.at(value), f"{100 * value:.0f}") for value in y_steps),
        without=tuple(arm.name for arm in arms if arm.name not in {drawn_arm.name for drawn_arm, *_ in drawn}),
    )


def spread(places: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Places moved as little as keeps them `apart` from each other, within `low` and `high`.

    >>> spread([10, 11, 40], 10, 0, 45)
    [10.0, 20.0, 40.0]
    >>> spread([44, 45], 10, 0, 45)
    [35.0, 45.0]
    """
    moved = list(map(float, places))
    order = sorted(range(len(places)), key=lambda i: places[i])
    least = float(low)
    for i in order:
        moved[i] = max(moved[i], least)
        least = moved[i] + apart
    most = float(high)
    for i in reversed(order):
        moved[i] = min(moved[i], most)
        most = moved[i] - apart
    return moved


def steps(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round values that hold `low` and `high` between them, some `about` of them.

    >>> steps(0, 940)
    [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
    """
    rough = (high - low) / about or 1.0
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def _upwards(lows: Sequence[float], highs: Sequence[float], bottom: float) -> tuple[Axis, list[float]]:
    least, most = max(0.0, min(lows)), min(1.0, max(highs))
    if most - least < 0.2:  # a narrower axis would make specks look like cliffs
        middle = min(max((least + most) / 2, 0.1), 0.9)
        least, most = middle - 0.1, middle + 0.1
    ticks = steps(least, most)
    return Axis(ticks[0], ticks[-1], bottom, TOP), ticks


def _across(values: Sequence[float]) -> Axis:
    above = [value for value in values if value > 0]
    if above and max(above) / min(above) > _LOG_FROM:
        return Axis(min(above), max(above), LEFT, RIGHT, log=True)
    return Axis(0.0, steps(0.0, max(above, default=1.0), about=4)[-1], LEFT, RIGHT)


def _x_steps(axis: Axis, values: Sequence[float]) -> list[float]:
    if not axis.log:
        return steps(0.0, axis.high, about=4)
    powers = range(floor(log10(axis.low)), ceil(log10(axis.high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 3 else (1,)
    inside = [f * 10.0**power for power in powers for f in factors if axis.low <= f * 10.0**power <= axis.high]
    zero = [0.0] if min(values) <= 0 else []
    return zero + inside[:: ceil(len(inside) / 5) or 1]
