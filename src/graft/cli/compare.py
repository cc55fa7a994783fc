"""compare: the arms of an experiment on the same questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.cli.evaluating import progress_bar
from graft.cli.options import collection_option, open_workspace, shared
from graft.cli.output import console, emit_json, note, say

if TYPE_CHECKING:
    from graft.comparing.running import CompareProgress
    from graft.comparing.values import Comparison
    from graft.workspace.comparing import Ahead


@click.command()
@click.argument("documents", nargs=-1, metavar="[FOLDER]...")
@click.option("--questions", metavar="FILE", help="Question file (JSONL).  [default: made from the documents]")
@click.option("--train", metavar="FILE", help="Examples that tuned arms learn and few-shot prompts show.")
@click.option("--model", "-m", metavar="BASE", help="The base of every arm.  [default: of the settings]")
@click.option("--arms", metavar="A,B,...", default="", help="Only these arms.  [default: all that can be had]")
@click.option("--tuned", metavar="NAME", help="A model tuned before, instead of training one here.")
@click.option("--retrieval-aware", metavar="NAME", help="The same for a model that was tuned on retrieved passages.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N questions.")
@click.option("--judge", metavar="MODEL", help="Model that judges short and free answers, and pairs of them.")
@click.option("--budget", type=float, metavar="USD", help="Stop before the question that would exceed it.")
@click.option("--seeds", type=click.IntRange(1, 10), default=1, show_default=True, help="Trainings of a tuned arm.")
@click.option("--database", metavar="FILE", help="SQLite file that SQL is executed on, read-only.")
@click.option("--fresh", metavar="FILE", help="Facts to change in a copy of the documents and to ask about again.")
@click.option("--into", metavar="FOLDER", help="Where replies and report go.  [default: in the workspace]")
@click.option("--dry-run", is_flag=True, help="Only tell what it would ask and cost.")
@click.option("--queue", is_flag=True, help="Leave it to `graft worker`.")
@collection_option
@shared
def compare(
    documents: tuple[str, ...],
    questions: str | None,
    train: str | None,
    model: str | None,
    arms: str,
    tuned: str | None,
    retrieval_aware: str | None,
    limit: int | None,
    judge: str | None,
    budget: float | None,
    seeds: int,
    database: str | None,
    fresh: str | None,
    into: str | None,
    dry_run: bool,
    queue: bool,
    collection: str | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Measure which way of answering is best: base, rag, tuned, both, on the same questions.

    A FOLDER is added to the documents first. Killed, the same command goes on where it was. "No significant
    difference" is a possible result.
    """
    from graft.comparing.request import CompareRequest
    from graft.workspace.documents import DEFAULT_COLLECTION

    with open_workspace(home) as workspace, progress_bar(quiet=as_json) as tell:
        if documents:
            added = workspace.add(documents, collection=collection or DEFAULT_COLLECTION)
            for failure in added.failed:
                note(f"! {failure.path}: {failure.error} / fix: {failure.fix}", "yellow")
        request = CompareRequest(
            questions=questions,
            model=model or workspace.settings.model.default,
            train=train,
            tuned=tuned,
            retrieval_aware=retrieval_aware,
            arms=tuple(name.strip() for name in arms.split(",") if name.strip()),
            collection=collection,
            limit=limit,
            judge=judge,
            budget_usd=budget,
            seeds=seeds,
            database=database,
            fresh=fresh,
            into=into,
            documents=documents,
        )

        def told(seen: CompareProgress) -> None:
            tell(f"{seen.stage}, {seen.failed} failed" if seen.failed else seen.stage, seen.done, seen.total or None)

        def announce(ahead: Ahead) -> None:
            if not as_json:
                _show_ahead(ahead)

        if dry_run:
            ahead = workspace.estimate_comparison(request, progress=told)
            emit_json(_plain(ahead)) if as_json else _show_ahead(ahead)
            return
        if queue:
            job = workspace.queue_compare(request)
            emit_json({"job": job.id}) if as_json else say(f"queued {job.id}; a worker does it: graft worker")
            return
        made = workspace.compare(request, progress=told, announce=announce)
        folder = workspace.comparison_folder(request)
    if as_json:
        emit_json({**made.to_json(), "recommendation": made.verdict, "report": str(folder / "report.html")})
    else:
        _show(made, folder)


def _plain(ahead: Ahead) -> dict[str, Any]:
    import dataclasses

    return {field.name: getattr(ahead, field.name) for field in dataclasses.fields(ahead)}


def _show_ahead(ahead: Ahead) -> None:
    from graft.comparing.report_figures import duration

    for words in ahead.warnings:
        note(f"! {words}", "yellow")
    for words in ahead.training:
        note(f"to be trained first: {words}")
    asked = sum(one.questions - one.kept for one in ahead.arms)
    kept = sum(one.kept for one in ahead.arms)
    tokens = sum(one.prompt_tokens for one in ahead.arms)
    written = sum(one.reply_tokens for one in ahead.arms)
    cost = "at a price that is not known" if ahead.cost_usd is None else f"for at most ${ahead.cost_usd:.4f}"
    cost = cost if ahead.cost_usd != 0 else "and nobody is to be paid"
    took = "" if not ahead.seconds else f"; at most about {duration(1000 * ahead.seconds)} on this machine"
    arms = ", ".join(one.arm for one in ahead.arms)
    note(
        f"{ahead.questions:,} questions to {arms}: {asked:,} to be asked ({kept:,} are kept), about {tokens:,} "
        f"tokens read and at most {written:,} written, {cost}{took}"
    )


def _show(made: Comparison, folder: Path) -> None:
    from graft.comparing.report import terminal

    console().print(terminal(made))
    say(f"the page: {folder / 'report.html'}")
    note(f"for a pull request: {folder / 'report.md'}; all replies: {folder / 'compare.json'}")


COMMANDS = (compare,)
