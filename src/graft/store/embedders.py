"""Embedders and their vectors + one open transaction -> vectors of one embedder in use, never of two mixed.

It does not know how vectors are made, or what a document is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from graft.access import Principals, may_read
from graft.embedding.protocol import Vectors
from graft.errors import EmbedderMismatch, StoreError, UsageError
from graft.store import tables as t
from graft.store.encoding import decode_principals, encode_vector
from graft.store.records import Batch

_AT_ONCE = 500  # ids in one statement; SQLite takes 32,766 values, PostgreSQL 65,535


def check_vectors(chunk_ids: Sequence[int], vectors: Vectors) -> None:
    """Raises:
    UsageError: Not one finite row for each chunk.
    """
    if vectors.ndim != 2 or len(chunk_ids) != len(vectors) or not np.isfinite(vectors).all():
        raise UsageError(
            f"{len(chunk_ids)} chunks have vectors of shape {vectors.shape}, or not all are finite",
            fix="report it: the embedder broke its contract",
        )


def embedder_of_batch(connection: Connection, batch: Batch, collection: Row[Any]) -> int:
    """The id of the batch's embedder, which must be the collection's; an unused collection takes it on.

    Raises:
        EmbedderMismatch: The collection has another one's vectors.
    """
    sized = next((np.shape(new.vectors)[1] for new in batch.documents if len(new.chunks)), None)
    if batch.embedder is None or sized is None:
        return 0
    if collection.identity is not None and collection.identity != batch.embedder:
        raise EmbedderMismatch(
            f"collection {collection.name!r} was embedded by {collection.identity}, these vectors are of "
            f"{batch.embedder}; they cannot be compared",
            fix=f"graft collections reembed {collection.name}",
        )
    if any(np.shape(new.vectors)[1] != sized for new in batch.documents if len(new.chunks)):
        raise UsageError("vectors of one batch differ in length", fix="report it: the embedder broke its contract")
    found = _embedder_id(connection, batch.embedder, sized)
    if collection.identity is None:
        connection.execute(update(t.collections).where(t.collections.c.id == collection.id).values(embedder_id=found))
    return found


def without_vectors(collection: str, embedder: str) -> Select[tuple[int, str, str]]:
    """The query for a collection's chunks (id, context, text) that have no vector of `embedder`."""
    known = select(t.embedders.c.id).where(t.embedders.c.identity == embedder).scalar_subquery()
    has = select(t.vectors.c.chunk_id).where(t.vectors.c.chunk_id == t.chunks.c.id, t.vectors.c.embedder_id == known)
    return (
        select(t.chunks.c.id, t.chunks.c.context, t.chunks.c.text)
        .join(t.documents, t.documents.c.key == t.chunks.c.document_key)
        .where(t.documents.c.collection == collection, ~has.exists())
    )


def put_vectors(
    connection: Connection, embedder: str, chunk_ids: Sequence[int], rows: Vectors, who: Principals
) -> None:
    """Add or replace one embedder's vectors of chunks in collections that are `who`'s to change.

    Raises:
        EmbedderMismatch: The embedder is known with another number of dimensions.
    """
    collections = connection.execute(select(t.collections.c.name, t.collections.c.principals))
    own = [row.name for row in collections if may_read(who, decode_principals(row.principals))]
    known = _embedder_id(connection, embedder, rows.shape[1])
    for start in range(0, len(chunk_ids), _AT_ONCE):
        part = list(chunk_ids[start : start + _AT_ONCE])
        # A document may have been replaced since the chunks were listed, and its collection be somebody else's.
        ours = set(
            connection.execute(
                select(t.chunks.c.id)
                .join(t.documents, t.documents.c.key == t.chunks.c.document_key)
                .where(t.chunks.c.id.in_(part), t.documents.c.collection.in_(own))
            ).scalars()
        )
        mine = t.vectors.c.chunk_id.in_(ours) & (t.vectors.c.embedder_id == known)
        connection.execute(delete(t.vectors).where(mine))
        new = [
            {"chunk_id": chunk, "embedder_id": known, "data": encode_vector(rows[start + i])}
            for i, chunk in enumerate(part)
            if chunk in ours
        ]
        if new:
            connection.execute(insert(t.vectors), new)


def switch_embedder(connection: Connection, number: int, collection: Row[Any], embedder: str) -> None:
    """Make `embedder` the collection's, drop others' vectors, and have the indexes read it all again.

    Raises:
        StoreError: Some chunks have no vector of it.
    """
    missing = without_vectors(collection.name, embedder).subquery()
    count = connection.execute(select(func.count()).select_from(missing)).scalar_one()
    if count:
        raise StoreError(
            f"{count} chunks of {collection.name!r} have no vector of {embedder} yet",
            fix=f"graft collections reembed {collection.name}",
        )
    chosen = connection.execute(select(t.embedders.c.id).where(t.embedders.c.identity == embedder)).scalar()
    if chosen is None:  # there are no chunks: the first batch brings its embedder
        connection.execute(update(t.collections).where(t.collections.c.id == collection.id).values(embedder_id=None))
        return
    mine = t.documents.c.collection == collection.name
    chunk_ids = select(t.chunks.c.id).join(t.documents, t.documents.c.key == t.chunks.c.document_key).where(mine)
    connection.execute(
        delete(t.vectors).where(t.vectors.c.chunk_id.in_(chunk_ids), t.vectors.c.embedder_id != chosen)
    )
    connection.execute(update(t.documents).where(mine, t.documents.c.removed == t.THERE).values(sequence=number))
    connection.execute(update(t.collections).where(t.collections.c.id == collection.id).values(embedder_id=chosen))


def _embedder_id(connection: Connection, identity: str, dimensions: int) -> int:
    """The id of an embedder, made where it is new."""
    found = connection.execute(select(t.embedders).where(t.embedders.c.identity == identity)).first()
    if found is None:
        values = {"identity": identity, "dimensions": dimensions}
        return int(connection.execute(insert(t.embedders).values(values).returning(t.embedders.c.id)).scalar_one())
    if found.dimensions != dimensions:
        raise EmbedderMismatch(
            f"vectors of {identity} have {dimensions} dimensions, those stored have {found.dimensions}",
            fix="give the changed embedder another identity, then graft collections reembed NAME",
        )
    return int(found.id)
