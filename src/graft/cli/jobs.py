"""jobs: list, show, follow, cancel, pause, resume."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from graft.cli.options import as_option, open_workspace, shared
from graft.cli.output import console, emit_json, note, safe, say, show_table
from graft.interrupts import heeded

if TYPE_CHECKING:
    from graft.jobs import ItemTrouble, Job

_STYLE = {"done": "green", "failed": "red", "cancelled": "dim", "running": "bold", "interrupted": "yellow"}


@click.group()
def jobs() -> None:
    """Long work: followed, paused, and resumed after a crash."""


@jobs.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="The newest N.")
@as_option
@shared
def list_jobs(limit: int, who: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """List the jobs, the newest first."""
    with open_workspace(home, who) as workspace:
        found = workspace.jobs.list(limit=limit)
    if as_json:
        emit_json({"jobs": found})
    elif not found:
        say("no jobs yet; `graft tune` starts one")
    else:
        show_table(
            ["job", "status", "progress", "time left", "created", "title"],
            [(job.id, _standing(job), _progress(job), _left(job), _moment(job.created), job.title) for job in found],
        )


@jobs.command()
@click.argument("job_id", metavar="JOB")
@as_option
@shared
def show(job_id: str, who: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Show one job, with every item that failed or had to be tried again."""
    with open_workspace(home, who) as workspace:
        job = workspace.jobs.get(job_id)
        troubles = workspace.jobs.troubles(job_id)
    if as_json:
        emit_json({**_plain(job), "troubles": troubles})
    else:
        _show(job, troubles)


@jobs.command()
@click.argument("job_id", metavar="JOB")
@as_option
@shared
def follow(job_id: str, who: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Watch a job until it is over; Ctrl-C ends the watching, not the job."""
    with open_workspace(home, who) as workspace, job_progress(quiet=as_json) as tell:
        for job in workspace.jobs.follow(job_id):
            tell(job)
    _ended(job, as_json)


@jobs.command()
@click.argument("job_id", metavar="JOB")
@as_option
@shared
def cancel(job_id: str, who: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """End a job for good."""
    with open_workspace(home, who) as workspace:
        _told(workspace.jobs.cancel(job_id), as_json)


@jobs.command()
@click.argument("job_id", metavar="JOB")
@as_option
@shared
def pause(job_id: str, who: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Stop a job so that it can go on later."""
    with open_workspace(home, who) as workspace:
        _told(workspace.jobs.pause(job_id), as_json)


@jobs.command()
@click.argument("job_id", metavar="JOB")
@click.option("--queue", is_flag=True, help="Leave it to a worker instead of running it here.")
@as_option
@shared
def resume(job_id: str, queue: bool, who: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Go on with a job that was paused, interrupted or failed, after its last completed step."""
    with open_workspace(home, who) as workspace, job_progress(quiet=as_json) as tell:
        job = workspace.jobs.resume(job_id)
        if not queue and job.status == "queued":
            job = workspace.jobs.run(job_id, progress=tell)
    if queue or not job.is_over:
        _told(job, as_json)
    else:
        _ended(job, as_json)


@contextmanager
def job_progress(*, quiet: bool) -> Iterator[Callable[[Job], object]]:
    """A job's progress on stderr, as a callback: a bar on a terminal, a line at each new status elsewhere."""
    if quiet:
        yield lambda job: None
        return
    if not console(stderr=True).is_terminal:
        said = set[str]()

        def say_once(job: Job) -> None:
            if (standing := _standing(job)) not in said:
                said.add(standing)
                note(f"{job.id} {standing}")

        yield say_once
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[made]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, made="", left="", note="")
        yield lambda job: bar.update(
            task,
            description=safe(f"{job.title} ({_standing(job)})"),
            completed=job.done,
            total=job.total or None,
            made=safe(_progress(job)),
            left=_left(job),
            note=safe(job.note),
        )


def _ended(job: Job, as_json: bool) -> None:
    """The job as it ended; one without a result is a failure of the command."""
    job.outcome()
    _told(job, as_json)


def _told(job: Job, as_json: bool) -> None:
    if as_json:
        emit_json(_plain(job))
    else:
        say(f"{job.id} {_standing(job)}", _STYLE.get(job.status, ""))


def _plain(job: Job) -> dict[str, Any]:
    return {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}


def _show(job: Job, troubles: Sequence[ItemTrouble]) -> None:
    say(f"{job.id} {_standing(job)}", _STYLE.get(job.status, ""))
    say(f"{job.title} · of {job.owner}")
    for name, moment in (("created", job.created), ("started", job.started), ("ended", job.ended)):
        if moment is not None:
            say(f"{name} {_moment(moment)}", "dim")
    if job.unit:
        say(" · ".join(part for part in (_progress(job), _left(job), job.note) if part))
    if job.error is not None:
        say(f"✗ {job.error}", "red")
        say(f"  fix: {job.fix}", "green")
    for trouble in troubles:
        times = f"{trouble.attempts} attempt" + "s" * (trouble.attempts != 1)
        if trouble.recovered:
            say(f"~ {trouble.item}: succeeded after {times}; before: {trouble.error}", "yellow")
        else:
            say(f"✗ {trouble.item}: {trouble.error} ({times})", "red")
            say(f"  fix: {trouble.fix}", "green")


def _standing(job: Job) -> str:
    stopping = {"pause": ", pausing", "cancel": ", cancelling"}
    return job.status + stopping.get(job.wanted, "")


def _progress(job: Job) -> str:
    if not job.unit:
        return ""
    return f"{job.done:,.0f} of {job.total:,.0f} {job.unit}" if job.total else f"{job.done:,.0f} {job.unit}"


def _left(job: Job) -> str:
    if job.seconds_left is None:
        return ""
    minutes, seconds = divmod(round(job.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min left" if hours else f"{minutes} min {seconds} s left"


def _moment(iso: str) -> str:
    """UTC as it is kept -> this machine's time, to the second."""
    from datetime import datetime

    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@click.command()
@click.option("--once", is_flag=True, help="End when no job waits.")
@shared
def worker(once: bool, home: str | None, as_json: bool) -> None:
    """Run queued jobs, and those whose process died, one after another, until Ctrl-C or SIGTERM."""
    by_either = heeded(signal.SIGINT, signal.SIGTERM)  # the job at hand is queued again
    with by_either, open_workspace(home) as workspace, job_progress(quiet=as_json) as tell:
        ended = workspace.jobs.work(progress=tell, wait_seconds=None if once else 1.0)
    if as_json:
        emit_json({"ended": ended})
    else:
        say(f"{ended} ended")


COMMANDS = (jobs, worker)
