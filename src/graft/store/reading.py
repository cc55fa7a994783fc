"""Principals + what is asked for -> records. Every read of the truth passes `readable`, the one filter.

What does not exist and what these principals may not read give the same answer. It does not know how a
connection is opened or what a search is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, bindparam, func, select

from graft.access import Principals
from graft.documents import Boxes
from graft.embedding.protocol import Vectors
from graft.errors import NotFound, UsageError
from graft.store import tables as t
from graft.store.encoding import decode_boxes, decode_pages, decode_principals, decode_vector
from graft.store.reading_collections import (
    granted_scopes,
    no_document,
    readable,
    visible_collection,
    visible_collections,
)
from graft.store.records import ChunkRecord, DocumentRecord, VersionRecord

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class EmbedderUse:
    """A collection that a search would look into, and whose vectors it has."""

    collection: str
    embedder_id: int | None
    identity: str | None
    dimensions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What some principals may search.

    Attributes:
        sequence: The moment at which this was true.
        scopes: Ids of the scopes allowed, rising.
        everything: These were all the scopes there were.
    """

    sequence: int
    scopes: NDArray[np.int64]
    everything: bool
    collections: tuple[EmbedderUse, ...]


def list_documents(
    connection: Connection,
    who: Principals,
    *,
    collection: str | None,
    source_id: int | None,
    limit: int | None,
    offset: int,
) -> list[DocumentRecord]:
    query = _documents(who).order_by(t.documents.c.uri, t.documents.c.key).offset(offset)
    if collection is not None:
        visible_collection(connection, collection, who)
        query = query.where(t.documents.c.collection == collection)
    if source_id is not None:
        query = query.where(t.documents.c.source_id == source_id)
    if limit is not None:
        query = query.limit(limit)
    elif offset:
        query = query.limit(2**31)  # SQLite has no OFFSET without LIMIT
    return [_document_record(row) for row in connection.execute(query)]


def get_document(connection: Connection, name: str, who: Principals) -> DocumentRecord:
    row = connection.execute(_documents(who).where(t.documents.c.id == name)).first()
    if row is None:
        raise no_document(name)
    return _document_record(row)


def get_version(connection: Connection, name: str, number: int | None, who: Principals) -> VersionRecord:
    document = _known(connection, name, who)
    wanted = document.version if number is None else number
    if not 1 <= wanted <= document.version:
        raise NotFound(
            f"document {name!r} has no version {wanted}; its newest is {document.version}", fix="graft list"
        )
    row = connection.execute(
        select(*(c for c in t.versions.c if c.name != "boxes")).where(
            t.versions.c.document_key == document.key, t.versions.c.number == wanted
        )
    ).first()
    current = not document.removed and wanted == document.version
    return VersionRecord(
        document_id=name,
        collection=document.collection,
        uri=document.uri,
        number=wanted,
        state="removed" if row is None else "current" if current else "superseded",
        title=row.title if row else "",
        format=row.format if row else "",
        text=row.text if row else "",
        pages=decode_pages(row.pages) if row else (),
        metadata=json.loads(row.metadata) if row else {},
        source_sha256=row.source_sha256 if row else "",
        text_sha256=row.text_sha256 if row else "",
    )


def get_text_range(connection: Connection, name: str, number: int, start: int, end: int, who: Principals) -> str:
    text = connection.execute(
        select(func.substr(t.versions.c.text, start + 1, end - start))
        .join(t.documents, t.documents.c.key == t.versions.c.document_key)
        .where(t.documents.c.id == name, t.versions.c.number == number, readable(who))
    ).scalar()
    if text is None:
        raise no_document(name)
    found: str = text
    return found


def get_boxes(connection: Connection, name: str, number: int, start: int, end: int, who: Principals) -> Boxes | None:
    document = _known(connection, name, who)
    saved = connection.execute(
        select(t.versions.c.boxes).where(t.versions.c.document_key == document.key, t.versions.c.number == number)
    ).first()
    if saved is None or saved.boxes is None:
        return None
    boxes = decode_boxes(saved.boxes)
    if not 0 <= start <= end <= len(boxes):
        raise UsageError(
            f"characters {start} to {end} are not in the {len(boxes)} of {name!r} version {number}",
            fix="use a range of that version's text",
        )
    return boxes[start:end]


def get_chunks(connection: Connection, ids: Sequence[int], who: Principals) -> list[ChunkRecord]:
    """In the order of `ids`; those that are gone or not for `who` are left out."""
    found: dict[int, ChunkRecord] = {}
    for start in range(0, len(ids), _AT_ONCE):
        values = {"ids": ids[start : start + _AT_ONCE], "who": sorted(who)}
        found |= {row.id: _chunk_record(row) for row in connection.execute(_CHUNKS_BY_ID, values)}
    return [found[i] for i in ids if i in found]


