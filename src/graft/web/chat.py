"""/app: a conversation with the documents; answers as they were checked, sources beside them.

Conversations are those of /v1/conversations: what is said here can be gone on with by a program, and the other way.
An assistant's item has the proof of its answer beside its text, as `graft`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from nicegui import ui

from graft.errors import GraftError
from graft.models import Message
from graft.objects import Stored, new_id
from graft.server import conversations
from graft.server.answers import Turn, turn_of
from graft.server.authorising import Serving
from graft.server.items import InputMessage, as_kept, turns_of
from graft.server.lanes import ClientLeft, Running
from graft.server.metering import metered
from graft.server.parameters import ClosedBook, Grounded
from graft.web.answers import show_answer
from graft.web.frame import frame, seated, telling
from graft.web.sources import SourcePanel
from graft.web.visiting import Visitor

MOST_SHOWN = 30
"""Messages at once; earlier ones at a click."""
_MOST_LISTED = 50
_LONGEST_TITLE = 80
_ALL, _NONE = "all documents", "no documents"


async def show(visitor: Visitor, request: Request) -> object:
    """The page."""
    seat = await seated(visitor, request)
    if not isinstance(seat, Serving):
        return seat
    models, collections = await visitor.look(lambda seat: (seat.workspace.models(), seat.workspace.collections()))
    usual = seat.workspace.settings.model.default
    names = {one.name: _about(one) for one in models if one.kind == "chat" and one.ready}
    names.setdefault(usual, usual)
    with frame(seat, request, "Chat"):
        chat = Chat(visitor, has_documents=any(one.documents for one in collections))
        chat.build(names, usual, [one.name for one in collections])
        await chat.list_conversations()
    return None


class Chat:
    """One browser tab's conversation."""

    def __init__(self, visitor: Visitor, *, has_documents: bool) -> None:
        self._visitor, self._has_documents = visitor, has_documents
        self._conversation: str | None = None
        self._items: list[dict[str, Any]] = []
        self._running: Running[Turn] | None = None
        self._shown = MOST_SHOWN
        ui.context.client.on_disconnect(self._leave)

    def build(self, models: Mapping[str, str], usual: str, collections: list[str]) -> None:
        """Make the elements."""
        with ui.element("div").classes("chat"):
            with ui.element("aside").classes("history").props('aria-label="Conversations"') as self._history:
                ui.button("New conversation", icon="add", on_click=self._begin_anew).props("no-caps unelevated")
                self._filter = ui.input(placeholder="Search", on_change=self.list_conversations)
                self._filter.props('dense outlined clearable debounce=250 aria-label="Search conversations"')
                self._list = ui.element("ul")
            with ui.element("section").classes("talk").props('aria-label="Conversation"'):
                with ui.element("div").classes("choices"):
                    menu = ui.button(icon="menu", on_click=lambda: self._history.classes(toggle="open"))
                    menu.props('flat round dense aria-label="Conversations"').classes("narrow")
                    self._model = ui.select(dict(models), value=usual, label="Model").props(
                        "dense outlined options-dense"
                    )
                    choices = [_ALL, *collections, _NONE]
                    self._scope = ui.select(choices, value=_ALL, label="Answer from").props(
                        "dense outlined options-dense"
                    )
                self._messages = ui.element("div").classes("messages").props("role=log aria-live=polite tabindex=0")
                with ui.element("form").classes("ask").on("submit.prevent", self._send):
                    self._input = ui.textarea(placeholder="Ask your documents").props(
                        'autogrow outlined dense autofocus aria-label="Your question" input-style="max-height: 10em"'
                    )
                    self._input.on("keydown.enter.exact.prevent", self._send)
                    self._button = ui.button(icon="arrow_upward", on_click=self._press).props(
                        'round unelevated aria-label="Ask"'
                    )
            self._source = SourcePanel(self._visitor)
        ui.keyboard(on_key=self._key, ignore=["input", "textarea", "select"])
        self._redraw()

    @telling
    async def list_conversations(self) -> None:
        """Those whose title fits what is searched for, newest first."""
        wanted = (self._filter.value or "").casefold()

        def find(seat: Serving) -> tuple[Stored, ...]:
            workspace = seat.workspace
            keep = (lambda body: wanted in _title(body).casefold()) if wanted else None
            return workspace.objects.page(
                conversations.CONVERSATION, principals=workspace.owns, limit=_MOST_LISTED, keep=keep
            ).data

        found = await self._visitor.look(find)
        self._list.clear()
        with self._list:
            for one in found:
                self._listed(one)
            if not found:
                with ui.element("li"):
                    ui.label("Nothing yet." if not wanted else "None fits.").classes("hint")

    def _listed(self, one: Stored) -> None:
        title = _title(one.body)
        with ui.element("li").classes("here" if one.id == self._conversation else ""):
            ui.button(title, on_click=lambda: self._open(one.id)).props("flat no-caps align=left").classes("title")
            with ui.button(icon="more_horiz").props('flat round dense aria-label="More"'), ui.menu():
                ui.menu_item("Rename", on_click=lambda: self._rename(one.id, title))
                ui.menu_item("Export", on_click=lambda: self._export(one.id, title))
                ui.menu_item("Delete", on_click=lambda: self._delete(one.id))

    @telling
    async def _open(self, id: str) -> None:
        self._leave()
        self._items = await self._visitor.look(lambda seat: _items(seat, id))
        self._conversation, self._shown = id, MOST_SHOWN
        self._history.classes(remove="open")
        self._source.shut()
        self._redraw()
        await self.list_conversations()

    @telling
    async def _begin_anew(self) -> None:
        self._leave()
        self._conversation, self._items = None, []
        self._history.classes(remove="open")
        self._source.shut()
        self._redraw()
        await self.list_conversations()
        self._input.run_method("focus")

    @telling
    async def _rename(self, id: str, title: str) -> None:
        with ui.dialog() as dialog, ui.card():
            field = ui.input("Name", value=title).props(f"outlined autofocus maxlength={_LONGEST_TITLE}")
            with ui.row():
                ui.button("Rename", on_click=lambda: dialog.submit(field.value)).props("no-caps unelevated")
                ui.button("Leave it", on_click=lambda: dialog.submit(None)).props("no-caps flat")
        named = ((await dialog) or "").strip()
        if named:
            await self._visitor.look(lambda seat: _retitle(seat, id, named[:_LONGEST_TITLE]))
            await self.list_conversations()

    @telling
    async def _delete(self, id: str) -> None:
        with ui.dialog() as dialog, ui.card():
            ui.label("Delete this conversation? It cannot be had again.")
            with ui.row():
                ui.button("Delete", on_click=lambda: dialog.submit(True)).props("no-caps unelevated color=negative")
                ui.button("Keep it", on_click=lambda: dialog.submit(False)).props("no-caps flat")
        if await dialog:
            await self._visitor.look(lambda seat: conversations.delete_conversation(id, seat))
            if id == self._conversation:
                await self._begin_anew()
            await self.list_conversations()

    @telling
    async def _export(self, id: str, title: str) -> None:
        items = await self._visitor.look(lambda seat: _items(seat, id))
        parts = [f"{'You' if one['role'] == 'user' else 'Graft'}: {_text(one)}\n{_sources(one)}" for one in items]
        ui.download.content("\n".join([title, "", *parts]), "conversation.txt", "text/plain; charset=utf-8")

    async def _press(self) -> None:
        if self._running is not None:
            self._leave()
        else:
            await self._send()

    @telling
    async def _send(self) -> None:
        question = (self._input.value or "").strip()
        if not question or self._running is not None:
            return
        self._input.value = ""
        try:
            await self._say(question)
        except GraftError:
            self._input.value = question  # nothing that was typed is lost
            raise

    async def _say(self, question: str) -> None:
        item = as_kept(InputMessage(role="user", content=question))
        if self._conversation is None:
            self._conversation = await self._visitor.look(lambda seat: _begun(seat, question))
            await self.list_conversations()
        id = self._conversation
        await self._visitor.look(lambda seat: conversations.append(seat.workspace, id, [item]))
        self._items.append(item)
        self._redraw()
        await self._answer()

    async def _answer(self) -> None:
        """Answer the last message, and keep the answer."""
        seat, conversation = await self._visitor.seat(), self._conversation
        seat.rates.take(seat.caller)
        turns = turns_of(self._items)
        running = seat.answers.start(metered(seat, turn_of(self._asked(turns), seat.workspace)), pieces=True)
        self._running = running
        self._button.props("icon=stop").props["aria-label"] = "Stop"
        with self._messages, ui.element("article").classes("message graft") as place:
            draft = ui.label("Looking it up …").classes("draft")
        self._to_the_end()
        try:
            turn = await _drafted(running, draft)
        except (ClientLeft, asyncio.CancelledError):
            draft.text = "Stopped."
            return
        finally:
            self._running = None
            self._button.props("icon=arrow_upward").props["aria-label"] = "Ask"
        item = _kept_answer(turn)
        assert conversation is not None
        await self._visitor.look(lambda seat: conversations.append(seat.workspace, conversation, [item]))
        if conversation == self._conversation:
            self._items.append(item)
            place.delete()
            with self._messages:
                self._message(item, last=True)
            self._to_the_end()

    def _asked(self, turns: list[Message]) -> Grounded | ClosedBook:
        model = str(self._model.value)
        if self._scope.value == _NONE:
            return ClosedBook(
                model=model,
                messages=tuple(turns),
                most_tokens=None,
                temperature=None,
                stop=(),
                seed=None,
                json_schema=None,
            )
        return Grounded(
            model=model,
            question=turns[-1].content,
            history=tuple(turns[:-1]),
            collection=None if self._scope.value == _ALL else str(self._scope.value),
            strict=False,
            most_tokens=None,
            temperature=None,
            notes=(),
        )

    @telling
    async def _again(self) -> None:
        """Ask the last question anew."""
        if self._running is not None or not self._items:
            return
        while self._items and self._items[-1]["role"] == "assistant":
            await self._cut(len(self._items) - 1)
        self._redraw()
        await self._answer()

    @telling
    async def _edit(self, item: Mapping[str, Any]) -> None:
        """Take a question back, with all that came of it, to be put otherwise."""
        await self._stopped()
        if item in self._items:
            await self._cut(self._items.index(dict(item)))
            self._redraw()
            self._input.value = _text(item)
            self._input.run_method("focus")

    async def _cut(self, first: int) -> None:
        gone = self._items[first:]
        await self._visitor.look(lambda seat: _removed(seat, [one["id"] for one in gone]))
        del self._items[first:]

    def _redraw(self) -> None:
        self._messages.clear()
        with self._messages:
            if not self._items:
                self._welcome()
            elif len(self._items) > self._shown:
                ui.button("Earlier messages", on_click=self._earlier).props("flat no-caps")
            for item in self._items[-self._shown :]:
                self._message(item, last=item is self._items[-1])
        self._to_the_end()

    def _earlier(self) -> None:
        self._shown += MOST_SHOWN
        self._redraw()

    def _welcome(self) -> None:
        with ui.element("div").classes("empty"):
            if not self._has_documents:
                ui.label("There are no documents yet").classes("big")
                ui.label("Add some, and ask: every statement of an answer is held against its source.")
                ui.link("Add documents", "/documents").classes("button")
                return
            ui.label("Ask your documents").classes("big")
            ui.label("Numbers in an answer lead to its sources. Amber and red ones say what the source does not.")

    def _message(self, item: dict[str, Any], *, last: bool) -> None:
        if item["role"] == "user":
            with ui.element("article").classes("message you"):
                ui.label(_text(item)).classes("words")
                ui.button(icon="edit", on_click=lambda: self._edit(item)).props(
                    'flat round dense size=sm aria-label="Put this question otherwise"'
                )
            return
        with ui.element("article").classes("message graft"):
            show_answer(_text(item), item.get("graft") or {}, self._source.open)
            if last:
                ui.button(icon="refresh", on_click=self._again).props(
                    'flat round dense size=sm aria-label="Ask again"'
                )

    def _to_the_end(self) -> None:
        ui.run_javascript("const m = document.querySelector('.messages'); if (m) m.scrollTop = m.scrollHeight")

    async def _stopped(self) -> None:
        """Give up what is being answered, and wait until nobody works on it."""
        self._leave()
        while self._running is not None:
            await asyncio.sleep(0.05)

    def _leave(self) -> None:
        if self._running is not None:
            self._running.leave()

    async def _key(self, event: Any) -> None:
        if not event.action.keydown:
            return
        if event.key == "/":
            self._input.run_method("focus")
        elif event.key.escape:
            self._source.shut()
        elif event.key.arrow_left or event.key.arrow_right:
            step = 1 if event.key.arrow_right else -1
            ui.run_javascript(_NEXT_CHIP.replace("STEP", str(step)))


