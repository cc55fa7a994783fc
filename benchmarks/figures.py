"""Measurements of rounds -> figures with their spread, kept as parts until report.py joins them.

It does not know who measured.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"
PARTS = RESULTS / "parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of latest.json.

    Attributes:
        ours, peer: Medians over the rounds, in `unit`. `peer` may be a physical floor.
        ratio: ours / peer; `low` and `high` are its least and greatest over the rounds.
    """

    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None
    low: float | None
    high: float | None
    unit: str
    better: Literal["higher", "lower"]
    command: str
    date: str = dataclasses.field(default_factory=lambda: datetime.date.today().isoformat())


def against_best(
    ours: Sequence[float],
    peers: dict[str, Sequence[float]],
    *,
    unit: str,
    better: Literal["higher", "lower"],
    command: str,
) -> Figure:
    """Compare with the best peer, whichever that is in each round.

    Args:
        ours: One value a round.
        peers: Peer -> its values, in the same order of rounds.

    >>> f = against_best([20, 30], {"a": [10, 10], "b": [5, 12]}, unit="KB/s", better="higher", command="x")
    >>> f.peer_name, f.low, f.high, f.ratio
    ('a', 2.0, 2.5, 2.25)
    """
    pick = max if better == "higher" else min
    medians = {name: statistics.median(values) for name, values in peers.items()}
    best = pick(medians, key=lambda name: medians[name])
    ratios = [mine / pick(values) for mine, values in zip(ours, zip(*peers.values(), strict=True), strict=True)]
    return Figure(
        ours=round(statistics.median(ours), 4),
        peer=round(medians[best], 4),
        peer_name=best,
        ratio=round(statistics.median(ratios), 3),
        low=round(min(ratios), 3),
        high=round(max(ratios), 3),
        unit=unit,
        better=better,
        command=command,
    )


def write_part(name: str, figures: dict[str, Figure], *, table: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Keep one benchmark's figures, its table in Markdown, and the raw rows behind them."""
    PARTS.mkdir(parents=True, exist_ok=True)
    path = PARTS / f"{name}.json"
    part = {
        "figures": {key: dataclasses.asdict(figure) for key, figure in figures.items()},
        "table": table,
        "rows": rows,
    }
    path.write_text(json.dumps(part, indent=1) + "\n", encoding="utf-8")
    return path


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """
    >>> print(markdown_table(["a", "b"], [["x", 1.234567], ["y", None]]))
    | a | b |
    |---|---|
    | x | 1.23 |
    | y | - |
    """
    lines = [list(header), *([_cell(value) for value in row] for row in rows)]
    shown = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([shown[0], "|" + "---|" * len(header), *shown[1:]])


def spread(values: Sequence[float]) -> str:
    """Median, with the least and the greatest where they differ.

    >>> spread([3.0, 1.0, 2.0])
    '2 (1-3)'
    """
    low, middle, high = min(values), statistics.median(values), max(values)
    return _cell(middle) if low == high else f"{_cell(middle)} ({_cell(low)}-{_cell(high)})"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
