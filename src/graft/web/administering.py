"""/app/server: people, keys, what they used, jobs, models, health; for administrators, by the routes' functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fastapi import Request
from nicegui import events, ui
from pydantic import BaseModel

from graft.errors import UsageError
from graft.server import people
from graft.server.authorising import Serving, require
from graft.web.frame import frame, seated, telling
from graft.web.visiting import Visitor

B = TypeVar("B", bound=BaseModel)

_ROLES = ["reader", "editor", "admin"]
_MOST_JOBS = 50


async def show(visitor: Visitor, request: Request) -> object:
    """The page."""
    seat = await seated(visitor, request)
    if not isinstance(seat, Serving):
        return seat
    with frame(seat, request, "Server"):
        if not seat.caller.may("admin"):
            with ui.element("div").classes("empty"):
                ui.label("This is for administrators").classes("big")
                ui.label(f"You are signed in as {seat.caller.name}, {seat.caller.role}.").classes("hint")
            return None
        page = Administration(visitor)
        page.build()
        await page.refresh()
    return None


class Administration:
    """One browser tab's view."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._added = 0

    def build(self) -> None:
        """Make the elements."""
        with ui.element("div").classes("documents"), ui.element("section").classes("shelf"):
            _heading("Health")
            with ui.element("div").classes("choices"):
                ui.button("Check everything", on_click=self._check).props("no-caps unelevated")
            self._health = ui.element("div").props("aria-live=polite")
            _heading("People")
            self._people = _table("name", ("name", "role", "groups", "used", "budget"), "Remove", self._remove)
            self._adding(
                "Let somebody in",
                {"Name": ui.input, "Groups": ui.input, "Dollars a month": ui.input},
                self._add_user,
            )
            _heading("Keys")
            self._keys = _table("name", ("name", "of", "role", "expires", "limits"), "Revoke", self._revoke)
            self._adding("Make a key", {"Name": ui.input, "For whom": ui.input, "Days": ui.input}, self._make_key)
            self._secret = ui.element("div").props("aria-live=polite")
            _heading("Jobs")
            self._jobs = _table("id", ("id", "title", "status", "owner", "created"), "Stop", self._stop)
            _heading("Models")
            self._models = _table("name", ("name", "kind", "here", "context", "licence"), None, None)

    def _adding(
        self, what: str, fields: Mapping[str, Callable[[str], ui.input]], add: Callable[..., Awaitable[None]]
    ) -> None:
        with ui.element("form").classes("choices") as form:
            made = [kind(label).props("dense outlined maxlength=200") for label, kind in fields.items()]
            role = ui.select(_ROLES, value="reader", label="Role").props("dense outlined options-dense")

            async def given() -> None:
                values = [(one.value or "").strip() for one in made]
                before = self._added
                if values[0]:
                    await add(*values, str(role.value))
                for one in made if self._added > before else ():  # what was refused stays to be mended
                    one.value = ""

            ui.button(what, on_click=given).props("no-caps unelevated")
        form.on("submit.prevent", given)

    @telling
    async def refresh(self) -> None:
        """Look again."""
        seen = await self._visitor.look(_seen)
        for table, rows in zip((self._people, self._keys, self._jobs, self._models), seen, strict=True):
            table.rows = rows

    @telling
    async def _check(self) -> None:
        self._health.clear()
        with self._health:
            ui.label("Looking at the database, the indexes and the models' weights …").classes("hint")
        problems = await self._visitor.look(_problems)
        self._health.clear()
        with self._health:
            for problem in problems:
                with ui.element("div").classes("finding error"):
                    ui.label(problem)
            if not problems:
                ui.label("The database, the indexes and the models' weights are whole.")

    @telling
    async def _add_user(self, name: str, groups: str, budget: str, role: str) -> None:
        given = {"name": name, "role": role, "groups": [one.strip() for one in groups.split(",") if one.strip()]}
        body = _body(people.NewUser, given, budget_usd=budget)
        await self._visitor.look(lambda seat: _audited(seat, "users add", name, people.create_user, body))
        self._added += 1
        await self.refresh()

    @telling
    async def _remove(self, event: events.GenericEventArguments) -> None:
        name = str(event.args)
        if await _agreed(f"Put {name} out? Their keys and sessions end at once; their documents stay."):
            await self._visitor.look(lambda seat: _audited(seat, "users remove", name, people.delete_user, name))
            await self.refresh()

    @telling
    async def _make_key(self, name: str, user: str, days: str, role: str) -> None:
        given: dict[str, Any] = {"name": name, "role": role, "user": user or None}
        body = _body(people.NewKey, given, days=days)
        made = await self._visitor.look(lambda seat: _audited(seat, "keys create", name, people.create_key, body))
        self._added += 1
        self._secret.clear()
        with self._secret, ui.element("div").classes("finding warning"), ui.element("div").classes("what"):
            ui.label(made.key).classes("secret")
            ui.label(f"The key {name}, shown this once: nobody can read it again.").classes("hint")
        await self.refresh()

    @telling
    async def _revoke(self, event: events.GenericEventArguments) -> None:
        name = str(event.args)
        if await _agreed(f"Revoke the key {name}? Whoever uses it is refused from their next call on."):
            await self._visitor.look(lambda seat: _audited(seat, "keys revoke", name, people.revoke_key, name))
            await self.refresh()

    @telling
    async def _stop(self, event: events.GenericEventArguments) -> None:
        id = str(event.args)
        await self._visitor.look(lambda seat: _stopped(seat, id))
        await self.refresh()


