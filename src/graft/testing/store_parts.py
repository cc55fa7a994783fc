"""Small documents with known vectors -> what the store's contract writes and looks for.

It does not know how a store works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graft.access import Principals
from graft.chunking import Chunk
from graft.documents import Block, BlockKind, Document, Page
from graft.embedding.protocol import Vectors
from graft.store import Batch, Filter, NewDocument, Store

ANA, BEN, HR = frozenset({"user:ana"}), frozenset({"user:ben"}), frozenset({"group:hr"})
EMBEDDER = "test-embedder/1"
DIMENSIONS = 40  # not a multiple of 64, as an embedder's need not be


def vector_of(text: str, dimensions: int = DIMENSIONS) -> Vectors:
    """A unit vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def new_document(
    uri: str,
    paragraphs: Sequence[str],
    *,
    source_id: int,
    principals: Principals = ANA,
    context: str = "",
    dimensions: int = DIMENSIONS,
    with_boxes: bool = False,
    fingerprint: str = "",
    etag: str = "",
) -> NewDocument:
    """A document of these paragraphs, each a chunk on a page of its own."""
    text = "\n".join(paragraphs)
    starts = [sum(len(p) + 1 for p in paragraphs[:i]) for i in range(len(paragraphs))]
    ranges = [(start, start + len(p)) for start, p in zip(starts, paragraphs, strict=True)]
    boxes = np.arange(len(text) * 4, dtype=np.float32).reshape(-1, 4) % 700 / 1.3 if with_boxes else None
    if boxes is not None:
        boxes[[i for i, character in enumerate(text) if character == "\n"]] = np.nan
    document = Document(
        text=text,
        format="pdf" if with_boxes else "text",
        blocks=tuple(Block(start, end, BlockKind.PARAGRAPH) for start, end in ranges),
        pages=tuple(Page(i + 1, start, end, 612, 792) for i, (start, end) in enumerate(ranges)),
        boxes=boxes,
        metadata={"author": "Ana"},
    )
    chunks = [Chunk(a, b, text[a:b], context, i + 1) for i, (a, b) in enumerate(ranges)]
    vectors = [vector_of(chunk.text, dimensions) for chunk in chunks]
    return NewDocument(
        uri=uri,
        source_id=source_id,
        title=Path(uri).stem,
        principals=principals,
        document=document,
        source_sha256=hashlib.sha256(text.encode()).hexdigest(),
        size=len(text),
        mtime_ns=1,
        chunks=chunks,
        vectors=np.array(vectors, np.float32).reshape(len(chunks), dimensions),
        fingerprint=fingerprint,
        etag=etag,
    )


def collection_of(store: Store, name: str = "notes", *, principals: Principals = ANA) -> int:
    """A collection with one source; the source's id."""
    store.create_collection(name, principals=principals)
    return store.add_source(name, kind="folder", uri=f"/{name}", grant=principals, principals=principals).id


def batch_of(*documents: NewDocument, collection: str = "notes", embedder: str = EMBEDDER) -> Batch:
    return Batch(collection=collection, embedder=embedder, documents=documents)


def nearest_texts(store: Store, text: str, k: int, filter: Filter) -> list[str]:
    """Texts of the chunks nearest to the vector of `text`."""
    hits = store.search_vectors(vector_of(text), k, filter, embedder=EMBEDDER)
    return [c.text for c in store.chunks([h.chunk_id for h in hits], principals=filter.principals)]


def matching_texts(store: Store, words: str, k: int, filter: Filter) -> list[str]:
    """Texts of the chunks that BM25 finds for `words`."""
    hits = store.search_text(words, k, filter)
    return [c.text for c in store.chunks([h.chunk_id for h in hits], principals=filter.principals)]
