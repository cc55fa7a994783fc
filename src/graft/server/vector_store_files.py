"""/v1/vector_stores/{id}/files and /file_batches: put files in, see how far they are, take them out.

Files are read one after another, beside the requests. What is read is told by a file's status; a server that was
killed reads what it had not, once it is back. It does not know how files are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from graft.objects import Order, Stored, new_id
from graft.server.authorising import EditorSeat, Seat, Serving
from graft.server.files import Cursor, Deleted, Limit, ends_of
from graft.server.lanes import finished
from graft.server.vector_store_bodies import ChangedMember, ChunkSizes, NewBatch, NewMember, StaticChunking, sizes_of
from graft.workspace.vector_stores import MEMBER

router = APIRouter(prefix="/v1/vector_stores", tags=["vector stores"])

BATCH = "vector_store.file_batch"
Status = Literal["in_progress", "completed", "failed", "cancelled"]
StatusFilter = Annotated[Status | None, Query(alias="filter")]


class FileCounts(BaseModel):
    """Files by their state."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class LastError(BaseModel):
    """Why a file could not be read, and what to do."""

    code: Literal["unsupported_file"] = "unsupported_file"
    message: str


class MemberObject(BaseModel):
    """A file in a vector store."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    vector_store_id: str
    status: Status
    last_error: LastError | None
    usage_bytes: int
    attributes: dict[str, Any]
    chunking_strategy: StaticChunking = Field(description="As the file is really cut.")


class MemberList(BaseModel):
    """Some of the files."""

    object: Literal["list"] = "list"
    data: list[MemberObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ContentPart(BaseModel):
    """Text of a file, or of a passage."""

    type: Literal["text"] = "text"
    text: str


class ContentPage(BaseModel):
    """What was read of a file."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[ContentPart]
    has_more: Literal[False] = False
    next_page: None = None


class BatchObject(BaseModel):
    """Files that were put in together."""

    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: Status
    file_counts: FileCounts


@router.post("/{vector_store_id}/files", response_model=MemberObject)
async def create_member(vector_store_id: str, body: NewMember, request: Request, seat: EditorSeat) -> MemberObject:
    """Put an uploaded file in; its status tells when it can be found."""

    def attach(_: Any) -> Stored:
        return seat.workspace.attach_file(
            vector_store_id, body.file_id, attributes=body.attributes, chunks=sizes_of(body.chunking_strategy)
        )

    made = await finished(request, seat.lookups.start(attach))
    read_later(seat, vector_store_id, body.file_id)
    return _member(made)


@router.get("/{vector_store_id}/files", response_model=MemberList)
def list_members(
    vector_store_id: str,
    seat: Seat,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
    status: StatusFilter = None,
) -> MemberList:
    """The files in it, newest first."""
    return _members(vector_store_id, seat, limit, order, after, before, status, among=None)


@router.get("/{vector_store_id}/files/{file_id}", response_model=MemberObject)
def retrieve_member(vector_store_id: str, file_id: str, seat: Seat) -> MemberObject:
    """One file in it."""
    return _member(seat.workspace.attached_file(vector_store_id, file_id))


@router.post("/{vector_store_id}/files/{file_id}", response_model=MemberObject)
def change_member(vector_store_id: str, file_id: str, body: ChangedMember, seat: EditorSeat) -> MemberObject:
    """Give it other attributes."""
    return _member(seat.workspace.change_attributes(vector_store_id, file_id, body.attributes or {}))


@router.delete("/{vector_store_id}/files/{file_id}", response_model=Deleted)
def delete_member(vector_store_id: str, file_id: str, seat: EditorSeat) -> Deleted:
    """Take it out; the uploaded file stays."""
    seat.workspace.detach_file(vector_store_id, file_id)
    return Deleted(id=file_id, object="vector_store.file.deleted")


@router.get("/{vector_store_id}/files/{file_id}/content", response_model=ContentPage)
async def retrieve_member_content(vector_store_id: str, file_id: str, request: Request, seat: Seat) -> ContentPage:
    """What was read of a file: its text."""
    running = seat.lookups.start(lambda _: seat.workspace.text_of_file(vector_store_id, file_id))
    return ContentPage(data=[ContentPart(text=await finished(request, running))])


