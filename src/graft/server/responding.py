"""A request for a response -> what it asks, and its object: at its beginning, and at its end, when it is kept.

It does not know how an answer is made or sent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graft.models import Message
from graft.objects import Stored, new_id
from graft.server import conversations
from graft.server.answers import Turn
from graft.server.authorising import Serving
from graft.server.failing import ParameterRefused
from graft.server.items import turns_of
from graft.server.parameters import ClosedBook, Grounded
from graft.server.response_bodies import FileSearch, ResponseRequest, asked_of
from graft.server.vector_store_bodies import test_of
from graft.workspace import Workspace

RESPONSE = "response"
RESULTS = "file_search_call.results"
ENDED = ("completed", "incomplete")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """The file that a document was made of."""

    id: str
    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


def kept(workspace: Workspace, id: str) -> Stored:
    """A response that is theirs.

    Raises:
        NotFound: It is not there, or not theirs.
    """
    return workspace.objects.get(RESPONSE, id, principals=workspace.owns)


def begun_of(body: ResponseRequest, seat: Serving) -> Made:
    """What a request asks, with what it goes on from.

    Raises:
        NotFound: A vector store, a response or a conversation that it names is not there, or not theirs.
        ParameterRefused: A parameter cannot be honoured.
    """
    files: dict[str, SourceFile] = {}
    documents = None
    if body.searches is not None:
        files = _files_of(seat.workspace, body.searches)
        documents = None if body.searches.filters is None else _filtered(body.searches, files)
    items = body.items()
    turns = [*_turns_before(seat.workspace, body), *turns_of(items)]
    return Made(body, asked_of(body, turns, documents), items, turns, files, seat)


def _turns_before(workspace: Workspace, body: ResponseRequest) -> list[Message]:
    if body.conversation_id is not None:
        return conversations.history(workspace, body.conversation_id)
    if body.previous_response_id is None:
        return []
    previous = kept(workspace, body.previous_response_id).body
    status = previous["response"]["status"]
    if status not in ENDED:
        raise ParameterRefused(
            f"{body.previous_response_id} is {status}; a response goes on from one that is completed or incomplete",
            param="previous_response_id",
            fix="poll GET /v1/responses/ID until it has ended",
        )
    return [Message(role, text) for role, text in previous["turns"]]


def _files_of(workspace: Workspace, tool: FileSearch) -> dict[str, SourceFile]:
    """Document -> the file it was made of.

    Raises:
        NotFound: One of the stores is neither a vector store nor a collection of theirs.
        ParameterRefused: Filters are given for a collection that is no vector store.
    """
    names = {one.name for one in workspace.collections()}
    found = {}
    for id in tool.vector_store_ids:
        if id in names and not id.startswith("vs_"):  # filled otherwise: its documents have their own names
            if tool.filters is not None:
                raise ParameterRefused(
                    f"filters are of attributes, and the documents of the collection {id!r} have none",
                    param="tools[0].filters",
                    fix="leave them out, or search a vector store",
                )
            continue
        workspace.use_vector_store(id)
        for member in workspace.vector_store_files(id):
            body = member.body
            file = SourceFile(id=member.id.partition("/")[2], name=body["filename"], attributes=body["attributes"])
            found[body["document_id"]] = file
    return found


def _filtered(tool: FileSearch, files: Mapping[str, SourceFile]) -> tuple[str, ...]:
    try:
        keeps = test_of(tool.filters)
    except ValueError as error:
        raise ParameterRefused(
            str(error), param="tools[0].filters", fix="fewer filters inside each other", code="invalid_value"
        ) from error
    return tuple(id for id, file in files.items() if id is not None and (keeps is None or keeps(file.attributes)))


class Made:
    """A response while it comes to be: its object at the beginning, and at the end."""

    def __init__(
        self,
        body: ResponseRequest,
        asked: Grounded | ClosedBook,
        items: list[dict[str, Any]],
        turns: list[Message],
        files: Mapping[str, SourceFile],
        seat: Serving,
    ) -> None:
        self.id, self.message_id, self.search_id = new_id("resp_"), new_id("msg_"), new_id("fs_")
        self.body, self.asked, self.items, self.seat = body, asked, items, seat
        self.grounded = isinstance(asked, Grounded)
        self._files, self._turns, self._created = files, turns, int(time.time())

    def began(self, status: str = "in_progress") -> dict[str, Any]:
        """Before anything is known."""
        body = self.body
        form = None if body.text is None else body.text.format
        choice = body.tool_choice or "auto"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": bool(body.background),
            "completed_at": None,
            "conversation": None if body.conversation_id is None else {"id": body.conversation_id},
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
            "text": {
                "format": {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)
            },
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump(exclude_none=True) for tool in body.tools or ()],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": None,
            "user": None,
        }

    def finished(self, turn: Turn) -> dict[str, Any]:
        """The whole response; kept, and part of its conversation, unless it is not to be.

        Raises:
            NotFound: The conversation was removed meanwhile.
        """
        whole = self.whole(turn)
        if self.body.store is not False:
            self.converse(whole)
            self.keep(whole, turn.text)
        return whole

    def whole(self, turn: Turn) -> dict[str, Any]:
        """The response with its answer."""
        cut = turn.finish_reason == "length"
        used = turn.usage
        return {
            **self.began("incomplete" if cut else "completed"),
            "completed_at": None if cut else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [*([self.search(turn)] if self.grounded else []), self.message(turn)],
            "usage": {
                "input_tokens": used.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": used.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": used.input_tokens + used.output_tokens,
            },
            "graft": turn.graft.model_dump(mode="json"),
        }

    def keep(self, response: Mapping[str, Any], text: str | None = None) -> None:
        """Keep it for the first time."""
        workspace = self.seat.workspace
        workspace.objects.put(RESPONSE, self.record(response, text), id=self.id, owners=workspace.owns)

    def record(self, response: Mapping[str, Any], text: str | None = None) -> dict[str, Any]:
        """What is kept: the response, what it was given, and the turns for those that go on from it."""
        said = [] if text is None else [Message("assistant", text)]
        turns = [[one.role, one.content] for one in (*self._turns, *said)]
        return {"response": response, "turns": turns, "input": self.items}

    def converse(self, response: Mapping[str, Any]) -> None:
        """Make its input and output part of its conversation."""
        if self.body.conversation_id is not None:
            added = [*self.items, *response["output"]]
            conversations.append(self.seat.workspace, self.body.conversation_id, added)

    def search(self, turn: Turn | None) -> dict[str, Any]:
        """The search as an item of the output; with its results where they are asked for."""
        if turn is None:
            return {"id": self.search_id, "type": "file_search_call", "status": "in_progress", "queries": []}
        results = [
            {
                "file_id": file.id,
                "filename": file.name,
                "score": hit.score,
                "text": hit.text,
                "attributes": dict(file.attributes),
            }
            for hit in turn.graft.hits
            for file in [self._file(hit.document_id, hit.document)]
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
                file = self._file(one.document_id, one.document)
                at = {"type": "file_citation", "index": one.claim_end}
                found.append({**at, "file_id": file.id, "filename": file.name})
        return found

    def _file(self, document_id: str, name: str) -> SourceFile:
        return self._files.get(document_id) or SourceFile(id=document_id, name=name)
