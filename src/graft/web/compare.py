"""/app/compare: from questions to a report of which way of answering is best, and by how much more than chance.

An experiment is a job of the server's worker; what is shown of it is its compare.json, and its own page opens beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request
from nicegui import ui

from graft.errors import GraftError
from graft.jobs import Job, JobStatus
from graft.server import own
from graft.server.authorising import Serving
from graft.web.frame import frame, minutes, seated, telling
from graft.web.uploads import Sent, drop_zone
from graft.web.visiting import Visitor

if TYPE_CHECKING:
    from graft.workspace.comparing import Ahead

_EVERY_S = 1.0
_LISTED = 20
_APART = 0.5
_MOST_APART = 20
_LONGEST_REPLY = 600


async def show(visitor: Visitor, request: Request) -> object:
    """The page."""
    seat = await seated(visitor, request)
    if not isinstance(seat, Serving):
        return seat
    with frame(seat, request, "Compare"):
        page = Compare(visitor, may_change=seat.caller.may("editor"))
        await page.build()
    return None


class Compare:
    """One browser tab's view."""

    def __init__(self, visitor: Visitor, *, may_change: bool) -> None:
        self._visitor, self._may_change = visitor, may_change
        self._files: dict[str, str] = {}
        self._job: str | None = None
        self._status = ""

    async def build(self) -> None:
        """Make the elements."""
        jobs, names, usual = await self._visitor.look(
            lambda seat: (
                _jobs(seat),
                [one.name for one in seat.workspace.models() if one.kind == "chat" and one.ready],
                seat.workspace.settings.model.default,
            )
        )
        with ui.element("div").classes("documents"), ui.element("section").classes("shelf"):
            ui.label("Which way of answering is best on your questions?").classes("big")
            about = "The model alone, with your documents, tuned, or both; beside what needs no model."
            ui.label(about).classes("hint")
            if self._may_change:
                self._questions(names, usual)
            ui.label("Experiments").classes("title").props("role=heading aria-level=2")
            self._list = ui.element("ul").classes("lines")
            self._result = ui.element("div").classes("result")
        self._list_jobs(jobs)
        if jobs:
            await self._watch(jobs[0].id)
        ui.timer(_EVERY_S, self._look)

    def _questions(self, names: list[str], usual: str) -> None:
        with ui.element("div").classes("ways"):
            text = "Questions with their answers, one JSON object a line"
            drop_zone(text, lambda sent: self._sent("questions", sent), purpose="evals", accept=".jsonl")
            text = "Examples to learn from, if you have some"
            drop_zone(text, lambda sent: self._sent("train", sent), purpose="fine-tune", accept=".jsonl,.csv")
        line = '{"question": "How long is the notice period?", "answers": ["three months"]}'
        self._told = ui.label(line).classes("hint")
        with ui.element("div").classes("choices"):
            self._model = ui.select(names, value=usual, label="Model").props("dense outlined options-dense")
            self._limit = ui.input("At most so many questions").props("dense outlined inputmode=numeric")
            ui.button("What would it take?", on_click=self._estimate).props("no-caps unelevated")
        self._ahead = ui.element("div").classes("preview").props("aria-live=polite")

    @telling
    async def _sent(self, what: str, sent: Sent) -> None:
        if sent.state == "sent":
            self._files[what] = sent.file
        self._told.text = f"{sent.name}: {sent.refusal or sent.state}"
        self._ahead.clear()

    def _body(self) -> own.NewComparison:
        limit = (self._limit.value or "").strip()
        return own.NewComparison(
            questions=self._files.get("questions"),
            train=self._files.get("train"),
            model=str(self._model.value),
            limit=int(limit) if limit.isdecimal() and int(limit) else None,
        )

    @telling
    async def _estimate(self) -> None:
        body = self._body()
        self._ahead.clear()
        with self._ahead:
            ui.spinner(size="lg")

        def estimate(seat: Serving) -> Ahead:
            return seat.workspace.estimate_comparison(own.comparison_request(body, seat))

        try:
            ahead = await self._visitor.work("estimate", estimate, slow=True)
        except GraftError as error:
            self._ahead.clear()
            with self._ahead, ui.element("div").classes("finding error"):
                ui.label(f"{error.message} · {error.fix}")
            return
        self._ahead.clear()
        with self._ahead:
            facts = {
                "Questions": f"{ahead.questions:,}",
                "Ways of answering": ", ".join(arm.arm for arm in ahead.arms),
                "Time": "unknown" if ahead.seconds is None else f"at most {minutes(ahead.seconds)}",
                "Training first": "; ".join(ahead.training) or "nothing",
                "Cost": "nothing" if not ahead.cost_usd else f"at most ${ahead.cost_usd:.2f}",
            }
            for name, value in facts.items():
                with ui.element("div").classes("figure"):
                    ui.label(name).classes("name")
                    ui.label(value)
            for warning in ahead.warnings:
                with ui.element("div").classes("finding warning"):
                    ui.label(warning)
            ui.button("Begin", icon="play_arrow", on_click=lambda: self._begin(body)).props("no-caps unelevated")

    @telling
    async def _begin(self, body: own.NewComparison) -> None:
        id = await self._visitor.work("compare", lambda seat: own.create_comparison(body, seat).id)
        self._ahead.clear()
        await self._watch(id)

    def _list_jobs(self, jobs: Sequence[Job]) -> None:
        self._list.clear()
        with self._list:
            for job in jobs[:_LISTED]:
                with ui.element("li"):
                    ui.button(job.title, on_click=lambda _, id=job.id: self._watch(id)).props("flat dense no-caps")
                    ui.label(f"{job.created[:16].replace('T', ' ')}, {job.status.value}").classes("told")
            if not jobs:
                with ui.element("li"):
                    ui.label("None yet.").classes("hint")

    @telling
    async def _watch(self, id: str) -> None:
        self._job, self._status = id, ""
        self._result.clear()
        with self._result:
            self._state = ui.label().props("aria-live=polite")
        await self._look()

    async def _look(self) -> None:
        id = self._job
        if id is None:
            return
        try:
            job = await self._visitor.look(lambda seat: seat.workspace.jobs.get(id))
            if job.status.value != self._status:
                self._status = job.status.value
                self._list_jobs(await self._visitor.look(_jobs))
            left = "" if job.seconds_left is None else f", {minutes(job.seconds_left)} left"
            done = f"{job.done:,.0f} of {job.total:,.0f} {job.unit}" if job.total else ""
            self._state.text = " · ".join(one for one in (f"{job.status.value}{left}", job.note, done) if one)
            if not job.is_over:
                return
            self._job = None
            if job.status is not JobStatus.DONE:
                self._state.text = f"{job.status.value}: {job.error or ''} {job.fix or ''}"
                return
            made = await self._visitor.look(lambda seat: own.retrieve_comparison(id, seat))
        except GraftError as error:
            self._state.text = error.message
            return
        self._result.clear()
        with self._result:
            show_comparison(made, id)


