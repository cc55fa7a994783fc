"""question -> hits: embed, search by meaning and by words under the same filter, fuse, join neighbours.

It does not know models, prompts or how the indexes work.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from graft.access import Principals
from graft.embedding import Embedder
from graft.errors import NotFound, UsageError
from graft.settings import RetrievalSettings
from graft.store import ChunkRecord, Filter, Store
from graft.tracing import span

MOST_JOINED = 3
"""Neighbouring chunks in one hit: more would fill a prompt with one place."""

K = TypeVar("K", bound=Hashable)

MOST_HITS = 1_000
"""More than any reader or prompt takes; keeps one request from reading the whole store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that bears on the question.

    Attributes:
        document: Path within its source, or URL: the name people know it by.
        document_id, version: What a citation names, with the range.
        start, end: Range in that version's text; `text` is exactly that range.
        context: Title, heading path and table header over the range; not part of it.
        score: Fused, from 0 to 1 within this search; greater is better.
        similarity: Cosine of the question and the passage; 0 where only words matched.
    """

    document: str
    document_id: str
    version: int
    collection: str
    title: str
    start: int
    end: int
    page: int | None
    text: str
    context: str
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class SearchLatency:
    """Milliseconds of each part. Nothing is reranked by default."""

    embed: float
    search: float
    rerank: float
    total: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first."""

    hits: tuple[Hit, ...]
    latency_ms: SearchLatency


def fuse_scores(dense: Mapping[K, float], sparse: Mapping[K, float], *, dense_weight: float) -> list[tuple[K, float]]:
    """Merge two searches: weight * minmax(dense) + (1 - weight) * minmax(sparse).

    Args:
        dense, sparse: Score of each item found; what one of them did not find gets its minimum, 0.
        dense_weight: From 0 to 1.
    Returns: All items with fused scores from 0 to 1, best first; ties keep first-seen order.
    Source: Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023; on the
        development parts of three sets it beat reciprocal rank fusion (docs/lab-notes.md).

    >>> fuse_scores({"a": 0.9, "b": 0.5}, {"b": 12.0, "c": 4.0}, dense_weight=0.7)
    [('a', 0.7), ('b', 0.3), ('c', 0.0)]
    """
    scaled_dense, scaled_sparse = _min_max(dense), _min_max(sparse)
    fused = {
        key: round(dense_weight * scaled_dense.get(key, 0.0) + (1 - dense_weight) * scaled_sparse.get(key, 0.0), 12)
        for key in dict.fromkeys([*dense, *sparse])
    }
    return sorted(fused.items(), key=lambda item: -item[1])


def _min_max(scores: Mapping[K, float]) -> dict[K, float]:
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    return {key: (score - low) / (high - low) if high > low else 1.0 for key, score in scores.items()}


