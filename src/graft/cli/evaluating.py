"""evaluate and regress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from graft.cli.options import open_workspace, shared
from graft.cli.output import console, emit_json, note, say, show_table

if TYPE_CHECKING:
    from graft.evaluation.evaluating import Evaluation
    from graft.evaluation.regression import Regression
    from graft.evaluation.statistics import Estimate


@click.command()
@click.argument("model")
@click.option("--questions", required=True, metavar="FILE", help="Question file or held-out examples (JSONL).")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Instead of those of each question's kind.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N questions.")
@click.option("--train", metavar="FILE", help="Labelled examples, for the vote of the nearest beside label tasks.")
@click.option("--database", metavar="FILE", help="SQLite file that SQL is executed on, read-only.")
@click.option("--judge", metavar="MODEL", help="Model that judges short and free answers.")
@click.option("--system", metavar="TEXT", help="Put before every prompt without a system turn.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Of one answer.")
@click.option("--language", default="en", show_default=True, metavar="CODE", help="Of the answers, for articles.")
@shared
def evaluate(
    model: str,
    questions: str,
    metrics: tuple[str, ...],
    limit: int | None,
    train: str | None,
    database: str | None,
    judge: str | None,
    system: str | None,
    max_tokens: int,
    language: str,
    home: str | None,
    as_json: bool,
) -> None:
    """Ask MODEL every question and score its answers; run again, it goes on where it was ended."""
    with open_workspace(home) as workspace, progress_bar(quiet=as_json) as tell:
        found = workspace.evaluate(
            model,
            questions,
            metrics=metrics,
            limit=limit,
            train=train,
            database=database,
            judge=judge,
            system=system,
            max_tokens=max_tokens,
            language=language,
            progress=lambda p: tell(f"{p.failed} failed" if p.failed else "asking", p.done, p.total),
        )
    if as_json:
        emit_json(_plain(found))
    else:
        _show_evaluation(found)


@click.command()
@click.argument("tuned")
@click.option("--against", required=True, metavar="BASE", help="The model that it was tuned from.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="Questions of each task."
)
@shared
def regress(tuned: str, against: str, limit: int, home: str | None, as_json: bool) -> None:
    """Measure what TUNED lost elsewhere: general questions, general text, the base's own answers."""
    with open_workspace(home) as workspace, progress_bar(quiet=as_json) as tell:
        found = workspace.regress(
            tuned, against=against, limit=limit, progress=lambda p: tell(p.stage, p.done, p.total)
        )
    if as_json:
        emit_json(_plain(found))
    else:
        _show_regression(found)


def _plain(result: Evaluation | Regression) -> Mapping[str, Any]:
    import dataclasses

    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}


def _show_evaluation(found: Evaluation) -> None:
    say(f"{found.model}: {found.questions} questions; {found.kind_reason}", "bold")
    names = list(found.baselines)
    show_table(
        ["metric", "mean", "95% interval", *(f"without a model: {name}" for name in names)],
        [
            (
                metric,
                f"{100 * estimate.mean:.1f}",
                _interval(estimate),
                *(_baseline(found.baselines[name].get(metric)) for name in names),
            )
            for metric, estimate in found.metrics.items()
        ],
    )
    latency = found.latency_ms
    if latency.total_p50 is not None and latency.total_p95 is not None:
        note(f"an answer takes {latency.total_p50 / 1000:.1f} s, of 20 one over {latency.total_p95 / 1000:.1f} s")
    cost = "cost unknown" if found.cost_usd is None else f"${found.cost_usd:.4f}"
    note(f"{found.input_tokens:,} + {found.output_tokens:,} tokens · {cost}")
    if found.failed:
        first = next(record.error for record in found.records if record.error is not None)
        say(f"✗ {found.failed} questions failed and count as wrong; the first: {first}", "red")
    if found.cut_short:
        say(f"~ {found.cut_short} answers were cut short by --max-tokens", "yellow")
    if found.unmeasured:
        say(f"~ {found.unmeasured} questions could not be measured by all metrics; --json tells why", "yellow")


def _show_regression(found: Regression) -> None:
    say(f"{found.tuned} against {found.base}", "bold")
    say(f"general ability: {found.overall.words}")
    show_table(
        ["task", "figure", "questions", "tuned against base"],
        [(line.task, line.metric, line.comparison.questions, line.words) for line in found.lines],
    )
    say(f"on the base's own answers: {found.divergence.words}")
    note(f"measured in {found.seconds:,.0f} s")


def _interval(estimate: Estimate) -> str:
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _baseline(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{100 * estimate.mean:.1f}"


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Any]:
    """A progress bar on stderr, as a callback (what, done, total); in a file a line now and then."""
    if quiet:
        yield lambda what, done, total: None
        return
    if not console(stderr=True).is_terminal:
        yield _now_and_then()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


_SECONDS_BETWEEN_LINES = 30.0


def _now_and_then() -> Callable[[str, int, int | None], None]:
    """Tells how far it is, at most every so many seconds."""
    told = time.monotonic()

    def tell(what: str, done: int, total: int | None) -> None:
        nonlocal told
        if time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            note(f"{what}: {done:,} of {total:,}" if total else what)

    return tell


COMMANDS = (evaluate, regress)