def show_comparison(made: Mapping[str, Any], id: str) -> None:
    """A finished experiment: what to do, why, the arms, where they part."""
    first, _, rest = str(made["verdict"]).partition(". ")
    ui.label(f"{first}." if rest else first).classes("big verdict-first")
    if rest:
        ui.label(rest)
    ui.label(str(made["sample"])).classes("hint")
    for finding in (*made.get("warnings", ()), *made.get("findings", ())):
        with ui.element("div").classes("finding warning"):
            ui.label(finding)
    arms = [arm for arm in made["arms"] if not arm.get("error")]
    _plot(arms)
    columns = [
        {"name": key, "label": label, "field": key, "align": "left"}
        for key, label in (
            ("name", "Way"),
            ("score", "Score of 100 (95% interval)"),
            ("seconds", "Half are there within"),
            ("cost", "1,000 questions cost"),
            ("declined", "Declined"),
            ("about", "What it is"),
        )
    ]
    ui.table(columns=columns, rows=[_row(arm) for arm in arms], row_key="name").classes("shelf-table")
    _apart(made)
    with ui.element("a").classes("button").props("target=_blank rel=noopener") as link:  # not below /app
        ui.label("The whole report")
    link.props["href"] = f"/v1/comparisons/{id}/report"


def _plot(arms: Sequence[Mapping[str, Any]]) -> None:
    points = []
    for arm in arms:
        seconds = _median_s(arm)
        if seconds is not None:
            value = [round(max(seconds, 0.001), 3), round(100 * arm["metrics"]["score"]["mean"], 1)]
            colour = "#8a9aa5" if arm["control"] else "#0f8a7b"
            points.append({"name": arm["name"], "value": value, "itemStyle": {"color": colour}})
    label = {"show": True, "formatter": "{b}", "position": "top", "color": "#808890"}
    ui.echart(
        {
            "animation": False,
            "grid": {"left": 56, "right": 40, "top": 32, "bottom": 48},
            "xAxis": {"type": "log", "name": "seconds", "nameLocation": "middle", "nameGap": 28},
            "yAxis": {"type": "value", "name": "score of 100"},
            "series": [{"type": "scatter", "symbolSize": 14, "label": label, "data": points}],
        }
    ).classes("curve").props('role=img aria-label="Score against time; the table has the same figures"')


def _row(arm: Mapping[str, Any]) -> dict[str, Any]:
    score, cost, seconds = arm["metrics"]["score"], arm["cost_usd_per_1000"], _median_s(arm)
    return {
        "name": arm["name"] if arm["seed"] is None else f"{arm['name']} (seed {arm['seed']})",
        "score": f"{100 * score['mean']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})",
        "seconds": "-" if seconds is None else f"{seconds:.2f} s",
        "cost": "unknown" if cost is None else f"${cost:.2f}",
        "declined": arm["declined"],
        "about": arm["about"],
    }


def _median_s(arm: Mapping[str, Any]) -> float | None:
    total = arm["latency_ms"].get("total") or arm["latency_ms"]
    median = total.get("p50") if isinstance(total, Mapping) else None
    return None if median is None else float(median) / 1000


def _apart(made: Mapping[str, Any]) -> None:
    """The questions on which ways part, their replies side by side with their sources."""
    found = []
    for record in made["records"]:
        found_scores = (one["scores"].get("score") for one in record["replies"].values())
        scores = [score for score in found_scores if score is not None]
        if scores and max(scores) - min(scores) >= _APART:
            found.append(record)
    if not found:
        return
    ui.label(f"Where they part: {len(found):,} questions").classes("title").props("role=heading aria-level=2")
    for record in found[:_MOST_APART]:
        with ui.expansion(record["question"]).classes("figures"):
            ui.label(f"Expected: {' / '.join(record['answers'])}").classes("hint")
            with ui.element("div").classes("sides"):
                for arm, reply in record["replies"].items():
                    _side(arm, reply)


def _side(arm: str, reply: Mapping[str, Any]) -> None:
    with ui.element("div").classes("side"):
        score = reply["scores"].get("score")
        ui.label(arm if score is None else f"{arm}: {100 * score:.0f} of 100").classes("title")
        ui.label((reply["reply"] or reply["error"] or "")[:_LONGEST_REPLY]).classes("words")
        for document in dict.fromkeys(one["document"] for one in reply["citations"] if one.get("document")):
            ui.label(document).classes("hint")


def _jobs(seat: Serving) -> list[Job]:
    return [job for job in seat.workspace.jobs.list() if job.kind == own.COMPARE]
