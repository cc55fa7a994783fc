"""/app/tune: from a file of examples to a tuned model beside its base, with what is learnt shown before it is.

Trainings are jobs of the server's worker, so that they go on when the page is shut. The file is looked through, and
the run looked ahead, by the same verbs as on the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import Request
from nicegui import ui

from graft.errors import GraftError, NotFound
from graft.jobs import Job, JobStatus
from graft.server.authorising import Serving
from graft.web.examples import Examples, report_row
from graft.web.frame import frame, minutes, seated, telling
from graft.web.visiting import Visitor

if TYPE_CHECKING:
    from graft.training.preflight import Preflight, ShownExample
    from graft.tuning import TuneRequest

_EVERY_S = 1.0
_MOST_TOKENS = 400
_LISTED = 20


async def show(visitor: Visitor, request: Request) -> object:
    """The page."""
    seat = await seated(visitor, request)
    if not isinstance(seat, Serving):
        return seat
    with frame(seat, request, "Tune"):
        page = Tune(visitor, may_change=seat.caller.may("editor"))
        await page.build()
    return None


class Tune:
    """One browser tab's view."""

    def __init__(self, visitor: Visitor, *, may_change: bool) -> None:
        self._visitor, self._may_change = visitor, may_change
        self._file: str | None = None
        self._mapping: Mapping[str, str] | None = None
        self._request: TuneRequest | None = None
        self._job: str | None = None
        self._steps, self._status = 0, ""

    async def build(self) -> None:
        """Make the elements."""
        bases, jobs = await self._visitor.look(lambda seat: (seat.workspace.bases(), _jobs(seat)))
        with ui.element("div").classes("documents"), ui.element("section").classes("shelf steps"):
            ui.label("Teach a model by examples").classes("big")
            ui.label(
                "Tuning teaches how to answer: a form, a tone, labels. For what is true, add documents and ask them."
            ).classes("hint")
            if self._may_change:
                self._step("1. Examples", "At least a few dozen of what is asked and what is to be answered.")
                Examples(self._visitor, self._take).build()
                self._step("2. Look ahead", "What exactly is learnt, how long it takes, and what would fail.")
                with ui.element("div").classes("choices"):
                    usual = bases[0] if bases else None
                    self._base = ui.select(bases, value=usual, label="Model").props("dense outlined options-dense")
                    self._name = ui.input("Call it", value="mine").props("dense outlined maxlength=24")
                    self._ahead = ui.button("Look ahead", on_click=self._look_ahead).props("no-caps unelevated")
                    self._ahead.disable()
                self._preview = ui.element("div").classes("preview").props("aria-live=polite")
            self._step("3. Training", "It goes on when this page is shut.")
            self._list = ui.element("ul").classes("lines")
            self._training = ui.element("div").classes("training")
        self._list_jobs(jobs)
        if jobs and not jobs[0].is_over:
            await self._watch(jobs[0].id)
        ui.timer(_EVERY_S, self._look)

    def _step(self, title: str, about: str) -> None:
        with ui.element("div").classes("step"):
            ui.label(title).classes("title").props("role=heading aria-level=2")
            ui.label(about).classes("hint")

    async def _take(self, file: str | None, mapping: Mapping[str, str] | None) -> None:
        self._file, self._mapping, self._request = file, mapping, None
        self._preview.clear()
        self._ahead.set_enabled(file is not None)

    @telling
    async def _look_ahead(self) -> None:
        file, mapping = self._file, self._mapping
        if file is None:
            return
        self._preview.clear()
        self._ahead.disable()
        with self._preview:
            ui.spinner(size="lg")
        base, suffix = str(self._base.value), str(self._name.value or "")

        def ahead(seat: Serving) -> tuple[TuneRequest, Preflight]:
            request = seat.workspace.plan_fine_tuning(file, base, suffix=suffix, mapping=mapping, proof="quality")
            return request, seat.workspace.prepare_tuning(request).preflight

        try:
            request, seen = await self._visitor.work("look ahead", ahead, slow=True, file=file)
        except GraftError as error:
            self._preview.clear()
            with self._preview, ui.element("div").classes("finding error"):
                ui.label(f"{error.message} · {error.fix}")
            return
        finally:
            self._ahead.enable()
        self._request = request
        self._preview.clear()
        with self._preview:
            self._show_ahead(seen)

    def _show_ahead(self, seen: Preflight) -> None:
        time = "unknown" if seen.seconds is None else f"about {minutes(seen.seconds)}"
        facts = {
            "Learnt from": f"{seen.train:,} examples; {seen.dev:,} more choose the best state",
            "Left out": f"{len(seen.refused):,}",
            "Time": time,
            "Memory": "unknown"
            if seen.memory_mb is None
            else f"{seen.memory_mb:,.0f} MB of {seen.free_memory_mb:,.0f}",
            "Cost": "nothing: this machine trains" if not seen.cost_usd else f"${seen.cost_usd:.2f}",
        }
        for name, value in facts.items():
            with ui.element("div").classes("figure"):
                ui.label(name).classes("name")
                ui.label(value)
        for refusal in seen.refusals:
            with ui.element("div").classes("finding error"):
                ui.label(refusal)
        for warning in seen.warnings:
            with ui.element("div").classes("finding warning"):
                ui.label(warning)
        ui.label("The exact tokens of three examples; what is learnt is marked:").classes("hint")
        for example in seen.examples:
            _show_tokens(example)
        begin = ui.button("Begin training", icon="play_arrow", on_click=self._begin).props("no-caps unelevated")
        begin.set_enabled(not seen.refusals)

    @telling
    async def _begin(self) -> None:
        request = self._request
        if request is None:
            return

        def queue(seat: Serving) -> Job:
            job = seat.workspace.tune_job(request, queue=True)
            seat.worker.wanted()
            return job

        job = await self._visitor.work("tune", queue, model=request.name)
        self._request = None
        self._preview.clear()
        self._list_jobs(await self._visitor.look(_jobs))
        await self._watch(job.id)

    def _list_jobs(self, jobs: list[Job]) -> None:
        self._list.clear()
        with self._list:
            for job in jobs[:_LISTED]:
                with ui.element("li"):
                    name = str(job.payload["request"]["name"])
                    ui.button(name, on_click=lambda _, id=job.id: self._watch(id)).props("flat dense no-caps")
                    ui.label(job.status.value).classes("told")
            if not jobs:
                with ui.element("li"):
                    ui.label("Nothing was tuned yet.").classes("hint")

    @telling
    async def _watch(self, id: str) -> None:
        self._job, self._steps, self._status = id, 0, ""
        self._training.clear()
        with self._training:
            self._told = ui.label().props("aria-live=polite")
            self._bar = ui.linear_progress(0, show_value=False).props('aria-label="How far it is"')
            self._chart = ui.echart(_CHART).classes("curve")
            with ui.row():
                self._stop = ui.button("Stop", on_click=self._cancel).props("no-caps flat")
            self._end = ui.element("div").classes("result")
        await self._look()

    async def _look(self) -> None:
        """Draw what has come since the last look."""
        id = self._job
        if id is None:
            return
        try:
            job, points = await self._visitor.look(lambda seat: _state(seat, id))
        except GraftError:  # signed out, or the line is full: the next look may do better
            return
        if id != self._job:
            return
        if job.status.value != self._status:
            self._status = job.status.value
            self._list_jobs(await self._visitor.look(_jobs))
        left = "" if job.seconds_left is None else f", {minutes(job.seconds_left)} left"
        self._told.text = f"{job.status.value}: {job.note}{left}" if job.note else job.status.value
        self._bar.value = job.done / job.total if job.total else 0
        if len(points) != self._steps:
            self._steps = len(points)
            series = self._chart.options["series"]
            series[0]["data"] = [[one.step, round(one.loss, 4)] for one in points]
            series[1]["data"] = [[one.step, round(one.dev_loss, 4)] for one in points if one.dev_loss is not None]
            self._chart.update()
        if job.is_over:
            self._job = None
            self._stop.set_visibility(False)
            self._bar.set_visibility(False)
            with self._end:
                self._show_end(job)

    def _show_end(self, job: Job) -> None:
        if job.status is not JobStatus.DONE or job.result is None:
            if job.error:
                with ui.element("div").classes("finding error"):
                    ui.label(f"{job.error} · {job.fix}")
            return
        name = str(job.result["name"])
        figures: Mapping[str, Mapping[str, float]] = job.result["figures"]
        if figures:
            ui.label("On examples that it did not learn from:").classes("hint")
            rows = [{"who": who, **report_row(values)} for who, values in figures.items()]
            names = dict.fromkeys(key for row in rows for key in row)
            columns = [{"name": key, "label": _LABELS.get(key, key), "field": key, "align": "left"} for key in names]
            ui.table(columns=columns, rows=rows, row_key="who").classes("shelf-table")
            ui.label(_verdict(figures)).classes("title")
        with ui.row():
            ui.link("Ask it in the chat", "/").classes("button")
            ui.button("Take it away as GGUF", icon="download", on_click=lambda: self._export(name)).props(
                "no-caps flat"
            )

    @telling
    async def _export(self, name: str) -> None:
        ui.notify("It is being written, and held against the tuned model; this takes a minute or more.")

        def export(seat: Serving) -> Any:
            _theirs(seat, name)
            return seat.workspace.export(name, to="gguf").path

        ui.download.file(await self._visitor.work("export", export, slow=True, model=name))

    @telling
    async def _cancel(self) -> None:
        id = self._job
        if id is not None:
            await self._visitor.work("cancel", lambda seat: seat.workspace.jobs.cancel(id), job=id)


