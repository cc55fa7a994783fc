"""/v1/vector_stores: make, search, change, remove. What is in one is the matter of `vector_store_files`."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from graft.errors import UsageError
from graft.objects import Order, Stored
from graft.server.authorising import EditorSeat, Seat, Serving
from graft.server.files import Cursor, Deleted, Limit, ends_of
from graft.server.lanes import finished
from graft.server.metering import write_down
from graft.server.vector_store_bodies import ChangedVectorStore, NewVectorStore, VectorSearch, sizes_of, test_of
from graft.server.vector_store_files import ContentPart, FileCounts, counts_of, read_later
from graft.workspace.vector_stores import VECTOR_STORE, Found

router = APIRouter(prefix="/v1/vector_stores", tags=["vector stores"])


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
            seat.workspace.attach_file(made.id, file, chunks=sizes_of(body.chunking_strategy))
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

    if body.rewrite_query:
        queries = await finished(request, seat.answers.start(lambda _: [_rewritten(seat, one) for one in queries]))
    found = await finished(request, seat.lookups.start(find))
    return SearchPage(search_query=queries, data=[_hit(one) for one in found])


def _store(stored: Stored, seat: Serving) -> VectorStoreObject:
    members = seat.workspace.vector_store_files(stored.id)
    counts, body = counts_of(members), stored.body
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


def _rewritten(seat: Serving, query: str) -> str:
    """Counted as an answer is."""
    seat.workspace.spending.require_quota(seat.caller)
    made = seat.workspace.search_query(query)
    if made.reply is not None:
        used, model = made.reply.usage, seat.workspace.settings.model.default
        write_down(seat, model, used.input_tokens, used.output_tokens, made.reply.cost_usd)
    return made.question


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
