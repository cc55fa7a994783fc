"""/v1/responses: an input -> an answer from vector stores with file citations, or from the model alone.

A grounded answer is checked before a word of it is sent, as in `chat`; a stream tells the steps meanwhile, in the
order of OpenAI's specification. Kept responses are gone on from by `previous_response_id`. It does not know how an
answer is made.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from graft.errors import GraftError
from graft.models import Message
from graft.objects import Stored, new_id
from graft.server.answers import Turn, turn_of
from graft.server.authorising import Seat, Serving
from graft.server.chat import FIRST_SECONDS, KEEP_ALIVE, KEEP_ALIVE_SECONDS
from graft.server.door import log_unexpected
from graft.server.failing import failure_of
from graft.server.files import Deleted
from graft.server.lanes import Running, begun, finished
from graft.server.metering import metered
from graft.server.parameters import Grounded
from graft.server.response_bodies import ResponseRequest, asked_of
from graft.workspace import Workspace

RESPONSE = "response"
RESULTS = "file_search_call.results"
_WORD = re.compile(r"\S+\s*|\s+")
_EVENTS = {"content": {"text/event-stream": {"schema": {"type": "string", "description": "Events of a response."}}}}

router = APIRouter(prefix="/v1/responses", tags=["responses"])


@router.post("", response_model=None, responses={200: _EVENTS})
async def create_response(body: ResponseRequest, request: Request, seat: Seat) -> Response | dict[str, Any]:
    """Answer from the vector stores of a file_search tool, with checked citations, or by the model alone."""
    before = await run_in_threadpool(_turns_before, seat.workspace, body.previous_response_id)
    asked = asked_of(body, before)
    files: Mapping[str, tuple[str, str]] = {}
    if isinstance(asked, Grounded):
        files = await run_in_threadpool(_files_of, seat.workspace, asked.collection)
    grounded = isinstance(asked, Grounded)
    work = metered(seat, turn_of(asked, seat.workspace))
    running = seat.answers.start(work, pieces=bool(body.stream) and not grounded)
    made = _Made(body, files, [*before, *body.messages()], seat)
    if not body.stream:
        return await run_in_threadpool(made.finished, await finished(request, running))
    await begun(request, running, seconds=FIRST_SECONDS)
    return _Events(made, running, grounded=grounded)


@router.get("/{response_id}")
def retrieve_response(response_id: str, seat: Seat) -> dict[str, Any]:
    """A kept response."""
    found: dict[str, Any] = _kept(seat.workspace, response_id).body["response"]
    return found


@router.delete("/{response_id}", response_model=Deleted)
def delete_response(response_id: str, seat: Seat) -> Deleted:
    """Forget a kept response; those that went on from it stay."""
    removed = seat.workspace.objects.remove(RESPONSE, response_id, principals=seat.workspace.owns)
    return Deleted(id=removed.id, object="response")


def _kept(workspace: Workspace, id: str) -> Stored:
    return workspace.objects.get(RESPONSE, id, principals=workspace.owns)


def _turns_before(workspace: Workspace, previous: str | None) -> list[Message]:
    if previous is None:
        return []
    return [Message(role, text) for role, text in _kept(workspace, previous).body["turns"]]


def _files_of(workspace: Workspace, stores: str | tuple[str, ...] | None) -> dict[str, tuple[str, str]]:
    """Document -> id and name of the file it was made of.

    Raises:
        NotFound: One of the stores is neither a vector store nor a collection of theirs.
    """
    names = {one.name for one in workspace.collections()}
    found = {}
    for id in stores or ():
        if id in names and not id.startswith("vs_"):
            continue  # a collection that was filled otherwise: its documents have their own names
        for member in workspace.vector_store_files(id):
            found[member.body["document_id"]] = (member.id.partition("/")[2], member.body["filename"])
    return found


class _Made:
    """A response while it comes to be: its object at the beginning, and at the end."""

    def __init__(
        self, body: ResponseRequest, files: Mapping[str, tuple[str, str]], turns: list[Message], seat: Serving
    ) -> None:
        self.id, self.message_id, self.search_id = new_id("resp_"), new_id("msg_"), new_id("fs_")
        self.body, self.seat = body, seat
        self._files, self._turns, self._created = files, turns, int(time.time())

    def began(self) -> dict[str, Any]:
        """Before anything is known."""
        body = self.body
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": body.model,
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "store": body.store is not False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [tool.model_dump(exclude_none=True) for tool in body.tools or ()],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": None,
            "user": None,
        }

    def finished(self, turn: Turn) -> dict[str, Any]:
        """The whole response; kept, unless it is not to be."""
        cut = turn.finish_reason == "length"
        used = turn.usage
        whole = {
            **self.began(),
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [*([self.search(turn)] if self.body.tools else []), self.message(turn)],
            "usage": {
                "input_tokens": used.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": used.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": used.input_tokens + used.output_tokens,
            },
            "graft": turn.graft.model_dump(mode="json"),
        }
        if self.body.store is not False:
            turns = [[one.role, one.content] for one in (*self._turns, Message("assistant", turn.text))]
            workspace = self.seat.workspace
            workspace.objects.put(RESPONSE, {"response": whole, "turns": turns}, id=self.id, owners=workspace.owns)
        return whole

    def search(self, turn: Turn | None) -> dict[str, Any]:
        """The search as an item of the output; with its results where they are asked for."""
        if turn is None:
            return {"id": self.search_id, "type": "file_search_call", "status": "in_progress", "queries": []}
        results = [
            {
                "file_id": self._file(hit.document_id, hit.document)[0],
                "filename": self._file(hit.document_id, hit.document)[1],
                "score": hit.score,
                "text": hit.text,
                "attributes": {},
            }
            for hit in turn.graft.hits
        ]
        return {
            "id": self.search_id,
            "type": "file_search_call",
            "status": "completed",
            "queries": [turn.graft.question],
            "results": results if RESULTS in (self.body.include or ()) else None,
        }

    def message(self, turn: Turn) -> dict[str, Any]:
        """The answer as an item of the output."""
        return {
            "id": self.message_id,
            "type": "message",
            "status": "incomplete" if turn.finish_reason == "length" else "completed",
            "role": "assistant",
            "content": [self.part(turn.text, self.annotations(turn))],
        }

    def part(self, text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        """Text of the answer."""
        return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}

    def annotations(self, turn: Turn) -> list[dict[str, Any]]:
        """Citations that hold, each where its statement ends."""
        found = []
        for one in turn.graft.citations:
            if one.verdict != "unsupported" and one.document_id is not None and one.document is not None:
                id, name = self._file(one.document_id, one.document)
                found.append({"type": "file_citation", "index": one.claim_end, "file_id": id, "filename": name})
        return found

    def _file(self, document_id: str, name: str) -> tuple[str, str]:
        return self._files.get(document_id, (document_id, name))


class _Events(StreamingResponse):
    """The response as a stream of events; its call is given up when it ends, however it ends."""

    def __init__(self, made: _Made, running: Running[Turn], *, grounded: bool) -> None:
        super().__init__(
            self._events(made, running, grounded=grounded),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )
        self._running, self._number = running, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._running.leave()

    async def _events(self, made: _Made, running: Running[Turn], *, grounded: bool) -> AsyncIterator[str]:
        try:
            yield self._event("response.created", response=made.began())
            yield self._event("response.in_progress", response=made.began())
            place = 1 if grounded else 0
            if grounded:
                yield self._event("response.output_item.added", output_index=0, item=made.search(None))
                for step in ("in_progress", "searching"):
                    yield self._event(f"response.file_search_call.{step}", output_index=0, item_id=made.search_id)
                async for event in self._waited(running):
                    yield event
                turn = running.future.result()
                yield self._event("response.file_search_call.completed", output_index=0, item_id=made.search_id)
                yield self._event("response.output_item.done", output_index=0, item=made.search(turn))
            at = {"output_index": place, "item_id": made.message_id, "content_index": 0}
            empty = {"id": made.message_id, "type": "message", "status": "in_progress", "role": "assistant"}
            yield self._event("response.output_item.added", output_index=place, item={**empty, "content": []})
            yield self._event("response.content_part.added", **at, part=made.part("", []))
            if grounded:
                for word in _WORD.findall(turn.text):
                    yield self._delta(at, word)
            else:
                async for event in self._waited(running, at):
                    yield event
                turn = running.future.result()
            annotations = made.annotations(turn)
            for number, one in enumerate(annotations):
                name = "response.output_text.annotation.added"
                yield self._event(name, **at, annotation_index=number, annotation=one)
            yield self._event("response.output_text.done", **at, text=turn.text, logprobs=[])
            yield self._event("response.content_part.done", **at, part=made.part(turn.text, annotations))
            yield self._event("response.output_item.done", output_index=place, item=made.message(turn))
            whole = await run_in_threadpool(made.finished, turn)
            yield self._event(f"response.{whole['status']}", response=whole)
        except Exception as error:  # the edge: the status is sent, so the failure becomes an event
            if not isinstance(error, GraftError):
                log_unexpected(error)
            told = failure_of(error).error
            yield self._event("error", code=told.code, message=told.message, param=told.param)

    async def _waited(self, running: Running[Turn], at: Mapping[str, Any] | None = None) -> AsyncIterator[str]:
        """Until the call has ended; its pieces as they come, where `at` says where they stand."""
        while True:
            try:
                piece = await running.next_piece(KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if piece is None:
                return
            if at is not None:
                yield self._delta(at, piece)

    def _delta(self, at: Mapping[str, Any], text: str) -> str:
        return self._event("response.output_text.delta", **at, delta=text, logprobs=[])

    def _event(self, type: str, **values: Any) -> str:
        data = json.dumps({"type": type, "sequence_number": self._number, **values}, ensure_ascii=False)
        self._number += 1
        return f"event: {type}\ndata: {data}\n\n"
