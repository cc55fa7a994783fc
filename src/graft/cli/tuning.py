"""tune: look ahead, train, prove."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.cli.jobs import job_progress
from graft.cli.options import open_workspace, shared
from graft.cli.output import console, emit_json, note, safe, say, show_table, waiting
from graft.errors import UsageError

if TYPE_CHECKING:
    from graft.dataset import Example
    from graft.training.preflight import Preflight, ShownExample
    from graft.tuning import Prepared, TunedModel

_SHOWN_TOKENS = 400
_SHOWN_EXAMPLES, _SHOWN_CHARACTERS = 3, 2000


@click.command()
@click.argument("train", metavar="DATA")
@click.option(
    "--model", "-m", metavar="BASE", help="Model to tune: see `graft models list`, or a checkpoint's folder."
)
@click.option("--name", required=True, metavar="NAME", help="What to call the tuned model.")
@click.option("--dev", metavar="FILE", help="Examples that choose the best state.  [default: 10% of TRAIN]")
@click.option("--held-out", metavar="FILE", help="Examples that prove it.  [default: 10% of TRAIN]")
@click.option(
    "--retrieval-aware",
    metavar="COLLECTION",
    help="DATA holds questions: learn to answer them from what retrieval finds in the collection.",
)
@click.option("--map", "mapping", metavar="prompt=COLUMN,answer=COLUMN", help="Where a CSV's parts are.")
@click.option(
    "--set", "values", multiple=True, metavar="KEY=VALUE", help="A value of [tuning]; see `graft settings`."
)
@click.option("--truncate", type=click.Choice(["refuse", "drop", "shorten"]), help="Examples over the context.")
@click.option(
    "--proof",
    type=click.Choice(["full", "quality", "none"]),
    default="full",
    show_default=True,
    help="Measure task, general ability and memorisation; the task alone; nothing.",
)
@click.option(
    "--questions", type=click.IntRange(min=1), default=100, show_default=True, help="Held-out examples asked."
)
@click.option(
    "--ability", type=click.IntRange(min=1), default=20, show_default=True, help="Questions a general task."
)
@click.option("--canaries", type=click.IntRange(min=0), default=0, show_default=True, help="Random codes to plant.")
@click.option(
    "--price",
    type=click.FloatRange(0),
    metavar="USD",
    help="A hosted base: US dollars for a million trained tokens, to tell the cost.",
)
@click.option("--yes", is_flag=True, help="A hosted base: send the examples and pay without being asked.")
@click.option("--dry-run", is_flag=True, help="Only look ahead.")
@click.option("--queue", is_flag=True, help="Leave it to `graft worker`.")
@shared
def tune(
    train: str,
    model: str | None,
    name: str,
    dev: str | None,
    held_out: str | None,
    retrieval_aware: str | None,
    mapping: str | None,
    values: tuple[str, ...],
    truncate: str | None,
    proof: Any,
    questions: int,
    ability: int,
    canaries: int,
    price: float | None,
    yes: bool,
    dry_run: bool,
    queue: bool,
    home: str | None,
    as_json: bool,
) -> None:
    """Tune a model on examples; killed, the same command goes on from the last checkpoint.

    Before a step is taken it shows three examples in their exact tokens, those that are learnt in colour,
    and what the run will take. A hosted BASE (litellm/openai/MODEL, or one that was added) is tuned by its provider.
    """
    from graft.dataset.formats import parse_mapping
    from graft.tuning import TuneRequest

    overrides = _overrides(values) | ({"truncate": truncate} if truncate else {})
    with open_workspace(home) as workspace:
        request = TuneRequest(
            name=name,
            model=model or workspace.settings.model.default,
            train=_absolute(train),
            dev=_absolute(dev),
            held_out=_absolute(held_out),
            retrieval_aware=retrieval_aware,
            mapping=None if mapping is None else parse_mapping(mapping),
            proof=proof,
            questions=questions,
            ability=ability,
            canaries=canaries,
        )
        with waiting("looking ahead", quiet=as_json) as tell:
            prepared = workspace.prepare_tuning(request, overrides=overrides, price_usd=price, tell=tell)
        if not as_json:
            _show_preflight(prepared)
        prepared.preflight.require()
        if dry_run:
            if as_json:
                emit_json({"preflight": prepared.preflight, **_told(prepared)})
            return
        _require_consent(prepared, given=yes, asking=not as_json and sys.stdin.isatty())
        with job_progress(quiet=as_json) as progress:
            job = workspace.tune_job(request, prepared=prepared, overrides=overrides, queue=queue, progress=progress)
        if queue:
            emit_json({"job": job.id}) if as_json else say(f"queued {job.id}; a worker does it: graft worker")
            return
        if not job.is_over:
            emit_json({"job": job.id, "status": job.status}) if as_json else say(
                f"{job.id} is {job.status}; it goes on with: graft jobs resume {job.id}"
            )
            return
        job.outcome()
        tuned = workspace.tuned_model(name)
    if as_json:
        emit_json({"tuned": tuned.to_json(), "card": str(tuned.card), **_told(prepared), "job": job.id})
    else:
        _show_tuned(tuned, retrieval_aware)


def _told(prepared: Prepared) -> dict[str, Any]:
    made = None if prepared.grounded is None else prepared.grounded.to_json()
    return {"notes": prepared.notes, "retrieval_aware": made}


def _require_consent(prepared: Prepared, *, given: bool, asking: bool) -> None:
    """Nothing is sent to a provider, and nothing is spent, that was not agreed to.

    Raises:
        UsageError: Nobody can be asked.
        click.Abort: The answer is no.
    """
    from graft.tuning import HostedBase, is_begun

    if given or not isinstance(prepared.base, HostedBase) or is_begun(prepared):
        return
    what = f"{prepared.preflight.train:,} examples go to {prepared.base.base_url or 'OpenAI'}, for {_price(prepared)}"
    if not asking:
        raise UsageError(f"{what}; nobody is here to agree", fix="--yes agrees")
    click.confirm(f"{what}. Go on?", abort=True, err=True)


def _price(prepared: Prepared) -> str:
    cost = prepared.preflight.cost_usd
    return "a cost that is not known (--price USD tells it)" if cost is None else f"about ${cost:.2f}"


def _absolute(path: Any) -> Any:
    """A path that a job finds again from any folder."""
    return None if path is None else str(Path(path).expanduser().resolve())


def _overrides(values: tuple[str, ...]) -> dict[str, object]:
    import tomllib

    found: dict[str, object] = {}
    for given in values:
        key, equals, value = given.partition("=")
        if not equals:
            raise UsageError(f"--set {given!r} has no value", fix="--set epochs=2")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value
    return found


def _show_preflight(prepared: Prepared) -> None:
    ahead = prepared.preflight
    for shown in ahead.examples:
        _show_example(shown)
    if not ahead.examples:
        for example in prepared.train[:_SHOWN_EXAMPLES]:
            _show_turns(example)
    template = f", chat template of {len(ahead.template)} characters" if ahead.template else ""
    say(f"base {prepared.base.name}, trainer {ahead.trainer}{template}")
    say(
        f"{ahead.train:,} examples to learn from, {ahead.dev:,} to choose by, {len(prepared.held_out):,} to prove "
        f"it; {ahead.tokens:,} tokens a pass, {ahead.answer_tokens:,} of them learnt; longest {ahead.longest:,}"
    )
    say(f"{ahead.steps:,} steps; {_price(prepared) if ahead.trainer == 'hosted' else _needs(ahead)}")
    for text in prepared.notes:
        note(text)
    for text in ahead.warnings:
        say(f"! {text}", "yellow")
    for refused in ahead.refused[:5]:
        say(f"! {refused.origin or refused.id} is left out: {refused.reason}", "yellow")


def _needs(ahead: Preflight) -> str:
    time = "time not known beforehand" if ahead.seconds is None else f"about {_duration(ahead.seconds)}"
    memory = (
        "" if ahead.memory_mb is None else f", {ahead.memory_mb:,.0f} MB of {ahead.free_memory_mb:,.0f} MB memory"
    )
    return f"{time}{memory}, {ahead.disk_mb:,.0f} MB of disk"


def _duration(seconds: float) -> str:
    """
    >>> _duration(40), _duration(200), _duration(8000)
    ('40 s', '3 min', '2.2 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _show_example(shown: ShownExample) -> None:
    """Every token; what is learnt in green, line ends and tabs made visible."""
    from rich.text import Text

    text = Text()
    left_out = len(shown.tokens) - _SHOWN_TOKENS
    for place, token in enumerate(shown.tokens):
        if left_out > 0 and place == _SHOWN_TOKENS // 2:
            text.append(f" ... {left_out} tokens ... ", style="dim")
        if left_out <= 0 or place < _SHOWN_TOKENS // 2 or place >= len(shown.tokens) - _SHOWN_TOKENS // 2:
            piece = safe(token.text.replace("\t", "→"))
            text.append(piece, style="bold green reverse" if token.learnt else "dim")
    learnt = sum(token.learnt for token in shown.tokens)
    say(f"example {shown.id} ({shown.origin}): {len(shown.tokens)} tokens, {learnt} learnt (green)", "bold")
    console().print(text)
    say("")


def _show_turns(example: Example) -> None:
    """An example whose tokens only a provider knows; what is learnt in green."""
    say(f"example {example.id} ({example.origin})", "bold")
    for turn in example.messages:
        learnt = turn is example.messages[-1]
        say(f"{turn.role}: {turn.content[:_SHOWN_CHARACTERS]}", "bold green reverse" if learnt else "dim")
    say("")


def _show_tuned(tuned: TunedModel, collection: str | None) -> None:
    say(
        f"{tuned.name} version {tuned.version}: {tuned.steps} steps in {_duration(tuned.seconds)}"
        + ("" if tuned.dev_loss is None else f", dev loss {tuned.dev_loss:.3f}"),
        "bold",
    )
    if tuned.figures:
        metrics = list(tuned.figures["tuned"])
        rows = [[who, *(_share(figures, metric) for metric in metrics)] for who, figures in tuned.figures.items()]
        show_table(["held-out examples", *metrics], rows)
    say(f"card: {tuned.card}")
    where = "--no-retrieval" if collection is None else f"--collection {collection}"
    note(f'try it: graft ask {where} --model {tuned.name} "..."')
    if tuned.hosted is None:
        note(f"take it away: graft export {tuned.name} --to gguf")


def _share(figures: Mapping[str, float], metric: str) -> str:
    return f"{100 * figures[metric]:.1f}" if metric in figures else ""


COMMANDS = (tune,)
"""The verbs of this file."""