def _show_tokens(example: ShownExample) -> None:
    with ui.element("div").classes("tokens"):
        for token in example.tokens[:_MOST_TOKENS]:
            ui.label(token.text).classes("token learnt" if token.learnt else "token")
        if len(example.tokens) > _MOST_TOKENS:
            ui.label(f"… {len(example.tokens) - _MOST_TOKENS:,} more").classes("hint")


def _jobs(seat: Serving) -> list[Job]:
    return seat.workspace.fine_tuning_jobs()


def _state(seat: Serving, id: str) -> tuple[Job, list[Any]]:
    job = seat.workspace.fine_tuning_job(id)
    return job, seat.workspace.fine_tuning_curve(job)


def _theirs(seat: Serving, name: str) -> None:
    """Raises:
    NotFound: The model is of no training that they may see.
    """
    if name not in {str(job.payload["request"]["name"]) for job in seat.workspace.fine_tuning_jobs()}:
        raise NotFound(f"no tuned model {name!r}", fix="look at the trainings on this page")


def _verdict(figures: Mapping[str, Mapping[str, float]]) -> str:
    """What the first figure says, in a sentence.

    >>> _verdict({"tuned": {"accuracy": 0.8}, "base": {"accuracy": 0.1}, "nearest_vote": {"accuracy": 0.9}})
    'Better than its base (80.0% against 10.0%), but nearest vote, which needs no model, has 90.0%.'
    """
    metric = next(iter(figures.get("tuned", {})), None)
    if metric is None or metric not in figures.get("base", {}):
        return ""
    values = {who: some[metric] for who, some in figures.items() if metric in some}
    tuned, base = values.pop("tuned"), values.pop("base")
    if tuned <= base:
        return f"No better than its base ({tuned:.1%} against {base:.1%}): more or other examples may help."
    said = f"Better than its base ({tuned:.1%} against {base:.1%})"
    best = max(values, key=lambda who: values[who], default=None)
    if best is None or values[best] < tuned:
        return f"{said}."
    return f"{said}, but {best.replace('_', ' ')}, which needs no model, has {values[best]:.1%}."


_LABELS = {"who": ""}
_CHART: dict[str, Any] = {
    "animation": False,
    "grid": {"left": 48, "right": 16, "top": 32, "bottom": 32},
    "legend": {"top": 0, "textStyle": {"color": "#808890"}},
    "xAxis": {"type": "value", "name": "step", "minInterval": 1},
    "yAxis": {"type": "value", "name": "loss", "scale": True},
    "series": [
        {"type": "line", "name": "training", "showSymbol": False, "color": "#8a9aa5", "data": []},
        {"type": "line", "name": "held out", "color": "#0f8a7b", "data": []},
    ],
}