_NEXT_CHIP = """
const chips = [...document.querySelectorAll('.chip')];
const at = chips.indexOf(document.activeElement);
const next = chips[at < 0 ? (STEP > 0 ? 0 : chips.length - 1) : at + STEP];
if (next) { next.focus(); next.click(); }
"""


async def _drafted(running: Running[Turn], draft: ui.label) -> Turn:
    """The finished turn; its draft is shown as it comes, and as a draft."""
    written = ""
    while True:
        try:
            piece = await running.next_piece(0.5)
        except TimeoutError:
            continue
        if piece is None:
            return running.future.result()
        written += str(piece)
        draft.text = written


def _kept_answer(turn: Turn) -> dict[str, Any]:
    annotations = [one.model_dump(mode="json") for one in turn.annotations]
    content = [{"type": "output_text", "text": turn.text, "annotations": annotations, "logprobs": []}]
    used = {"input_tokens": turn.usage.input_tokens, "output_tokens": turn.usage.output_tokens}
    proof = turn.graft.model_dump(mode="json") | {"model": turn.model, "usage": used}
    return {
        "id": new_id("msg_"),
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": content,
        "graft": proof,
    }


def _begun(seat: Serving, question: str) -> str:
    title = " ".join(question.split())[:_LONGEST_TITLE]
    made = conversations.create_conversation(seat, conversations.NewConversation(metadata={"title": title}))
    return made.id


