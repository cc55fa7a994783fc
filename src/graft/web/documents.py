"""/app/documents: drop files in, add a URL, see what is there, and why something is not.

Files go through the one route for uploads, /v1/files, with its limits; reading them is the workspace's `add`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from nicegui import events, ui

from graft.errors import AccessDenied, GraftError
from graft.identity import Caller
from graft.server.authorising import Serving
from graft.store.records import DocumentRecord
from graft.sync import AddResult, is_url
from graft.web.frame import frame, seated, telling
from graft.web.sources import SourcePanel
from graft.web.uploads import Sent, drop_zone, stop
from graft.web.visiting import Visitor

_UNDO_SECONDS = 6.0
_ROWS = 25


@dataclass(slots=True)
class _Line:
    """A file or a URL on its way in."""

    name: str
    told: ui.label
    place: ui.element
    again: Callable[[], Any] | None = None
    stop: ui.button | None = None


async def show(visitor: Visitor, request: Request) -> object:
    """The page."""
    seat = await seated(visitor, request)
    if not isinstance(seat, Serving):
        return seat
    with frame(seat, request, "Documents"):
        page = Documents(visitor, seat.caller)
        page.build()
        await page.refresh()
    return None


class Documents:
    """One browser tab's view."""

    def __init__(self, visitor: Visitor, caller: Caller) -> None:
        self._visitor, self._may_change, self._own = visitor, caller.may("editor"), caller.collection
        self._client = ui.context.client
        self._coming: dict[str, _Line] = {}
        self._leaving: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def build(self) -> None:
        """Make the elements."""
        with ui.element("div").classes("documents"):
            with ui.element("section").classes("shelf"):
                if self._may_change:
                    self._ways_in()
                self._lines = ui.element("ul").classes("lines").props('aria-live=polite aria-label="On their way in"')
                with ui.element("div").classes("choices"):
                    self._filter = ui.input(placeholder="Filter by name", on_change=self._filtered).props(
                        'dense outlined clearable debounce=250 aria-label="Filter by name"'
                    )
                    self._collection = ui.select([], value=None, label="Collection", clearable=True).props(
                        "dense outlined options-dense"
                    )
                    self._collection.on_value_change(self.refresh)
                self._table = ui.table(
                    columns=[
                        {"name": "uri", "label": "Document", "field": "uri", "align": "left", "sortable": True},
                        {"name": "collection", "label": "Collection", "field": "collection", "align": "left"},
                        {"name": "passages", "label": "Passages", "field": "passages", "sortable": True},
                        {"name": "version", "label": "Version", "field": "version"},
                        {"name": "readers", "label": "Who may read", "field": "readers", "align": "left"},
                        {"name": "added", "label": "Read", "field": "added", "align": "left", "sortable": True},
                    ],
                    rows=[],
                    row_key="id",
                    pagination=_ROWS,
                ).classes("shelf-table")
                self._table.add_slot("body-cell-uri", _NAME_CELL)
                self._table.on("open", self._open)
                self._empty = ui.label().classes("hint")
            self._source = SourcePanel(self._visitor)

    def _ways_in(self) -> None:
        with ui.element("div").classes("ways"):
            drop_zone("Drop files here, or choose them", self._upload, purpose="assistants", multiple=True)
            with ui.element("form").classes("url").on("submit.prevent", self._add_url):
                self._url = ui.input(placeholder="https://…").props('dense outlined aria-label="A page on the web"')
                ui.button("Add", on_click=self._add_url).props("no-caps unelevated")
            self._into = ui.input("Into the collection", value=self._own).props("dense outlined maxlength=100")

    async def _upload(self, sent: Sent) -> None:
        line = self._coming.get(sent.key)
        if line is None:
            line = self._coming[sent.key] = self._line(sent.name)
            with line.place:
                line.stop = ui.button("Stop", on_click=lambda: stop(sent.key)).props("flat dense no-caps")
        if sent.state in ("begun", "sending"):
            self._tell(line, f"{sent.share:.0%} here")
            return
        del self._coming[sent.key]
        if line.stop is not None:
            line.stop.delete()
        if sent.state == "sent":
            await self._take(line, lambda seat: _add_file(seat, sent.file, self._wanted()))
        else:
            self._tell(line, f"not taken: {sent.refusal}" if sent.refusal else sent.state, bad=True)

    def _wanted(self) -> str:
        return str(self._into.value or self._own)

    @telling
    async def _add_url(self) -> None:
        url = (self._url.value or "").strip()
        if not url:
            return
        line = self._line(url)
        if not is_url(url):
            self._tell(line, "this is no address of a page: https://example.org/handbook", bad=True)
            return
        self._url.value = ""
        await self._take(line, lambda seat: seat.workspace.add([url], collection=self._wanted()))

    @telling
    async def _take(self, line: _Line, add: Callable[[Serving], AddResult]) -> None:
        """Read something in its turn, and say what came of it."""
        line.again = lambda: self._take(line, add)
        self._tell(line, "waiting to be read …")
        try:
            done = await self._visitor.work("add", add, slow=True, document=line.name)
        except GraftError as error:
            self._tell(line, f"{error.message} · {error.fix}", bad=True)
            return
        if done.failed:
            failure = done.failed[0]
            self._tell(line, f"{failure.error} · {failure.fix}", bad=True)
        else:
            self._tell(
                line, "was here already" if done.unchanged and not done.chunks else f"{done.chunks:,} passages"
            )
        await self.refresh()

    def _line(self, name: str) -> _Line:
        with self._lines, ui.element("li") as place:
            ui.label(name).classes("name")
            told = ui.label().classes("told")
        return _Line(name, told, place)

    def _tell(self, line: _Line, told: str, *, bad: bool = False) -> None:
        line.told.text = told
        line.place.classes(add="bad" if bad else "", remove="" if bad else "bad")
        if bad and line.again is not None:
            retry = line.again
            with line.place:
                button = ui.button("Try again").props("flat dense no-caps")

            async def again() -> None:
                button.delete()
                await retry()

            button.on_click(again)

    @telling
    async def refresh(self) -> None:
        """Look again at what is there."""
        wanted = self._collection.value
        found, names = await self._visitor.look(
            lambda seat: (
                seat.workspace.documents(wanted),
                [one.name for one in seat.workspace.collections()],
            )
        )
        self._collection.set_options(names, value=wanted)
        self._all = [_row(one) for one in found if one.id not in self._leaving]
        self._filtered()

    def _filtered(self) -> None:
        wanted = (self._filter.value or "").casefold()
        rows = [row for row in self._all if wanted in row["uri"].casefold()]
        self._table.rows = rows
        self._table.set_visibility(bool(rows))
        self._empty.text = (
            ""
            if rows
            else "None has such a name."
            if self._all
            else "Nothing here yet. What you add is read, cut into passages, and can be asked at once."
        )

    @telling
    async def _open(self, event: events.GenericEventArguments) -> None:
        found = await self._visitor.look(lambda seat: _record(seat, str(event.args)))
        range = {
            "document": found.uri,
            "document_id": found.id,
            "version": found.version,
            "start": 0,
            "end": min(1, found.characters),
            "page": 1 if found.format == "pdf" else None,
        }
        await self._source.open(range, whole=True)
        if self._may_change and self._source.foot is not None:
            with self._source.foot:
                ui.button("Remove", icon="delete", on_click=lambda: self._remove(found)).props("flat no-caps")

    @telling
    async def _remove(self, document: DocumentRecord) -> None:
        """Take a document off the page now, and out of everywhere once it can no longer be undone."""
        self._leaving.add(document.id)
        self._source.shut()
        await self.refresh()
        line, kept = self._line(document.uri), asyncio.Event()
        self._tell(line, "is being removed")
        with line.place:
            undo = ui.button("Undo", on_click=kept.set).props("flat dense no-caps")
        task = asyncio.create_task(self._gone(document, line, undo, kept))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _gone(self, document: DocumentRecord, line: _Line, undo: ui.button, kept: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(_UNDO_SECONDS):
                await kept.wait()
            told, bad = "stays", False
        except TimeoutError:
            told, bad = await self._removed(document)
        self._leaving.discard(document.id)
        with self._client:
            undo.delete()
            self._tell(line, told, bad=bad)
            await self.refresh()

    async def _removed(self, document: DocumentRecord) -> tuple[str, bool]:
        try:
            await self._visitor.work("remove", lambda seat: _remove(seat, document), document=document.id)
            return "removed; answers that cite it say so", False
        except GraftError as error:
            return f"{error.message} · {error.fix}", True


def _record(seat: Serving, id: str) -> DocumentRecord:
    return next(one for one in seat.workspace.documents() if one.id == id)


def _remove(seat: Serving, document: DocumentRecord) -> None:
    if not document.principals & seat.workspace.owns:
        raise AccessDenied(f"{document.uri} is somebody else's, who lets you read it", fix="ask them to remove it")
    seat.workspace.remove(document.id)


def _add_file(seat: Serving, id: str, collection: str) -> AddResult:
    """Read an uploaded file, which is kept as the document's source."""
    workspace = seat.workspace
    done = workspace.add([str(workspace.file_path(id))], collection=collection)
    if done.failed:
        workspace.forget_file(id)
    return done


def _row(document: DocumentRecord) -> dict[str, Any]:
    return {
        "id": document.id,
        "uri": document.uri,
        "collection": document.collection,
        "passages": document.chunks,
        "version": document.version,
        "readers": ", ".join(sorted(document.principals)),
        "added": document.added_at[:16].replace("T", " "),
    }


_NAME_CELL = """
<q-td :props="props">
  <button type="button" class="name" @click="$parent.$emit('open', props.row.id)">{{ props.row.uri }}</button>
</q-td>
"""
