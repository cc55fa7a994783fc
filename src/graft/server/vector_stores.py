"""/v1/vector_stores: make, fill, search, remove. Files are read one after another, beside the requests.

What is read is told by a file's status; a server that was killed reads what it had not, once it is back. It does not
know how files are read.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from graft.errors import UsageError
from graft.objects import Order, Stored, new_id
from graft.server.authorising import EditorSeat, Seat, Serving
from graft.server.files import Cursor, Deleted, Limit, ends_of
from graft.server.lanes import finished
from graft.server.vector_store_bodies import (
    ChangedMember,
    ChangedVectorStore,
    NewBatch,
    NewMember,
    NewVectorStore,
    VectorSearch,
    test_of,
)
from graft.workspace.vector_stores import MEMBER, VECTOR_STORE, Found

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


class VectorStoreObject(BaseModel):
    """A set of files that is searched together."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["in_progress", "completed"]
    expires_after: dict[str, Any] | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]


class VectorStoreList(BaseModel):
    """Some of them."""

    object: Literal["list"] = "list"
    data: list[VectorStoreObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


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
    chunking_strategy: dict[str, Any] = {"type": "other"}


class MemberList(BaseModel):
    """Some of the files."""

    object: Literal["list"] = "list"
    data: list[MemberObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchObject(BaseModel):
    """Files that were put in together."""

    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: Status
    file_counts: FileCounts


class ContentPart(BaseModel):
    """Text of a passage."""

    type: Literal["text"] = "text"
    text: str


class GraftRange(BaseModel):
    """Where a passage stands."""

    document_id: str
    version: int
    start: int
    end: int
    page: int | None


class SearchHit(BaseModel):
    """A passage."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[ContentPart]
    graft: GraftRange


class SearchPage(BaseModel):
    """Passages, best first."""

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchHit]
    has_more: Literal[False] = False
    next_page: None = None


@router.post("", response_model=VectorStoreObject)
async def create_vector_store(body: NewVectorStore, request: Request, seat: EditorSeat) -> VectorStoreObject:
    """An empty one, or one that the files named are put into."""

    def make(_: Any) -> Stored:
        days = None if body.expires_after is None else body.expires_after.days
        made = seat.workspace.create_vector_store(
            name=body.name or "", metadata=body.metadata, expires_after_days=days
        )
        for file in dict.fromkeys(body.file_ids or ()):
            seat.workspace.attach_file(made.id, file)
        return made

    made = await finished(request, seat.lookups.start(make))
    for file in dict.fromkeys(body.file_ids or ()):
        read_later(seat, made.id, file)
    return _store(made, seat)


@router.get("", response_model=VectorStoreList)
def list_vector_stores(
    seat: Seat, limit: Limit = 20, order: Order = "desc", after: Cursor = None, before: Cursor = None
) -> VectorStoreList:
    """The caller's, newest first."""
    page = seat.workspace.objects.page(
        VECTOR_STORE, principals=seat.workspace.principals, limit=limit, order=order, after=after, before=before
    )
    return VectorStoreList(data=[_store(one, seat) for one in page.data], **ends_of(page))


@router.get("/{vector_store_id}", response_model=VectorStoreObject)
def retrieve_vector_store(vector_store_id: str, seat: Seat) -> VectorStoreObject:
    """One of them."""
    return _store(seat.workspace.vector_store(vector_store_id), seat)


@router.post("/{vector_store_id}", response_model=VectorStoreObject)
def change_vector_store(vector_store_id: str, body: ChangedVectorStore, seat: EditorSeat) -> VectorStoreObject:
    """Give it another name, other metadata, another expiry."""
    found = seat.workspace.vector_store(vector_store_id)
    changed = dict(found.body)
    if body.name is not None:
        changed["name"] = body.name
    if body.metadata is not None:
        changed["metadata"] = body.metadata
    if "expires_after" in body.model_fields_set:
        changed["expires_after_days"] = None if body.expires_after is None else body.expires_after.days
    principals = seat.workspace.principals
    return _store(seat.workspace.objects.change(VECTOR_STORE, found.id, changed, principals=principals), seat)


@router.delete("/{vector_store_id}", response_model=Deleted)
def delete_vector_store(vector_store_id: str, seat: EditorSeat) -> Deleted:
    """Remove it; the uploaded files stay."""
    return Deleted(id=seat.workspace.remove_vector_store(vector_store_id).id, object="vector_store.deleted")


@router.post("/{vector_store_id}/search", response_model=SearchPage)
async def search_vector_store(vector_store_id: str, body: VectorSearch, request: Request, seat: Seat) -> SearchPage:
    """The passages that bear on a question, best first."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    options = body.ranking_options
    try:
        keep = test_of(body.filters)
    except ValueError as error:
        raise UsageError(str(error), fix='{"type": "and", "filters": [...]} with fewer inside each other') from error

    def find(_: Any) -> list[Found]:
        return seat.workspace.search_vector_store(
            vector_store_id,
            queries,
            k=body.max_num_results,
            keep=keep,
            least_score=0.0 if options is None else options.score_threshold,
        )

    found = await finished(request, seat.lookups.start(find))
    return SearchPage(search_query=queries, data=[_hit(one) for one in found])


@router.post("/{vector_store_id}/files", response_model=MemberObject)
async def create_member(vector_store_id: str, body: NewMember, request: Request, seat: EditorSeat) -> MemberObject:
    """Put an uploaded file in; its status tells when it can be found."""

    def attach(_: Any) -> Stored:
        return seat.workspace.attach_file(vector_store_id, body.file_id, attributes=body.attributes)

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


@router.post("/{vector_store_id}/file_batches", response_model=BatchObject)
async def create_batch(vector_store_id: str, body: NewBatch, request: Request, seat: EditorSeat) -> BatchObject:
    """Put several uploaded files in."""
    files = list(dict.fromkeys(body.file_ids))

    def attach(_: Any) -> Stored:
        owner = seat.workspace.vector_store(vector_store_id)
        for file in files:
            seat.workspace.attach_file(vector_store_id, file, attributes=body.attributes)
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
    page = seat.workspace.objects.page(
        MEMBER,
        principals=seat.workspace.principals,
        parent=store,
        limit=limit,
        order=order,
        after=None if after is None else f"{store}/{after}",
        before=None if before is None else f"{store}/{before}",
    )
    shown = [_member(one) for one in page.data if status in (None, one.body["status"])]
    return MemberList(data=[one for one in shown if among is None or one.id in among], **ends_of(page))


def _batch_of(store: str, batch: str, seat: Serving) -> Stored:
    seat.workspace.vector_store(store)
    return seat.workspace.objects.get(BATCH, batch, principals=seat.workspace.principals)


def _store(stored: Stored, seat: Serving) -> VectorStoreObject:
    members = seat.workspace.vector_store_files(stored.id)
    counts, body = _counts(members), stored.body
    days = body["expires_after_days"]
    return VectorStoreObject(
        id=stored.id,
        created_at=stored.created_at,
        name=body["name"],
        usage_bytes=sum(one.body["usage_bytes"] for one in members),
        file_counts=counts,
        status="in_progress" if counts.in_progress else "completed",
        expires_after=None if days is None else {"anchor": "last_active_at", "days": days},
        expires_at=None if days is None else body["last_active_at"] + 86_400 * days,
        last_active_at=min(body["last_active_at"], int(time.time())),
        metadata=body["metadata"],
    )


def _counts(members: list[Stored]) -> FileCounts:
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
    )


def _batch(stored: Stored, seat: Serving) -> BatchObject:
    store, files = str(stored.parent), set(stored.body["files"])
    members = [one for one in seat.workspace.vector_store_files(store) if one.id.rpartition("/")[2] in files]
    counts = _counts(members)
    return BatchObject(
        id=stored.id,
        created_at=stored.created_at,
        vector_store_id=store,
        status="in_progress" if counts.in_progress else "completed",
        file_counts=counts,
    )


def _hit(found: Found) -> SearchHit:
    hit = found.hit
    return SearchHit(
        file_id=found.file_id,
        filename=found.filename,
        score=hit.score,
        attributes=dict(found.attributes),
        content=[ContentPart(text=hit.text)],
        graft=GraftRange(
            document_id=hit.document_id, version=hit.version, start=hit.start, end=hit.end, page=hit.page
        ),
    )