def search(
    question: str,
    *,
    store: Store,
    embedder: Embedder,
    principals: Principals,
    settings: RetrievalSettings,
    collections: tuple[str, ...] | None = None,
    documents: tuple[str, ...] | None = None,
    k: int | None = None,
    least_score: float = 0.0,
) -> SearchResult:
    """Find the passages that bear on a question, among those that the principals may read.

    Args:
        documents: Ids of the only ones to search in.
        least_score: Of a hit, from 0 to 1.
    Raises:
        UsageError: The question is blank or no text, or k is not from 1 to MOST_HITS.
        EmbedderMismatch: The vectors are another embedder's.
        NotFound: A named collection does not exist.
    """
    wanted = settings.top_k if k is None else k
    check_is_text(question)
    if not question.strip():
        raise UsageError("the question is empty", fix='graft search "your question"')
    if not 1 <= wanted <= MOST_HITS:
        raise UsageError(f"k = {wanted} is not from 1 to {MOST_HITS}", fix="pass -k 10")
    began = time.perf_counter()
    with span("search", {"gen_ai.operation.name": "retrieval", "graft.k": wanted}) as step:
        with span("embed", {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": embedder.identity}):
            vector = embedder.embed([question])[0]
        embedded = time.perf_counter()
        within = Filter(principals, collections, documents)
        candidates = max(settings.candidates, 2 * wanted)
        with span("vectors", {"graft.candidates": candidates}):
            found = store.search_vectors(vector, candidates, within, embedder=embedder.identity)
            dense = {s.chunk_id: s.score for s in found}
        with span("words", {"graft.candidates": candidates}):
            sparse = {s.chunk_id: s.score for s in store.search_text(question, candidates, within)}
        with span("fuse", {"graft.from_vectors": len(dense), "graft.from_words": len(sparse)}):
            fused = fuse_scores(dense, sparse, dense_weight=settings.dense_weight)
            hits = _hits(fused, dense, store=store, principals=principals, settings=settings, wanted=wanted)
        step.set({"graft.hits": len(hits), "graft.collections": collections or ()})  # by now known to exist
    ended = time.perf_counter()
    return SearchResult(
        hits=tuple(hit for hit in hits if hit.score >= least_score),
        latency_ms=SearchLatency(
            embed=round((embedded - began) * 1e3, 3),
            search=round((ended - embedded) * 1e3, 3),
            rerank=0.0,
            total=round((ended - began) * 1e3, 3),
        ),
    )


def check_is_text(question: str) -> None:
    """Raises:
    UsageError: The question holds half of a surrogate pair: bytes of another encoding, as Python keeps them.
    """
    try:
        question.encode()
    except UnicodeEncodeError as error:
        shown = question[max(0, error.start - 20) : error.end + 20]
        raise UsageError(
            f"the question is not text in UTF-8: ...{shown!r}...", fix="type it anew, or convert it with iconv"
        ) from error


def _hits(
    fused: Sequence[tuple[int, float]],
    dense: Mapping[int, float],
    *,
    store: Store,
    principals: Principals,
    settings: RetrievalSettings,
    wanted: int,
) -> list[Hit]:
    """The best `wanted` hits; adjacent chunks of one document among the candidates fetched become one."""
    scores = dict(fused[: 3 * wanted if settings.merge_neighbours else wanted])
    groups: list[list[ChunkRecord]] = []
    places: dict[tuple[str, int], list[ChunkRecord]] = {}  # (document, ordinal) -> its group
    for number, record in enumerate(store.chunks(list(scores), principals=principals)):
        if len(groups) == wanted and number >= wanted + wanted // 2:
            break  # a neighbour that fits much worse adds nothing
        beside = _beside(record, places) if settings.merge_neighbours else None
        if beside is None and len(groups) == wanted:
            continue
        if beside is None:
            beside = []
            groups.append(beside)
        beside.append(record)
        places[record.document_id, record.ordinal] = beside
    hits = []
    for group in groups:
        with suppress(NotFound):  # a document removed since its chunks were read
            hits.append(_hit(group, scores, dense, store, principals))
    return hits


def _beside(record: ChunkRecord, places: Mapping[tuple[str, int], list[ChunkRecord]]) -> list[ChunkRecord] | None:
    for ordinal in (record.ordinal - 1, record.ordinal + 1):
        group = places.get((record.document_id, ordinal))
        if group is not None and len(group) < MOST_JOINED and group[0].version == record.version:
            return group
    return None


def _hit(
    group: Sequence[ChunkRecord],
    scores: Mapping[int, float],
    dense: Mapping[int, float],
    store: Store,
    principals: Principals,
) -> Hit:
    """One hit over all ranges of a group and what lies between, with the best one's score."""
    first = min(group, key=lambda record: record.start)
    end = max(record.end for record in group)
    text = first.text
    if len(group) > 1:
        text = store.text_range(first.document_id, first.version, first.start, end, principals=principals)
    return Hit(
        document=first.uri,
        document_id=first.document_id,
        version=first.version,
        collection=first.collection,
        title=first.title,
        start=first.start,
        end=end,
        page=first.page,
        text=text,
        context=first.context,
        score=round(max(scores[record.id] for record in group), 6),
        similarity=round(max(0.0, *(dense.get(record.id, 0.0) for record in group)), 6),
    )
