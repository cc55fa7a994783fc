"""/v1/responses: an input -> an answer from vector stores with file citations, or from the model alone.

A grounded answer is checked before a word of it is sent, as in `chat`; a stream tells the steps meanwhile, in the
order of OpenAI's specification. Kept responses are gone on from by `previous_response_id`, or through a conversation;
those in the background are polled. It does not know how an answer is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from graft.errors import GraftError
from graft.objects import Order
from graft.server.answers import Turn, turn_of
from graft.server.authorising import Seat
from graft.server.chat import FIRST_SECONDS, KEEP_ALIVE, KEEP_ALIVE_SECONDS
from graft.server.failing import ParameterRefused, failure_of
from graft.server.files import Cursor, Deleted, Limit
from graft.server.items import Include, ItemList, page_of_items
from graft.server.lanes import Running, begun, finished
from graft.server.log import log_unexpected
from graft.server.metering import metered
from graft.server.polling import cancelled, give_up, put_in_line
from graft.server.responding import RESPONSE, Made, begun_of, kept
from graft.server.response_bodies import ResponseRequest, refuse_contradictions

_WORD = re.compile(r"\S+\s*|\s+")
_EVENTS = {"content": {"text/event-stream": {"schema": {"type": "string", "description": "Events of a response."}}}}

router = APIRouter(prefix="/v1/responses", tags=["responses"])


@router.post("", response_model=None, responses={200: _EVENTS})
async def create_response(body: ResponseRequest, request: Request, seat: Seat) -> Response | dict[str, Any]:
    """Answer from the vector stores of a file_search tool, with checked citations, or by the model alone."""
    refuse_contradictions(body)
    made = await run_in_threadpool(begun_of, body, seat)
    work = metered(seat, turn_of(made.asked, seat.workspace))
    if body.background:
        return await put_in_line(made, work)
    running = seat.answers.start(work, pieces=bool(body.stream) and not made.grounded)
    if not body.stream:
        return await run_in_threadpool(made.finished, await finished(request, running))
    await begun(request, running, seconds=FIRST_SECONDS)
    return _Events(made, running, grounded=made.grounded)


@router.get("/{response_id}")
def retrieve_response(
    response_id: str, seat: Seat, include: Include = None, stream: bool | None = None
) -> dict[str, Any]:
    """A kept response; one in the background has the status that it has now."""
    if stream:
        raise ParameterRefused("a kept response is not streamed", param="stream", fix="leave it out, and poll")
    found: dict[str, Any] = kept(seat.workspace, response_id).body["response"]
    return found


@router.delete("/{response_id}", response_model=Deleted)
def delete_response(response_id: str, seat: Seat) -> Deleted:
    """Forget a kept response; those that went on from it stay. One in the background is given up."""
    removed = seat.workspace.objects.remove(RESPONSE, response_id, principals=seat.workspace.owns)
    give_up(seat, removed.id)
    return Deleted(id=removed.id, object="response")


@router.post("/{response_id}/cancel")
def cancel_response(response_id: str, seat: Seat) -> dict[str, Any]:
    """Give up a response in the background; one that has ended stays as it is."""
    return cancelled(seat, response_id)


@router.get("/{response_id}/input_items", response_model=ItemList)
def list_input_items(
    response_id: str,
    seat: Seat,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    include: Include = None,
) -> ItemList:
    """What a kept response was given as its own input, newest first."""
    items = kept(seat.workspace, response_id).body.get("input", [])
    return page_of_items(items, limit=limit, order=order, after=after)


class _Events(StreamingResponse):
    """The response as a stream of events; its call is given up when it ends, however it ends."""

    def __init__(self, made: Made, running: Running[Turn], *, grounded: bool) -> None:
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

    async def _events(self, made: Made, running: Running[Turn], *, grounded: bool) -> AsyncIterator[str]:
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
