"""/v1/conversations: items that responses go on from and add to; each is its maker's alone.

Items are rows of their own, so that those who append at once lose nothing. It does not know how an answer is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from graft.errors import NotFound
from graft.models import Message
from graft.objects import Order, Stored, new_id
from graft.server.authorising import Seat
from graft.server.files import Cursor, Deleted, Limit, ends_of
from graft.server.items import Include, InputItem, ItemList, as_kept, turns_of
from graft.server.requests import WholeBody
from graft.server.vector_store_bodies import Metadata
from graft.workspace import Workspace

CONVERSATION, ITEM = "conversation", "conversation.item"
MOST_ITEMS = 20
"""Of one request; OpenAI's own limit."""

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])


class NewConversation(WholeBody):
    """A conversation, and the items to begin with."""

    items: Annotated[list[InputItem], Field(max_length=MOST_ITEMS)] | None = None
    metadata: Metadata | None = None


class ChangedConversation(WholeBody):
    """Other metadata."""

    metadata: Metadata | None


class NewItems(WholeBody):
    """Items to be added, in this order."""

    items: Annotated[list[InputItem], Field(min_length=1, max_length=MOST_ITEMS)]


class ConversationObject(BaseModel):
    """A conversation; its items have routes of their own."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


@router.post("", response_model=ConversationObject)
def create_conversation(seat: Seat, body: NewConversation | None = None) -> ConversationObject:
    """Begin a conversation."""
    given = body or NewConversation()
    kept = {"metadata": given.metadata or {}}
    made = seat.workspace.objects.put(CONVERSATION, kept, id=new_id("conv_"), owners=seat.workspace.owns)
    if given.items:
        append(seat.workspace, made.id, [as_kept(item) for item in given.items])
    return _conversation(made)


@router.get("/{conversation_id}", response_model=ConversationObject)
def retrieve_conversation(conversation_id: str, seat: Seat) -> ConversationObject:
    """One of the caller's."""
    return _conversation(_stored(seat.workspace, conversation_id))


@router.post("/{conversation_id}", response_model=ConversationObject)
def update_conversation(conversation_id: str, body: ChangedConversation, seat: Seat) -> ConversationObject:
    """Give it other metadata."""
    workspace, changed = seat.workspace, {"metadata": body.metadata or {}}
    edited = workspace.objects.edit(CONVERSATION, conversation_id, lambda _: changed, principals=workspace.owns)
    return _conversation(edited)


@router.delete("/{conversation_id}", response_model=Deleted)
def delete_conversation(conversation_id: str, seat: Seat) -> Deleted:
    """Forget it with its items; responses that were part of it stay."""
    removed = seat.workspace.objects.remove(CONVERSATION, conversation_id, principals=seat.workspace.owns)
    return Deleted(id=removed.id, object="conversation.deleted")


@router.post("/{conversation_id}/items", response_model=ItemList)
def create_items(conversation_id: str, body: NewItems, seat: Seat, include: Include = None) -> ItemList:
    """Add items at its end, all or none."""
    items = append(seat.workspace, conversation_id, [as_kept(item) for item in body.items])
    return ItemList(data=items, first_id=items[0]["id"], last_id=items[-1]["id"], has_more=False)


@router.get("/{conversation_id}/items", response_model=ItemList)
def list_items(
    conversation_id: str,
    seat: Seat,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    include: Include = None,
) -> ItemList:
    """Its items, newest first."""
    workspace = seat.workspace
    _stored(workspace, conversation_id)
    page = workspace.objects.page(
        ITEM, principals=workspace.owns, parent=conversation_id, limit=limit, order=order, after=after
    )
    return ItemList(data=[dict(one.body) for one in page.data], **ends_of(page))


@router.get("/{conversation_id}/items/{item_id}")
def retrieve_item(conversation_id: str, item_id: str, seat: Seat, include: Include = None) -> dict[str, Any]:
    """One of its items."""
    return dict(_item(seat.workspace, conversation_id, item_id).body)


@router.delete("/{conversation_id}/items/{item_id}", response_model=ConversationObject)
def delete_item(conversation_id: str, item_id: str, seat: Seat) -> ConversationObject:
    """Take an item out of it."""
    workspace = seat.workspace
    item = _item(workspace, conversation_id, item_id)
    workspace.objects.remove(ITEM, item.id, principals=workspace.owns)
    return _conversation(_stored(workspace, conversation_id))


def history(workspace: Workspace, id: str) -> list[Message]:
    """What was said in a conversation, oldest first.

    Raises:
        NotFound: It is not there, or not theirs.
    """
    _stored(workspace, id)
    return turns_of(one.body for one in workspace.objects.all(ITEM, parent=id))


def append(workspace: Workspace, id: str, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add kept items at a conversation's end, all or none.

    Raises:
        NotFound: It is not there, or not theirs.
    """
    bodies = {item["id"]: item for item in items}
    workspace.objects.append(ITEM, bodies, to=(CONVERSATION, id), principals=workspace.owns)
    return list(items)


def _stored(workspace: Workspace, id: str) -> Stored:
    return workspace.objects.get(CONVERSATION, id, principals=workspace.owns)


def _item(workspace: Workspace, conversation: str, id: str) -> Stored:
    _stored(workspace, conversation)
    found = workspace.objects.get(ITEM, id, principals=workspace.owns)
    if found.parent != conversation:
        raise NotFound(f"no {ITEM} {id!r}", fix="list them to see what is there")
    return found


def _conversation(stored: Stored) -> ConversationObject:
    return ConversationObject(id=stored.id, created_at=stored.created_at, metadata=stored.body["metadata"])