def _retitle(seat: Serving, id: str, title: str) -> None:
    before = conversations.retrieve_conversation(id, seat).metadata
    conversations.update_conversation(
        id, conversations.ChangedConversation(metadata={**before, "title": title}), seat
    )


def _items(seat: Serving, id: str) -> list[dict[str, Any]]:
    """Messages of a conversation that is theirs, oldest first."""
    conversations.retrieve_conversation(id, seat)
    kept = seat.workspace.objects.all(conversations.ITEM, parent=id)
    return [dict(one.body) for one in kept if one.body["type"] == "message"]


def _removed(seat: Serving, ids: list[str]) -> None:
    for id in ids:
        seat.workspace.objects.remove(conversations.ITEM, id, principals=seat.workspace.owns)


def _title(body: Mapping[str, Any]) -> str:
    return str(body.get("metadata", {}).get("title") or "Untitled")


def _text(item: Mapping[str, Any]) -> str:
    return "\n".join(part["text"] for part in item["content"])


def _sources(item: Mapping[str, Any]) -> str:
    cited = (item.get("graft") or {}).get("citations", [])
    return "".join(
        f"  [{number}] {one['verdict']}: {one['document'] or 'no source'}\n" for number, one in enumerate(cited, 1)
    )


def _about(model: Any) -> str:
    room = "" if model.context_tokens is None else f" · {model.context_tokens:,} tokens"
    return f"{model.name}{room}"