def get_neighbours(
    connection: Connection, chunk_id: int, before: int, after: int, who: Principals
) -> list[ChunkRecord]:
    """The chunk with those around it, in order of the document; empty when it is gone or not for `who`."""
    middle = connection.execute(
        select(t.chunks.c.document_key, t.chunks.c.ordinal).where(t.chunks.c.id == chunk_id)
    ).first()
    if middle is None:
        return []
    query = _chunks().where(
        t.chunks.c.document_key == middle.document_key,
        t.chunks.c.ordinal.between(middle.ordinal - before, middle.ordinal + after),
        readable(who),
    )
    return [_chunk_record(row) for row in connection.execute(query.order_by(t.chunks.c.ordinal))]


def chunk_vectors(connection: Connection, name: str, who: Principals) -> dict[tuple[str, str], Vectors]:
    """Vectors of a document's chunks by (context, text), by its collection's embedder."""
    rows = connection.execute(
        select(t.chunks.c.context, t.chunks.c.text, t.vectors.c.data)
        .join_from(t.documents, t.chunks, t.chunks.c.document_key == t.documents.c.key)
        .join(t.collections, t.collections.c.name == t.documents.c.collection)
        .join(
            t.vectors,
            (t.vectors.c.chunk_id == t.chunks.c.id) & (t.vectors.c.embedder_id == t.collections.c.embedder_id),
        )
        .where(t.documents.c.id == name, readable(who))
    )
    return {(row.context, row.text): decode_vector(row.data) for row in rows}


def reach(connection: Connection, who: Principals, collections: Iterable[str] | None) -> Reach:
    """The scopes that a search by `who` in `collections` may look into.

    Raises:
        NotFound: A collection does not exist, or is not for `who`.
    """
    rows = visible_collections(connection, who)
    if collections is not None:
        rows = [visible_collection(connection, name, who) for name in dict.fromkeys(collections)]
    names = {row.id: row for row in rows}
    allowed = [
        row
        for row in connection.execute(
            select(t.scopes.c.id, t.scopes.c.collection_id).where(t.scopes.c.id.in_(granted_scopes(who)))
        )
        if row.collection_id in names
    ]
    uses = (names[key] for key in sorted({row.collection_id for row in allowed}))
    return Reach(
        sequence=connection.execute(select(t.sequence.c.value)).scalar_one(),
        scopes=np.array(sorted(row.id for row in allowed), np.int64),
        everything=len(allowed) == connection.execute(select(func.count()).select_from(t.scopes)).scalar_one(),
        collections=tuple(EmbedderUse(row.name, row.embedder_id, row.identity, row.dimensions) for row in uses),
    )


def document_keys(connection: Connection, names: Iterable[str], who: Principals) -> NDArray[np.int64]:
    """Keys of these documents; unknown ones and other people's are left out."""
    unique = list(dict.fromkeys(names))
    keys: list[int] = []
    for start in range(0, len(unique), _AT_ONCE):
        part = unique[start : start + _AT_ONCE]
        where = (t.documents.c.id.in_(part)) & (t.documents.c.removed == t.THERE) & readable(who)
        keys += connection.execute(select(t.documents.c.key).where(where)).scalars()
    return np.array(sorted(keys), np.int64)


def _known(connection: Connection, name: str, who: Principals) -> Row[Any]:
    """A document's row, also where only its tombstone is left."""
    row = connection.execute(select(t.documents).where(t.documents.c.id == name, readable(who))).first()
    if row is None:
        raise no_document(name)
    return row


def _documents(who: Principals) -> Any:
    return (
        select(t.documents, t.versions.c.format, t.versions.c.characters, t.scopes.c.principals)
        .join(
            t.versions,
            (t.versions.c.document_key == t.documents.c.key) & (t.versions.c.number == t.documents.c.version),
        )
        .join(t.scopes, t.scopes.c.id == t.documents.c.scope_id)
        .where(t.documents.c.removed == t.THERE, readable(who))
    )


def _document_record(row: Row[Any]) -> DocumentRecord:
    return DocumentRecord(
        id=row.id,
        collection=row.collection,
        source_id=row.source_id,
        uri=row.uri,
        title=row.title,
        format=row.format,
        version=row.version,
        principals=decode_principals(row.principals),
        source_sha256=row.source_sha256,
        size=row.size,
        mtime_ns=row.mtime_ns,
        characters=row.characters,
        chunks=row.chunks,
        added_at=row.added_at,
        fingerprint=row.fingerprint,
        etag=row.etag,
        last_modified=row.last_modified,
    )


def _chunks() -> Any:
    d = t.documents.c
    return select(t.chunks, d.id.label("document_id"), d.collection, d.uri, d.title).join(
        t.documents, t.documents.c.key == t.chunks.c.document_key
    )


def _chunk_record(row: Row[Any]) -> ChunkRecord:
    return ChunkRecord(
        id=row.id,
        document_id=row.document_id,
        version=row.version,
        collection=row.collection,
        uri=row.uri,
        title=row.title,
        ordinal=row.ordinal,
        start=row.start,
        end=row.end,
        text=row.text,
        context=row.context,
        page=row.page,
    )


# Part of every search, so made once: composing it takes longer than running it.
_CHUNKS_BY_ID = _chunks().where(
    t.chunks.c.id.in_(bindparam("ids", expanding=True)),
    t.documents.c.scope_id.in_(
        select(t.grants.c.scope_id).where(t.grants.c.principal.in_(bindparam("who", expanding=True)))
    ),
)
