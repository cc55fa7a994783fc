"""A comparison -> the same report for a terminal, for a pull request and as one page.

    report_figures.py     the words and choices that all forms share
    report_plot.py        where the marks of a plot stand
    report_html.py        the page, from templates/

Questions, documents and replies are untrusted: each form has one way to show text, `_text` here for a terminal,
`escaped` of evaluation.card for Markdown, the template's environment for the page. It does not know how figures
come about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.comparing.report_figures import (
    COLUMNS,
    FRESH_COLUMNS,
    alone,
    arms_in_order,
    because,
    break_evens,
    cells,
    chance,
    clean,
    counted,
    cut,
    disagreements,
    examples,
    failures,
    fresh_rows,
    groups,
    headline,
    leader,
    outcome,
    points,
    rests_on,
    score_pairs,
    signed,
)
from graft.comparing.values import SCORE, Arm, Comparison
from graft.errors import UsageError
from graft.evaluation.card import escaped, fenced, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_PAIRS = 10
"""Pairs that a terminal or a pull request shows; the page shows more, the JSON all."""
_WARNINGS = 20
_LONGEST, _LONGEST_VERDICT = 500, 2000
_FINDINGS = 12
_SHOWN, _SHORT = 5, 100
"""Example replies, and their characters."""
_SAID_COLUMNS = ("question", "expected", "reply")
_UNBROKEN = ("arm", "score", "a", "b", "a minus b, points")
_PAIR_COLUMNS = ("a", "b", "a minus b, points", "Holm p", "visible from", "verdict")


def terminal(comparison: Comparison) -> RenderableType:
    """Verdict, what it rests on, arms and pairs, to be printed by rich."""
    from rich.console import Group

    parts: list[RenderableType] = [_text(headline(comparison), "bold")]  # no frame: soft wrapping would cut it
    if more := because(comparison):
        parts.append(_text(more, most=_LONGEST_VERDICT))
    if comparison.partial is not None:
        parts.append(_text(f"Not finished: {comparison.partial}", "yellow"))
    parts += [_text(f"· {line}") for line in rests_on(comparison)]
    parts += [_text(f"! {line}", "yellow") for line in _cautions(comparison)]
    parts += [_text(f"! {line}", "yellow") for line in comparison.findings[:_FINDINGS]]
    for title, arms in groups(comparison):
        parts.append(_grid(title, COLUMNS, [cells(arm, comparison) for arm in arms]))
    if pairs := _pair_rows(comparison):
        parts.append(_grid("Pairs, by the score", _PAIR_COLUMNS, pairs))
    if note := alone(comparison):
        parts.append(_text(note, "dim"))
    if said := _said(comparison):
        parts.append(_grid(f"What {said[0]} said, for example", _SAID_COLUMNS, said[1]))
    if fresh := fresh_rows(comparison):
        parts.append(_grid("Facts changed in the documents, and asked again", FRESH_COLUMNS, fresh))
    parts += [_text(line, "dim") for line in _left_out(comparison)]
    return Group(*parts)


def markdown(comparison: Comparison) -> str:
    """The report without the replies, short enough for a pull request's comment."""
    lines = [f"**{_marked(headline(comparison))}**"]
    if more := because(comparison):
        lines.append(_marked(more, _LONGEST_VERDICT))
    if comparison.partial is not None:
        lines.append(f"**Not finished:** {_marked(comparison.partial)}")
    lines.append("\n".join(f"- {_marked(line)}" for line in rests_on(comparison)))
    if cautions := _cautions(comparison):
        lines += ["### Warnings", "\n".join(f"- {_marked(line)}" for line in cautions)]
    if findings := comparison.findings[:_FINDINGS]:
        lines += ["### What stands out", "\n".join(f"- {_marked(line)}" for line in findings)]
    for title, arms in groups(comparison):
        lines += [f"### {title}", _rows(COLUMNS, [cells(arm, comparison) for arm in arms])]
    if pairs := _pair_rows(comparison):
        lines += ["### Pairs, by the score", _rows(_PAIR_COLUMNS, pairs), _marked(alone(comparison))]
    if said := _said(comparison):
        lines += [f"### What {_marked(said[0])} said, for example", _rows(_SAID_COLUMNS, said[1])]
    if len(comparison.kinds) > 1:
        lines += ["### By kind of question", _rows(("arm", *comparison.kinds), _kind_rows(comparison))]
    if fresh := fresh_rows(comparison):
        lines += ["### Facts changed in the documents, and asked again", _rows(FRESH_COLUMNS, fresh)]
    lines.append("\n".join(f"- {_marked(line)}" for line in _left_out(comparison)))
    if command := comparison.settings.get("command"):
        lines += ["### To repeat it", fenced([cut(clean(str(command)), 4 * _LONGEST)])]
    return "\n\n".join(line for line in lines if line) + "\n"