def _heading(text: str) -> None:
    ui.label(text).classes("title").props("role=heading aria-level=2")


def _table(key: str, fields: tuple[str, ...], verb: str | None, act: Callable[..., Any] | None) -> ui.table:
    columns = [{"name": one, "label": one.capitalize(), "field": one, "align": "left"} for one in fields]
    if verb is not None:
        columns.append({"name": "act", "label": "", "field": "act", "align": "right"})
    table = ui.table(columns=columns, rows=[], row_key=key, pagination=10).classes("shelf-table")
    table.props('no-data-label="None yet."')
    if verb is not None:
        table.add_slot("body-cell-act", _ACT)
        table.on("act", act)
    return table


async def _agreed(question: str) -> bool:
    with ui.dialog() as dialog, ui.card():
        ui.label(question)
        with ui.row():
            ui.button("Yes", on_click=lambda: dialog.submit(True)).props("no-caps unelevated color=negative")
            ui.button("No", on_click=lambda: dialog.submit(False)).props("no-caps flat")
    return bool(await dialog)


def _body(kind: type[B], given: Mapping[str, Any], **numbers: str) -> B:
    """What a route is sent, of what was typed.

    Raises:
        UsageError: Something of it cannot be.
    """
    try:
        return kind.model_validate({**given, **{name: _number(text) for name, text in numbers.items() if text}})
    except ValueError as error:  # pydantic's is one
        typed = ", ".join(text for text in (*map(str, given.values()), *numbers.values()) if text)
        raise UsageError(
            f"this cannot be: {typed}"[:300], fix="a name of letters and digits; numbers as 30"
        ) from error


def _number(text: str) -> float | int:
    return int(text) if text.isdecimal() else float(text)


def _audited(seat: Serving, what: str, subject: str, route: Callable[..., Any], given: Any) -> Any:
    """A route's own function, as an administrator, written down as its route would be."""
    require(seat, "admin")
    made = route(given, seat)
    seat.workspace.audit.record(what, caller=seat.caller.name, subject=subject)
    return made


def _stopped(seat: Serving, id: str) -> None:
    require(seat, "admin")
    seat.workspace.jobs.cancel(id)
    seat.workspace.audit.record("jobs cancel", caller=seat.caller.name, job=id)


def _problems(seat: Serving) -> list[str]:
    require(seat, "admin")
    return seat.workspace.check()


def _seen(seat: Serving) -> tuple[list[dict[str, Any]], ...]:
    """People, keys, jobs, models, as rows."""
    require(seat, "admin")
    workspace = seat.workspace
    users = [
        {
            "name": one.name,
            "role": one.role,
            "groups": ", ".join(one.groups),
            "used": f"${workspace.spending.spent(f'user:{one.name}').cost_usd:.2f} this month",
            "budget": "-" if one.budget_usd is None else f"${one.budget_usd:.2f}",
            "act": "Remove",
        }
        for one in workspace.identities.users()
    ]
    keys = [
        {
            "name": one.name,
            "of": one.user or ", ".join(sorted(one.principals or ())),
            "role": one.role,
            "expires": "never" if one.expires_at is None else one.expires_at[:10],
            "limits": _limits(one.requests_per_minute, one.tokens_per_day),
            "act": "Revoke",
        }
        for one in workspace.identities.keys()  # noqa: SIM118
    ]
    jobs = [
        {
            "id": one.id,
            "title": one.title,
            "status": one.status.value,
            "owner": one.owner,
            "created": one.created[:16].replace("T", " "),
            "act": "" if one.is_over else "Stop",
        }
        for one in workspace.jobs.list(limit=_MOST_JOBS)
    ]
    models = [
        {
            "name": one.name,
            "kind": one.kind,
            "here": "yes" if one.ready else f"graft models pull {one.name}",
            "context": "-" if one.context_tokens is None else f"{one.context_tokens:,} tokens",
            "licence": one.licence or "-",
        }
        for one in workspace.models()
    ]
    return users, keys, jobs, models


def _limits(requests: int | None, tokens: int | None) -> str:
    """
    >>> _limits(60, None), _limits(None, None)
    ('60 requests a minute', '-')
    """
    said = [f"{requests:,} requests a minute"] if requests else []
    said += [f"{tokens:,} tokens a day"] if tokens else []
    return ", ".join(said) or "-"


_ACT = """
<q-td :props="props">
  <q-btn v-if="props.row.act" flat dense no-caps :label="props.row.act" color="primary"
         :aria-label="props.row.act + ' ' + props.key" @click="$parent.$emit('act', props.key)" />
</q-td>
"""
