"""Items of a conversation: as a client sends them -> as they are kept and shown -> turns for a model.

It does not know who keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel

from graft.models import Message
from graft.objects import Order, new_id
from graft.server.paging import page_of
from graft.server.requests import Body

Include = Annotated[list[str] | None, Query(alias="include[]", description="Taken; results are shown as kept.")]


class InputText(Body):
    """A part of a message; images, audio and files are not taken."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputMessage(Body):
    """One turn, as it is written or as an earlier response had it."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText]
    id: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class InputSearch(Body):
    """A search, as an earlier response had it; no turn of the conversation."""

    type: Literal["file_search_call"]
    queries: list[str]
    results: list[dict[str, Any]] | None = None
    id: str | None = None
    status: str | None = None


InputItem = InputMessage | InputSearch


class ItemList(BaseModel):
    """Some of the items."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


def as_kept(item: InputItem) -> dict[str, Any]:
    """An item under an id of its own: one that a client chose could be somebody else's.

    >>> as_kept(InputMessage(role="user", content="Hello"))["content"]
    [{'type': 'input_text', 'text': 'Hello'}]
    """
    if isinstance(item, InputSearch):
        search = {"type": item.type, "status": "completed", "queries": item.queries, "results": item.results}
        return {"id": new_id("fs_"), **search}
    parts = [InputText(type="text", text=item.content)] if isinstance(item.content, str) else item.content
    content: list[dict[str, Any]] = [{"type": "input_text", "text": part.text} for part in parts]
    if item.role == "assistant":
        content = [
            {"type": "output_text", "text": part.text, "annotations": part.annotations or [], "logprobs": []}
            for part in parts
        ]
    return {"id": new_id("msg_"), "type": "message", "status": "completed", "role": item.role, "content": content}


def turns_of(items: Iterable[Mapping[str, Any]]) -> list[Message]:
    """What was said in kept items.

    >>> [turn] = turns_of([as_kept(InputMessage(role="developer", content="Be brief."))])
    >>> turn.role, turn.content
    ('system', 'Be brief.')
    """
    return [
        Message(
            "system" if item["role"] == "developer" else item["role"],
            "\n".join(part["text"] for part in item["content"]),
        )
        for item in items
        if item["type"] == "message"
    ]


def page_of_items(items: Sequence[dict[str, Any]], *, limit: int, order: Order, after: str | None) -> ItemList:
    """Some of the items, which are given oldest first.

    Raises:
        NotFound: No such cursor.
    """
    rows = list(items if order == "asc" else reversed(items))
    shown, more = page_of(rows, [one["id"] for one in rows], limit, after)
    return ItemList(
        data=shown,
        first_id=shown[0]["id"] if shown else None,
        last_id=shown[-1]["id"] if shown else None,
        has_more=more,
    )
