"""dataset check, dedupe, split, generate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from graft.cli.dataset_output import (
    count_progress,
    note_unread,
    show_check,
    show_dedupe,
    show_estimate,
    show_generated,
    show_split,
)
from graft.cli.options import collection_option, open_workspace, shared
from graft.cli.output import emit_json, note, say
from graft.errors import UsageError

if TYPE_CHECKING:
    from graft.dataset.questions import Price

map_option = click.option(
    "--map", "mapped", metavar="prompt=COLUMN,answer=COLUMN", help="Columns or keys; also system, source, id."
)


@click.group()
def dataset() -> None:
    """Look after examples to learn from: JSONL (chat, prompt/completion, Alpaca, ShareGPT), CSV, TSV."""


@dataset.command()
@click.argument("file")
@map_option
@click.option("--model", metavar="NAME", help="Count tokens as this model does; else they are estimated.")
@click.option("--context", type=click.IntRange(16), metavar="TOKENS", help="The context that examples must fit.")
@click.option("--against", multiple=True, metavar="FILE", help="Another part (dev, test); repeatable.")
@click.option("--benchmark", multiple=True, metavar="FILE", help="Questions that will be reported on; repeatable.")
@click.option("--no-personal", is_flag=True, help="Do not look for personal data.")
@shared
def check(
    file: str,
    mapped: str | None,
    model: str | None,
    context: int | None,
    against: tuple[str, ...],
    benchmark: tuple[str, ...],
    no_personal: bool,
    home: str | None,
    as_json: bool,
) -> int:
    """Find what would spoil a training, line by line, with the fix. Exit 1 where there are errors."""
    with open_workspace(home) as workspace, count_progress("checking", quiet=as_json) as progress:
        report = workspace.check_dataset(
            file,
            mapping=_mapping(mapped),
            model=model,
            context_tokens=context,
            splits=against,
            benchmarks=benchmark,
            personal=not no_personal,
            progress=progress,
        )
    if as_json:
        emit_json({**_fields(report), "ok": report.ok})
    else:
        show_check(report)
    return 0 if report.ok else 1


@dataset.command()
@click.argument("file")
@map_option
@click.option("--output", "-o", metavar="FILE", help="Where to write; FILE.deduped.jsonl by default.")
@click.option("--exact", is_flag=True, help="Only those equal but for case, punctuation and spacing.")
@click.option("--threshold", type=click.FloatRange(0.5, 1.0), metavar="SHARE", help="Of common character 5-grams.")
@shared
def dedupe(
    file: str,
    mapped: str | None,
    output: str | None,
    exact: bool,
    threshold: float | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Write the file without duplicates and near-duplicates; the first of each is kept."""
    target = output or f"{file}.deduped.jsonl"
    with open_workspace(home) as workspace:
        result = workspace.dedupe_dataset(file, target, mapping=_mapping(mapped), near=not exact, threshold=threshold)
    note_unread(result.unread, file)
    if as_json:
        told = {"output": target, "kept": len(result.kept), "dropped": result.dropped, "unread": result.unread}
        emit_json(told)
    else:
        show_dedupe(result, target)


@dataset.command()
@click.argument("file")
@map_option
@click.option("--parts", default="0.8,0.1,0.1", show_default=True, metavar="TRAIN,DEV,TEST", help="Shares.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another split.")
@click.option("--output", "-o", metavar="FOLDER", help="Where to write; beside the file by default.")
@click.option("--renew", is_flag=True, help="Forget the split that was frozen before.")
@shared
def split(
    file: str,
    mapped: str | None,
    parts: str,
    seed: int,
    output: str | None,
    renew: bool,
    home: str | None,
    as_json: bool,
) -> None:
    """Divide into train, dev and test, labels evenly and nothing related on two sides; frozen in FILE.splits.json."""
    with open_workspace(home) as workspace:
        result = workspace.split_dataset(
            file, fractions=_parts(parts), seed=seed, mapping=_mapping(mapped), output=output, renew=renew
        )
    note_unread(result.unread, file)
    if as_json:
        counts = {part: len(ids) for part, ids in result.split.ids.items()}
        emit_json(
            {
                "frozen": result.frozen,
                "files": result.files,
                "examples": counts,
                "reused": result.reused,
                "seed": seed,
                "unread": result.unread,
            }
        )
    else:
        show_split(result)


@dataset.command()
@click.argument("file")
@collection_option
@click.option("-n", "wanted", default=100, show_default=True, metavar="N", help="Questions wanted.")
@click.option("--model", metavar="NAME", help="Who writes and checks them; the workspace's model by default.")
@click.option("--budget", type=click.FloatRange(0, min_open=True), metavar="USD", help="Stop once so much is spent.")
@click.option("--price", metavar="IN,OUT", help="US dollars per million tokens of prompt and of reply.")
@click.option("--seed", default=0, show_default=True, help="Which passages come first.")
@click.option("--estimate", "only_estimate", is_flag=True, help="Say what it would take, and stop.")
@click.option("--queue", is_flag=True, help="Leave it to `graft worker`.")
@shared
def generate(
    file: str,
    collection: str | None,
    wanted: int,
    model: str | None,
    budget: float | None,
    price: str | None,
    seed: int,
    only_estimate: bool,
    queue: bool,
    home: str | None,
    as_json: bool,
) -> None:
    """Make questions with answers and evidence from documents, into FILE; the same command resumes."""
    with open_workspace(home) as workspace, count_progress("questions", quiet=as_json) as progress:
        expected = workspace.estimate_dataset(
            wanted, model=model, collection=collection, seed=seed, price=_price(price)
        )
        if only_estimate and as_json:
            emit_json({"estimate": _fields(expected)})
            return
        show_estimate(expected)
        if only_estimate:
            return
        if queue:
            job = workspace.queue_generate(
                file, wanted, model=model, collection=collection, seed=seed, budget_usd=budget, price=_price(price)
            )
            emit_json({"job": job.id}) if as_json else say(f"queued {job.id}; a worker does it: graft worker")
            return
        made = workspace.generate_dataset(
            file,
            wanted,
            model=model,
            collection=collection,
            seed=seed,
            budget_usd=budget,
            price=_price(price),
            progress=lambda now: progress(now.kept, now.wanted),
        )
    if as_json:
        emit_json({**_fields(made), "questions": len(made.questions), "estimate": _fields(expected), "file": file})
    else:
        show_generated(made, file)
    if not made.questions:
        note("nothing could be kept; another --model writes better questions", "yellow")


def _fields(value: Any) -> dict[str, Any]:
    import dataclasses

    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _mapping(text: str | None) -> dict[str, str] | None:
    from graft.dataset import parse_mapping

    return None if text is None else parse_mapping(text)


def _parts(text: str) -> tuple[float, float, float]:
    try:
        train, dev, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--parts {text!r} is not three shares", fix="--parts 0.8,0.1,0.1") from error
    return train, dev, test


def _price(text: str | None) -> Price | None:
    from graft.dataset.questions import Price

    if text is None:
        return None
    try:
        asked, told = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--price {text!r} is not two prices", fix="--price 0.15,0.60") from error
    return Price(input_usd=asked, output_usd=told)


COMMANDS = (dataset,)