@router.post("/{vector_store_id}/file_batches", response_model=BatchObject)
async def create_batch(vector_store_id: str, body: NewBatch, request: Request, seat: EditorSeat) -> BatchObject:
    """Put several uploaded files in."""
    given = {one.file_id: one for one in body.members()}
    files = list(given)

    def attach(_: Any) -> Stored:
        owner = seat.workspace.vector_store(vector_store_id)
        for file, one in given.items():
            sizes = sizes_of(one.chunking_strategy)
            seat.workspace.attach_file(vector_store_id, file, attributes=one.attributes, chunks=sizes)
        id = new_id("vsfb_")
        return seat.workspace.objects.put(
            BATCH, {"files": files}, id=id, owners=owner.principals, parent=vector_store_id
        )

    made = await finished(request, seat.lookups.start(attach))
    for file in files:
        read_later(seat, vector_store_id, file)
    return _batch(made, seat)


@router.get("/{vector_store_id}/file_batches/{batch_id}", response_model=BatchObject)
def retrieve_batch(vector_store_id: str, batch_id: str, seat: Seat) -> BatchObject:
    """How far it is."""
    return _batch(_batch_of(vector_store_id, batch_id, seat), seat)


@router.post("/{vector_store_id}/file_batches/{batch_id}/cancel", response_model=BatchObject)
def cancel_batch(vector_store_id: str, batch_id: str, seat: EditorSeat) -> BatchObject:
    """Read no more of its files; those that were read stay."""
    batch = _batch_of(vector_store_id, batch_id, seat)
    seat.workspace.cancel_files(vector_store_id, batch.body["files"])
    return _batch(batch, seat)


@router.get("/{vector_store_id}/file_batches/{batch_id}/files", response_model=MemberList)
def list_batch(
    vector_store_id: str,
    batch_id: str,
    seat: Seat,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
    status: StatusFilter = None,
) -> MemberList:
    """Its files."""
    files = set(_batch_of(vector_store_id, batch_id, seat).body["files"])
    return _members(vector_store_id, seat, limit, order, after, before, status, among=files)


def read_later(seat: Serving, store: str, file: str) -> None:
    """Read an attached file when its turn comes."""
    seat.imports.start(lambda _: seat.workspace.index_file(store, file))


def _members(
    store: str,
    seat: Serving,
    limit: int,
    order: Order,
    after: str | None,
    before: str | None,
    status: Status | None,
    *,
    among: set[str] | None,
) -> MemberList:
    seat.workspace.vector_store(store)

    def keep(body: Mapping[str, Any]) -> bool:
        return status in (None, body["status"]) and (among is None or body["file_id"] in among)

    page = seat.workspace.objects.page(
        MEMBER,
        principals=seat.workspace.principals,
        parent=store,
        limit=limit,
        order=order,
        after=None if after is None else f"{store}/{after}",
        before=None if before is None else f"{store}/{before}",
        keep=None if status is None and among is None else keep,
    )
    return MemberList(data=[_member(one) for one in page.data], **ends_of(page))


def _batch_of(store: str, batch: str, seat: Serving) -> Stored:
    seat.workspace.vector_store(store)
    return seat.workspace.objects.get(BATCH, batch, principals=seat.workspace.principals)


def counts_of(members: list[Stored]) -> FileCounts:
    found = Counter(one.body["status"] for one in members)
    return FileCounts(
        in_progress=found["in_progress"],
        completed=found["completed"],
        failed=found["failed"],
        cancelled=found["cancelled"],
        total=len(members),
    )


def _member(stored: Stored) -> MemberObject:
    body = stored.body
    return MemberObject(
        id=stored.id.rpartition("/")[2],
        created_at=stored.created_at,
        vector_store_id=str(stored.parent),
        status=body["status"],
        last_error=None if body["error"] is None else LastError(message=body["error"]),
        usage_bytes=body["usage_bytes"],
        attributes=body["attributes"],
        chunking_strategy=StaticChunking(
            type="static",
            static=ChunkSizes.model_construct(
                max_chunk_size_tokens=body["chunk_tokens"], chunk_overlap_tokens=body["overlap_tokens"]
            ),
        ),
    )


def _batch(stored: Stored, seat: Serving) -> BatchObject:
    store, files = str(stored.parent), set(stored.body["files"])
    members = [one for one in seat.workspace.vector_store_files(store) if one.id.rpartition("/")[2] in files]
    counts = counts_of(members)
    return BatchObject(
        id=stored.id,
        created_at=stored.created_at,
        vector_store_id=store,
        status="in_progress" if counts.in_progress else "cancelled" if counts.cancelled else "completed",
        file_counts=counts,
    )
