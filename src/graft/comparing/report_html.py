"""A comparison -> one HTML page in which text from outside is only ever text.

The template's environment is the one way from a value to the page: `finalize` cleans every string, autoescape
escapes it, and nothing but our own style sheet is exempt. The policy in the page forbids scripts, requests and
any style but that sheet, so that even a hole could carry nothing out. It does not know how figures come about.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from graft.comparing import report_figures as figures
from graft.comparing.report_plot import LEFT, RIGHT, TOP, WIDTH, Plot, plot
from graft.comparing.values import SCORE, Arm, Comparison, Pair

SHOWN_QUESTIONS = 40
SHOWN_EXAMPLES = 8
SHOWN_PAIRS = 100
"""By the score, and again of all other metrics together."""
LONGEST_TEXT, LONGEST_QUOTE, MOST_CITATIONS = 600, 300, 5
_LONGEST_SETTING = 500
_MARKS = {"supported": "✓", "partly": "~", "unsupported": "✗"}


def page(comparison: Comparison) -> str:
    """The whole page."""
    style = (resources.files(__package__) / "templates" / "report.css").read_text(encoding="utf-8")
    arms = figures.arms_in_order(comparison)
    by_score, best = figures.score_pairs(comparison), figures.leader(comparison)
    others = [pair for pair in comparison.pairs if pair.metric != SCORE]
    metrics = list(dict.fromkeys(name for arm in arms for name in arm.metrics if name != SCORE))
    return (
        _environment()
        .get_template("report.html")
        .render(
            c=comparison,
            arms=arms,
            groups=figures.groups(comparison),
            best=best,
            metrics=metrics,
            with_best=[pair for pair in by_score[:SHOWN_PAIRS] if best and best.name in (pair.a, pair.b)],
            without_best=[pair for pair in by_score[:SHOWN_PAIRS] if not best or best.name not in (pair.a, pair.b)],
            pairs_left=len(by_score[SHOWN_PAIRS:]),
            others=others[:SHOWN_PAIRS],
            others_left=len(others[SHOWN_PAIRS:]),
            reach=_reach(by_score),
            plots=_plots(arms),
            apart=figures.disagreements(comparison, most=SHOWN_QUESTIONS),
            examples=figures.examples(comparison, most=SHOWN_EXAMPLES),
            fresh_rows=figures.fresh_rows(comparison),
            break_evens=figures.break_evens(comparison)[:SHOWN_PAIRS],
            settings=_settings(comparison),
            style=Markup(style),  # our own file; its hash stands in the policy
            policy=_policy(style),
        )
    )


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("graft.comparing"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            value if isinstance(value, Markup) or not isinstance(value, str) else figures.clean(value)
        ),
    )
    for written in (
        *(figures.points, figures.signed, figures.money, figures.duration, figures.chance, figures.latency),
        *(figures.tokens, figures.once, figures.score, figures.outcome, figures.winner, figures.cut),
        *(figures.counted, figures.reached, figures.moment),
    ):
        made.filters[written.__name__] = written
    made.globals.update(
        against_best=figures.against_best,
        headline=figures.headline,
        because=figures.because,
        alone=figures.alone,
        declined=figures.declined,
        rests_on=figures.rests_on,
        failures=figures.failures,
        SCORE=SCORE,
        MARKS=_MARKS,
        APART=figures.APART,
        TEXT=LONGEST_TEXT,
        QUOTE=LONGEST_QUOTE,
        CITATIONS=MOST_CITATIONS,
        WIDTH=WIDTH,
        TOP=TOP,
        LEFT=LEFT,
        RIGHT=RIGHT,
        FRESH_COLUMNS=figures.FRESH_COLUMNS,
    )
    return made


def _plots(arms: list[Arm]) -> list[tuple[str, str, Plot | None]]:
    """Name of the axis, what to say where nothing can be drawn, the plot."""
    latency = plot(
        arms,
        lambda arm: arm.latency_ms.total_p50,
        far_of=lambda arm: arm.latency_ms.total_p95,
        written=lambda ms: figures.duration(ms).replace(".0 ", " ") if ms else "0",
    )
    cost = plot(arms, lambda arm: arm.cost_usd_per_1000, written=_round_dollars)
    if all(arm.control for arm in arms if arm.cost_usd_per_1000 is not None):
        cost = None  # what costs nothing anyway says nothing of the models
    return [
        ("Latency until the whole answer", "No arm answered, so that no latency was measured.", latency),
        (
            "Cost of 1,000 questions",
            "No price is known for any arm with a model: that of a machine of one's own depends on its use.",
            cost,
        ),
    ]


def _round_dollars(usd: float) -> str:
    """A tick's label.

    >>> _round_dollars(0.0), _round_dollars(0.005), _round_dollars(2000.0)
    ('$0', '$0.005', '$2,000')
    """
    return "$" + f"{usd:,.9f}".rstrip("0").rstrip(".")


def _reach(pairs: list[Pair]) -> float:
    """The greatest end of an interval, which is the half width of the drawings of differences."""
    return max((abs(end) for pair in pairs[:SHOWN_PAIRS] for end in (pair.low, pair.high)), default=0.0) or 1.0


def _settings(comparison: Comparison) -> list[tuple[str, str]]:
    def told(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return figures.cut(text, _LONGEST_SETTING)

    return [(str(key), told(value)) for key, value in comparison.settings.items() if key != "command"]


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
