"""advice -> the terminal: the sentence, what moved it, costs, and where the arms change places as bars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from graft.cli.output import console, safe, say, show_table

if TYPE_CHECKING:
    from graft.advising import Advice
    from graft.advising.breaking_even import BreakEven
    from graft.advising.costs import ArmCost

_BAR = 40
_COLOURS = ("cyan", "magenta")


def show_advice(advice: Advice) -> None:
    """All of it, the recommendation first."""
    say(f"{advice.sentence}.", "bold")
    for caution in advice.cautions:
        say(f"~ {caution}", "yellow")
    if advice.evidence:
        _show_evidence(advice)
    _show_criteria(advice)
    _show_costs(advice)
    _show_break_even(advice)
    say("")
    say("What would settle it:" if advice.basis == "rules" else "To measure it again, with more questions:")
    say(f"    {advice.compare}", "green")


def _show_evidence(advice: Advice) -> None:
    show_table(
        ["measured", "score of 100", "95% interval", "answers in", "a month", ""],
        [
            (
                one.arm,
                f"{100 * one.score:.1f}",
                f"{100 * one.low:.1f} to {100 * one.high:.1f}",
                "-" if one.latency_ms is None else f"{one.latency_ms:,.0f} ms",
                _usd(one.monthly_usd),
                one.standing,
            )
            for one in advice.evidence
        ],
    )


def _show_criteria(advice: Advice) -> None:
    weighed = advice.weighed
    moved = [move for move in weighed.moves if move.retrieval or move.tuning]
    rows = [
        (move.key, move.answer, _points(move.retrieval), _points(move.tuning), f"{move.reason} ({move.source})")
        for move in moved
    ]
    rows.append(("all", "", f"{weighed.retrieval}", f"{weighed.tuning}", f"the rules say {weighed.approach}"))
    show_table(["criterion", "your answer", "retrieval", "tuning", "because"], rows)
    still = [f"{move.key} ({move.answer})" for move in weighed.moves if move not in moved]
    if still:
        say(f"Moved nothing: {', '.join(still)}", "dim")
    say("")


def _show_costs(advice: Advice) -> None:
    needs = advice.needs
    volume = needs.questions_per_month
    rows = []
    for hosted, own in zip(advice.hosted, advice.self_hosted, strict=True):
        figures = [usd for cost in (hosted, own) for usd in (cost.initial_usd(), cost.monthly_usd(volume))]
        rows.append((hosted.arm, *map(_usd, figures)))
    say(f"Costs at {volume:,} questions a month, in US dollars", "bold")
    show_table(["", "hosted: to build", "a month", "own machines: to build", "a month"], rows)
    chosen = advice.cost
    say(f"{chosen.arm}, {'hosted' if chosen.hosting == 'hosted' else 'on own machines'}:", "bold")
    lines = [("to build", line.what, _usd(line.usd()), line.because) for line in chosen.initial]
    lines += [("a month", line.what, _usd(line.usd(volume)), line.because) for line in chosen.monthly]
    show_table(["", "what", "", "from"], lines)
    for one in advice.references:
        say(
            f"{one.what}: yours {_usd(one.yours)}; commonly said ${one.low:,.0f} to ${one.high:,.0f} ({one.source})",
            "dim",
        )


def _show_break_even(advice: Advice) -> None:
    pair = next(pair for pair in advice.break_even if (pair.a, pair.b) == ("rag", "tuned"))
    costs = {cost.arm: cost for cost in advice.costs}
    say("")
    say(f"Break-even, what it costs to build spread over {advice.needs.months} months", "bold")
    for one in advice.break_even:
        if one.volumes or one is pair:
            say(f"{one.a} and {one.b}: {one.words}")
    if pair.cheapest is not None:
        _plot(pair, costs[pair.a], costs[pair.b], advice)


def _plot(pair: BreakEven, a: ArmCost, b: ArmCost, advice: Advice) -> None:
    """A month's cost of two arms over volumes, each pair of bars as long as the dearer of them."""
    from rich.table import Table
    from rich.text import Text

    from graft.advising.breaking_even import monthly_total

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    for _ in range(3):
        table.add_column()
    for volume in _volumes(pair, advice.needs.questions_per_month):
        totals = [monthly_total(cost, volume, advice.needs.months) or 0.0 for cost in (a, b)]
        for n, (cost, total) in enumerate(zip((a, b), totals, strict=True)):
            length = round(_BAR * total / max(*totals, 1e-12))
            mark = " ◀ less" if total < totals[1 - n] * (1 - 1e-6) else ""
            bar = Text("█" * max(length, 1) + mark, style=_COLOURS[n])
            head = f"{volume:,.0f} a month" if n == 0 else ""
            table.add_row(head, Text(safe(cost.arm)), bar, Text(_usd(total)))
    console().print(table)


def _volumes(pair: BreakEven, yours: int) -> Iterator[float]:
    """Powers of ten around the user's own volume and around where the arms change places."""
    points = [max(float(yours), 1.0), *pair.volumes]
    low, high = min(points) / 10, max(points) * 10
    marks = {10.0**power for power in range(16) if low <= 10.0**power <= high}
    return iter(sorted(marks | set(points)))


def _points(points: int) -> str:
    return f"{points:+d}" if points else "·"


def _usd(usd: float | None) -> str:
    """
    >>> _usd(None), _usd(0.0), _usd(0.54), _usd(1234.5)
    ('not known', '$0', '$0.54', '$1,234')
    """
    if usd is None:
        return "not known"
    return f"${usd:,.0f}" if usd >= 100 or not usd else f"${usd:,.2f}" if usd >= 0.01 else "under $0.01"
