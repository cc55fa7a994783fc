"""GET /v1/models, POST /v1/embeddings, POST /v1/search: what is answered without a language model.

It does not know how models, vectors or hits come about.
"""

from __future__ import annotations

import base64

from fastapi import APIRouter, Request

from graft.server.answers import chat_model
from graft.server.authorising import Seat
from graft.server.failing import NoSuchModel, ParameterRefused
from graft.server.lanes import Tell, finished
from graft.server.replies import (
    Embedding,
    EmbeddingList,
    EmbeddingUsage,
    ModelList,
    ModelObject,
    ModelPart,
    SearchReply,
)
from graft.server.requests import EmbeddingRequest, SearchRequest
from graft.tracing import span
from graft.workspace import ModelListing, Workspace

router = APIRouter(prefix="/v1")


@router.get("/models", response_model=ModelList, tags=["models"])
async def list_models(request: Request, seat: Seat) -> ModelList:
    """The models whose weights are here, the hosted ones that were added, and the embedder."""
    return ModelList(data=await finished(request, seat.lookups.start(lambda _: _models(seat.workspace))))


@router.get("/models/{model:path}", response_model=ModelObject, tags=["models"])
async def retrieve_model(model: str, request: Request, seat: Seat) -> ModelObject:
    """One of them, or a hosted one as litellm/PROVIDER/MODEL."""

    def find(_: Tell) -> ModelObject:
        known = {listed.id: listed for listed in _models(seat.workspace)}
        if model in known:
            return known[model]
        chat_model(seat.workspace, model)
        part = ModelPart(kind="chat", licence="", context_tokens=None, size_bytes=None, about="hosted")
        return ModelObject(id=model, owned_by=model.split("/")[1], graft=part)

    return await finished(request, seat.lookups.start(find))


@router.post("/embeddings", response_model=EmbeddingList, tags=["embeddings"])
async def create_embeddings(body: EmbeddingRequest, request: Request, seat: Seat) -> EmbeddingList:
    """Vectors of texts, of unit length, by the embedder that the documents' own vectors are made with."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    return await finished(request, seat.lookups.start(lambda _: _embedded(seat.workspace, texts, body)))


@router.post("/search", response_model=SearchReply, tags=["search"])
async def search(body: SearchRequest, request: Request, seat: Seat) -> SearchReply:
    """The passages that bear on a question, best first."""

    def find(_: Tell) -> SearchReply:
        found = seat.workspace.search(body.query, k=body.k, collection=body.collection)
        return SearchReply(hits=list(found.hits), latency_ms=found.latency_ms)

    return await finished(request, seat.lookups.start(find))


def _models(workspace: Workspace) -> list[ModelObject]:
    embedder = workspace.settings.embedding.model
    listed = [m for m in workspace.models() if m.ready and (m.kind == "chat" or m.name == embedder)]
    objects = [_model(model) for model in listed]
    if embedder not in {model.name for model in listed}:  # a folder, or a hosted one
        part = ModelPart(kind="embedder", licence="", context_tokens=None, size_bytes=None, about="")
        objects.append(ModelObject(id=embedder, owned_by="graft", graft=part))
    return objects


def _model(listing: ModelListing) -> ModelObject:
    part = ModelPart(
        kind=listing.kind,
        licence=listing.licence,
        context_tokens=listing.context_tokens,
        size_bytes=listing.size_bytes,
        about=listing.about,
    )
    return ModelObject(id=listing.name, owned_by="graft", graft=part)


def _embedded(workspace: Workspace, texts: list[str], body: EmbeddingRequest) -> EmbeddingList:
    name = workspace.settings.embedding.model
    if body.model != name:
        raise NoSuchModel(f"no embedder named {body.model!r}; have {name}", fix=f"model={name!r}")
    embedder = workspace.embedder
    if body.dimensions not in (None, embedder.dimensions):
        raise ParameterRefused(
            f"{name} has {embedder.dimensions} dimensions", param="dimensions", fix="leave out dimensions"
        )
    counts = [len(embedder.token_offsets(text)) for text in texts]
    for number, count in enumerate(counts):
        if not 0 < count <= embedder.max_tokens:  # the rest of a longer text would have no part in the vector
            raise ParameterRefused(
                f"input[{number}] has {count:,} tokens; {name} takes 1 to {embedder.max_tokens:,}",
                param="input",
                fix="split the text",
                code="context_length_exceeded" if count else "invalid_value",
            )
    known = {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": embedder.identity}
    with span("embed", {**known, "gen_ai.usage.input_tokens": sum(counts)}):
        vectors = embedder.embed(texts).astype("<f4")
    as_text = body.encoding_format == "base64"
    data = [
        Embedding(
            index=number,
            embedding=base64.b64encode(vector.tobytes()).decode() if as_text else [float(value) for value in vector],
        )
        for number, vector in enumerate(vectors)
    ]
    return EmbeddingList(
        data=data, model=name, usage=EmbeddingUsage(prompt_tokens=sum(counts), total_tokens=sum(counts))
    )
