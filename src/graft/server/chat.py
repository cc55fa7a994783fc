"""POST /v1/chat/completions: a conversation -> its next turn, whole or as a stream of events.

A grounded answer (the default) is checked before it is shown, and the check may change or replace what the
model wrote. So a stream of it sends comments while the draft is written and checked, which clients skip and
which keep the connection open, and then the checked text in pieces: no client ever shows a word that failed.
With `graft: {"draft": true}` the draft is sent too as it comes, in chunks without content, under `graft.draft`.
Without retrieval nothing is checked, and the model's pieces are sent as they come.

A failure before the first piece, within FIRST_SECONDS, has its HTTP status; a later one is an event with
OpenAI's error object, and no [DONE] follows it.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from graft.errors import GraftError
from graft.models import Piece
from graft.server.answers import Turn, turn_of
from graft.server.authorising import Seat
from graft.server.failing import ErrorBody, failure_of
from graft.server.lanes import Running, begun, finished
from graft.server.log import log_unexpected
from graft.server.metering import metered
from graft.server.parameters import asked_of
from graft.server.replies import (
    AssistantMessage,
    ChatCompletion,
    Choice,
    Chunk,
    ChunkChoice,
    Delta,
    DraftPart,
    FinishReason,
    FunctionCall,
    GraftPart,
    Scores,
    Tokens,
    ToolCallDelta,
    ToolCallPart,
    scores_of,
)
from graft.server.requests import ChatRequest

FIRST_SECONDS = 2.0
KEEP_ALIVE_SECONDS = 5.0
KEEP_ALIVE = ": working\n\n"
DONE = "data: [DONE]\n\n"

_WORD = re.compile(r"\S+\s*|\s+")
_EVENTS = {"content": {"text/event-stream": {"schema": {"type": "string", "description": "`Chunk`s, then [DONE]."}}}}

router = APIRouter(prefix="/v1", tags=["chat"])


@router.post("/chat/completions", response_model=ChatCompletion, responses={200: _EVENTS})
async def create_chat_completion(body: ChatRequest, request: Request, seat: Seat) -> Response | ChatCompletion:
    """Answer the last message from the documents, with checked citations, or from the model alone."""
    asked = asked_of(body)
    options = body.graft
    held_back = options is None or options.retrieval
    draft = options is not None and options.draft
    running = seat.answers.start(
        metered(seat, turn_of(asked, seat.workspace)), pieces=bool(body.stream) and (draft or not held_back)
    )
    if not body.stream:
        return _completion(await finished(request, running))
    await begun(request, running, seconds=FIRST_SECONDS)
    include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    writer = _Writer(body.model, include_usage=include_usage)
    return _Events(writer.events(running, held_back=held_back), running)


class _Events(StreamingResponse):
    """A stream that gives its call up when it ends, however it ends."""

    def __init__(self, events: AsyncIterator[str], running: Running[Turn]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._running.leave()


class _Writer:
    """The events of one stream: chunks of one id."""

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._id, self._created = _new_id()
        self._model = model
        self._include_usage = include_usage

    async def events(self, running: Running[Turn], *, held_back: bool) -> AsyncIterator[str]:
        """The whole stream.

        Args:
            held_back: The pieces are a draft, and the text is sent once it is checked.
        """
        try:
            yield self._chunk(Delta(role="assistant", content=""))
            async for event in self._pieces(running, held_back=held_back):
                yield event
            turn = running.future.result()
            if held_back:
                for word in _WORD.findall(turn.text):
                    yield self._chunk(Delta(content=word))
            if turn.annotations:
                yield self._chunk(Delta(annotations=list(turn.annotations)))
            yield self._chunk(Delta(), finish_reason=turn.finish_reason, graft=turn.graft)
            if self._include_usage:
                yield self._last(turn)
            yield DONE
        except Exception as error:  # the edge: the status is sent, so the failure becomes an event
            if not isinstance(error, GraftError):
                log_unexpected(error)
            yield f"data: {ErrorBody(error=failure_of(error).error).model_dump_json()}\n\n"

    async def _pieces(self, running: Running[Turn], *, held_back: bool) -> AsyncIterator[str]:
        while True:
            try:
                piece = await running.next_piece(KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if piece is None:
                return
            if held_back:
                yield self._chunk(Delta(), graft=DraftPart(draft=piece))
            else:
                scores = scores_of(piece.scores) if isinstance(piece, Piece) and piece.scores else None
                yield self._chunk(_delta(piece), logprobs=scores)

    def _chunk(
        self,
        delta: Delta,
        *,
        finish_reason: FinishReason | None = None,
        logprobs: Scores | None = None,
        graft: GraftPart | DraftPart | None = None,
    ) -> str:
        chunk = self._empty()
        choice = ChunkChoice(index=0, delta=delta, finish_reason=finish_reason)
        if logprobs is not None:
            choice.logprobs = logprobs
        chunk.choices = [choice]
        if graft is not None:
            chunk.graft = graft
        return _event(chunk)

    def _last(self, turn: Turn) -> str:
        chunk = self._empty()
        chunk.usage = _tokens(turn)
        return _event(chunk)

    def _empty(self) -> Chunk:
        """A chunk of this stream; where the usage is asked for, every one but the last has it as null."""
        chunk = Chunk(
            id=self._id, object="chat.completion.chunk", created=self._created, model=self._model, choices=[]
        )
        if self._include_usage:
            chunk.usage = None
        return chunk


def _event(chunk: Chunk) -> str:
    return f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"


def _delta(piece: str) -> Delta:
    """A piece as a chunk has it; of a call's later pieces neither id nor name is sent."""
    calls = piece.calls if isinstance(piece, Piece) else ()
    if not calls:
        return Delta(content=str(piece))
    made = []
    for number, call in calls:
        if call.id:
            begun = FunctionCall(name=call.name, arguments=call.arguments)
            made.append(ToolCallDelta(index=number, id=call.id, type="function", function=begun))
        else:
            made.append(ToolCallDelta(index=number, function=FunctionCall(arguments=call.arguments)))
    return Delta(content=str(piece), tool_calls=made) if piece else Delta(tool_calls=made)


def _completion(turn: Turn) -> ChatCompletion:
    name, created = _new_id()
    message = AssistantMessage(content=turn.text, annotations=list(turn.annotations))
    if turn.tool_calls:
        message.content = turn.text or None
        message.tool_calls = [
            ToolCallPart(id=one.id, function=FunctionCall(name=one.name, arguments=one.arguments))
            for one in turn.tool_calls
        ]
    scores = None if turn.scores is None else scores_of(turn.scores)
    return ChatCompletion(
        id=name,
        created=created,
        model=turn.model,
        choices=[Choice(message=message, finish_reason=turn.finish_reason, logprobs=scores)],
        usage=_tokens(turn),
        graft=turn.graft,
    )


def _tokens(turn: Turn) -> Tokens:
    used = turn.usage
    return Tokens(
        prompt_tokens=used.input_tokens,
        completion_tokens=used.output_tokens,
        total_tokens=used.input_tokens + used.output_tokens,
    )


def _new_id() -> tuple[str, int]:
    return f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
