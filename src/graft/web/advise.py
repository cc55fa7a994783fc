"""/app/advise: the questions that decide between retrieval and tuning; the recommendation moves as one answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from nicegui import ui

from graft.errors import UsageError
from graft.server import own
from graft.server.authorising import Serving
from graft.web.frame import frame, seated, telling
from graft.web.visiting import Visitor

_MEASURED_BY = "no experiment"


async def show(visitor: Visitor, request: Request) -> object:
    """The page."""
    seat = await seated(visitor, request)
    if not isinstance(seat, Serving):
        return seat
    with frame(seat, request, "Advise"):
        await Advise(visitor).build()
    return None


class Advise:
    """One browser tab's view."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._answers: dict[str, Any] = {}

    async def build(self) -> None:
        """Make the elements."""
        from graft.advising.needs import QUESTIONS, Needs

        usual = Needs().to_json()
        experiments = await self._visitor.look(_experiments)
        with ui.element("div").classes("documents"), ui.element("section").classes("shelf"):
            ui.label("Retrieve, tune, both or neither?").classes("big")
            with ui.element("div").classes("advice"):
                with ui.element("div").classes("asked"):
                    choices = {"": _MEASURED_BY, **experiments}
                    self._report = ui.select(choices, value="", label="Measured by").props("dense outlined")
                    self._report.on_value_change(self._advise)
                    for question in QUESTIONS:
                        if question.deciding:
                            self._ask(question, usual[question.key])
                    with ui.expansion("What the costs rest on").classes("figures"):
                        for question in QUESTIONS:
                            if not question.deciding:
                                self._ask(question, usual[question.key])
                self._said = ui.element("div").classes("said").props("aria-live=polite")
        await self._advise()

    def _ask(self, question: Any, usual: Any) -> None:
        ui.label(question.asked).classes("question")
        label = f'aria-label="{question.key.replace("_", " ")}"'
        field: Any
        if question.kind == "choice":
            field = ui.select(list(question.choices), value=usual)
        elif question.kind == "several":
            field = ui.select(list(question.choices), value=list(usual), multiple=True)
        elif question.kind == "number":
            field = ui.number(value=usual, min=question.low)
        else:
            field = ui.input(value=str(usual))
        field.props(f"dense outlined options-dense debounce=400 {label}")
        field.on_value_change(lambda event, key=question.key: self._answered(key, event.value))

    async def _answered(self, key: str, value: Any) -> None:
        whole = isinstance(value, float) and value.is_integer()
        self._answers[key] = int(value) if whole else value
        await self._advise()

    @telling
    async def _advise(self) -> None:
        answers = {key: value for key, value in self._answers.items() if value is not None}
        body = own.NewAdvice(answers=answers, comparison=str(self._report.value) or None)
        try:
            made = await self._visitor.look(lambda seat: own.create_advice(body, seat))
        except UsageError as error:
            self._said.clear()
            with self._said, ui.element("div").classes("finding error"):
                ui.label(error.message)
            return
        self._said.clear()
        with self._said:
            _show(made)


def _show(made: Mapping[str, Any]) -> None:
    ui.label(made["recommendation"]["sentence"]).classes("big")
    for caution in made["cautions"]:
        ui.label(caution).classes("hint")
    scores = made["scores"]
    top = max(scores["retrieval"], scores["tuning"], scores["enough"], 1)
    for what in ("retrieval", "tuning"):
        ui.label(f"{what}: {scores[what]} points; {scores['enough']} are enough").classes("hint")
        ui.linear_progress(max(0, scores[what]) / top, show_value=False).props(f'aria-label="{what}"')
    if made["evidence"]:
        _measured(made["evidence"])
    for one in made["criteria"]:
        if one["retrieval"] or one["tuning"]:
            with ui.element("div").classes("finding"), ui.element("div").classes("what"):
                moved = [f"{name} {one[name]:+d}" for name in ("retrieval", "tuning") if one[name]]
                ui.label(f"{one['key'].replace('_', ' ')}, {one['answer']}: {', '.join(moved)}")
                ui.label(f"{one['reason']} ({one['source']})").classes("hint")
    _costs(made)
    ui.label("What would settle it:").classes("hint")
    ui.label(made["compare"]).classes("words secret")


def _measured(arms: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        {
            "way": one["arm"],
            "score": f"{100 * one['score']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})",
            "seconds": "-" if one["latency_ms"] is None else f"{one['latency_ms'] / 1000:.2f} s",
            "standing": one["standing"],
        }
        for one in arms
    ]
    heads = (("way", "Way"), ("score", "Measured, of 100"), ("seconds", "Half within"), ("standing", "Standing"))
    columns = [{"name": key, "label": label, "field": key, "align": "left"} for key, label in heads]
    ui.table(columns=columns, rows=rows, row_key="way").classes("shelf-table")


def _costs(made: Mapping[str, Any]) -> None:
    rows = [
        {
            "way": f"{one['arm']}, {one['hosting']}",
            "first": f"${one['initial_usd']:,.0f}",
            "monthly": f"${one['monthly_usd']:,.2f}",
        }
        for one in made["costs"]
    ]
    columns = [
        {"name": key, "label": label, "field": key, "align": "left"}
        for key, label in (("way", "Way"), ("first", "To build"), ("monthly", "A month"))
    ]
    with ui.expansion("What it costs, and where one overtakes the other").classes("figures"):
        ui.table(columns=columns, rows=rows, row_key="way").classes("shelf-table")
        for one in made["break_even"]:
            ui.label(one["words"]).classes("hint")
        for one in made["references"]:
            said = f"{one['what']}: usually ${one['low']:,.0f} to ${one['high']:,.0f}, yours ${one['yours']:,.0f}"
            ui.label(said).classes("hint")


def _experiments(seat: Serving) -> dict[str, str]:
    return {
        job.id: f"{job.title}, {job.created[:10]}"
        for job in seat.workspace.jobs.list()
        if job.kind == own.COMPARE and job.status.value == "done"
    }