def write_html(comparison: Comparison, path: Path) -> None:
    """One page that needs nothing else: no network, no script.

    Raises:
        UsageError: The file cannot be written.
    """
    from graft.comparing.report_html import page

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(comparison), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"the report cannot be written to {path}: {error.strerror}",
            fix="free some space, or choose another folder",
        ) from error


def _cautions(comparison: Comparison) -> list[str]:
    told = [*failures(comparison), *comparison.warnings]
    more = len(told) - _WARNINGS
    return told[:_WARNINGS] + ([f"{counted(more, 'more warning')}, in the result's JSON"] if more > 0 else [])


def _pair_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    return [
        (p.a, p.b, signed(p), chance(p.p_holm), f"{100 * p.detectable:.1f}", outcome(p))
        for p in score_pairs(comparison)[:_PAIRS]
    ]


def _said(comparison: Comparison) -> tuple[str, list[tuple[str, str, str]]] | None:
    """The best arm's replies to a few questions, beside what was expected."""
    best = leader(comparison)
    rows = []
    for record in examples(comparison, most=_SHOWN) if best is not None else []:
        reply = record.replies[best.name] if best is not None and best.name in record.replies else None
        if reply is None:
            continue
        expected = " · ".join(record.answers[:2]) or "no answer: the documents hold none"
        said = reply.reply or ("(declined)" if reply.declined else "(nothing)")
        told = (reply.error and f"failed: {reply.error}") or said
        rows.append((cut(record.question, _SHORT), cut(expected, _SHORT), cut(told, _SHORT)))
    return None if best is None or not rows else (best.name, rows)


def _kind_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    def of(arm: Arm, kind: str) -> str:
        return points(arm.by_kind.get(kind, {}).get(SCORE))

    return [(arm.name, *(of(arm, kind) for kind in comparison.kinds)) for arm in arms_in_order(comparison)]


def _left_out(comparison: Comparison) -> Iterator[str]:
    """What this short form only counts."""
    if (more := len(score_pairs(comparison)) - _PAIRS) > 0:
        yield f"{counted(more, 'more pair')}: in the page."
    for case in break_evens(comparison)[:_PAIRS]:
        yield f"{case.cheaper} costs less than {case.dearer} from {ceil(case.questions):,} questions on."
    if apart := disagreements(comparison, most=0).total:
        asked = counted(len(comparison.records), "question")
        yield f"The arms disagree on {apart:,} of {asked}; the page shows them side by side."


def _marked(text: str, most: int = _LONGEST) -> str:
    return escaped(cut(clean(text), most))


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(
        [clean(column) for column in columns], [[cut(clean(cell), _LONGEST) for cell in row] for row in rows]
    )


def _text(text: str, style: str = "", most: int = _LONGEST) -> Text:
    from rich.text import Text

    return Text(" ".join(cut(clean(text), most).split()), style=style)


def _grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=_text(title, "bold"), title_justify="left")
    for column in columns:
        grid.add_column(_text(column), overflow="fold", no_wrap=column in _UNBROKEN)
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid
