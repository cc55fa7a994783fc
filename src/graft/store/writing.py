"""A batch + one open transaction -> changed rows; all of what a write means, none of how it is opened.

Every function is handed a connection inside `Database.writing` and the sequence number of that write. A
document that changes in any way gets the number, which is what makes the indexes read it again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, insert, select, update

from graft.access import Principals
from graft.errors import NotFound, UsageError
from graft.store import tables as t
from graft.store.embedders import embedder_of_batch
from graft.store.encoding import (
    chunks_digest,
    encode_boxes,
    encode_pages,
    encode_principals,
    encode_vector,
)
from graft.store.reading_collections import no_document, readable
from graft.store.records import Batch, NewDocument, Touched, WriteResult
from graft.store.removing import forget_chunks, parts_of, remove_ids


@dataclass(slots=True)
class _Rows:
    """Rows gathered over a batch, written by one statement a table."""

    versions: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    vectors: list[dict[str, Any]] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


def check_batch(batch: Batch) -> None:
    """Raises:
    UsageError: A chunk is not its range of the text, a vector is missing or not finite, nobody may read.
    """
    identities = [(new.source_id, new.uri) for new in batch.documents]
    if len(set(identities)) < len(identities):
        raise UsageError("a batch has the same source and URI twice", fix="give each file once")
    for new in batch.documents:
        text = new.document.text
        if "\0" in text or not _is_unicode(text):
            raise UsageError(
                f"{new.uri}: the text holds a NUL or half of a surrogate pair, which no database keeps",
                fix="report it: the reader must replace them",
            )
        wrong = next((c for c in new.chunks if text[c.start : c.end] != c.text or c.start >= c.end), None)
        if wrong is not None:
            raise UsageError(
                f"{new.uri}: a chunk's text is not characters {wrong.start} to {wrong.end} of the document",
                fix="report it: the chunker broke its contract",
            )
        shape = np.shape(new.vectors)
        if len(shape) != 2 or shape[0] != len(new.chunks) or not np.isfinite(new.vectors).all():
            raise UsageError(
                f"{new.uri}: {len(new.chunks)} chunks have vectors of shape {shape}, or not all are finite",
                fix="report it: the embedder broke its contract",
            )
        if batch.embedder is None:
            raise UsageError("a batch with documents names its embedder", fix="Batch(embedder=...)")
    for granted in [new.principals for new in batch.documents] + list(batch.access.values()):
        if not granted:
            raise UsageError("a document is granted to nobody", fix="--access PRINCIPAL")


def batch_bytes(batch: Batch) -> int:
    """About what the batch adds to the database: text twice, vectors, boxes compressed; and the same in the log."""
    return 2 * sum(
        2 * len(new.document.text.encode()) + np.asarray(new.vectors).nbytes + len(new.document.text)
        for new in batch.documents
    )


def apply_batch(
    connection: Connection, number: int, batch: Batch, collection: Row[Any], who: Principals
) -> WriteResult:
    """Make the database as `batch` says; a batch already applied changes nothing.

    Raises:
        NotFound: A document to remove or to grant does not exist, or `who` may not read it.
        EmbedderMismatch: The collection's vectors are another embedder's.
    """
    _check_sources(connection, batch, collection)
    embedder_id = embedder_of_batch(connection, batch, collection)
    existing = _existing(connection, batch.documents)
    first_document, first_chunk = _reserve_keys(connection, batch)
    rows = _Rows()
    for offset, new in enumerate(batch.documents):
        scope_id = scope_of(connection, collection.id, new.principals)
        old = existing.get((new.source_id, new.uri))
        first = first_chunk + len(rows.chunks)
        _put(connection, number, rows, new, old, collection, scope_id, first_document + offset, first, embedder_id)
    for table, gathered in ((t.versions, rows.versions), (t.chunks, rows.chunks), (t.vectors, rows.vectors)):
        if gathered:
            connection.execute(insert(table), gathered)
    removed = remove_ids(connection, number, collection.name, batch.removed, who, reason=t.TAKEN_OUT)
    removed += remove_ids(connection, number, collection.name, batch.vanished, who, reason=t.VANISHED)
    _grant(connection, number, collection, batch, who)
    _touch(connection, batch.touched, collection.name, who)
    return WriteResult(
        sequence=number,
        added=tuple(rows.added),
        updated=tuple(rows.updated),
        unchanged=tuple(rows.unchanged),
        removed=tuple(removed),
        chunks=len(rows.chunks),
    )


def scope_of(connection: Connection, collection_id: int, principals: Principals) -> int:
    """The id of this set of readers in this collection, made where it is new."""
    saved = encode_principals(principals)
    where = (t.scopes.c.collection_id == collection_id) & (t.scopes.c.principals == saved)
    found = connection.execute(select(t.scopes.c.id).where(where)).scalar()
    if found is not None:
        return int(found)
    values = {"collection_id": collection_id, "principals": saved}
    scope_id = int(connection.execute(insert(t.scopes).values(values).returning(t.scopes.c.id)).scalar_one())
    connection.execute(insert(t.grants), [{"principal": p, "scope_id": scope_id} for p in sorted(principals)])
    return scope_id


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _existing(connection: Connection, new: Sequence[NewDocument]) -> dict[tuple[int, str], Row[Any]]:
    by_source: dict[int, list[str]] = {}
    for document in new:
        by_source.setdefault(document.source_id, []).append(document.uri)
    columns = (*t.documents.c, t.versions.c.text_sha256, t.versions.c.title.label("version_title"))
    joined = t.documents.outerjoin(
        t.versions,
        (t.versions.c.document_key == t.documents.c.key) & (t.versions.c.number == t.documents.c.version),
    )
    found = {}
    for source_id, uris in by_source.items():
        for part in parts_of(uris):
            where = (t.documents.c.source_id == source_id) & t.documents.c.uri.in_(part)
            for row in connection.execute(select(*columns).select_from(joined).where(where)):
                found[(row.source_id, row.uri)] = row
    return found


def _reserve_keys(connection: Connection, batch: Batch) -> tuple[int, int]:
    """The first of as many document keys and chunk ids as the batch can need."""
    documents, chunks = len(batch.documents), sum(len(new.chunks) for new in batch.documents)
    last = connection.execute(
        update(t.sequence)
        .values(last_document=t.sequence.c.last_document + documents, last_chunk=t.sequence.c.last_chunk + chunks)
        .returning(t.sequence.c.last_document, t.sequence.c.last_chunk)
    ).one()
    return last.last_document - documents + 1, last.last_chunk - chunks + 1


def _put(
    connection: Connection,
    number: int,
    rows: _Rows,
    new: NewDocument,
    old: Row[Any] | None,
    collection: Row[Any],
    scope_id: int,
    key: int,
    first_chunk: int,
    embedder: int,
) -> None:
    """Add, replace, cut anew or leave one document."""
    text_sha256 = hashlib.sha256(new.document.text.encode()).hexdigest()
    cut = chunks_digest(new.chunks)
    values: dict[str, Any] = {
        "title": new.title,
        "scope_id": scope_id,
        "source_sha256": new.source_sha256,
        "chunks_sha256": cut,
        "size": new.size,
        "mtime_ns": new.mtime_ns,
        "chunks": len(new.chunks),
        "removed": t.THERE,
        "fingerprint": new.fingerprint,
        "etag": new.etag,
        "last_modified": new.last_modified,
    }
    if old is None:
        name, version = f"doc_{secrets.token_hex(8)}", 1
        values |= {"key": key, "id": name, "collection": collection.name, "source_id": new.source_id}
        values |= {"uri": new.uri, "version": 1, "sequence": number, "added_at": now()}
        connection.execute(insert(t.documents).values(values))
        rows.added.append(name)
    else:
        key, name, version = old.key, old.id, old.version
        same_text = not old.removed and old.source_sha256 == new.source_sha256 and old.text_sha256 == text_sha256
        same_cut = same_text and old.chunks_sha256 == cut
        same = same_cut and old.fingerprint == new.fingerprint
        if not same_cut or old.scope_id != scope_id:
            values["sequence"] = number
        if not same_text:
            version += 1
        connection.execute(update(t.documents).where(t.documents.c.key == key).values(version=version, **values))
        (rows.unchanged if same else rows.added if old.removed else rows.updated).append(name)
        if same_text and not same:  # another reader may know more of the same text: its pages, its boxes
            this = (t.versions.c.document_key == key) & (t.versions.c.number == version)
            connection.execute(update(t.versions).where(this).values(_about_text(new)))
        if same_cut:
            return
        forget_chunks(connection, [key])
        if same_text:
            rows.chunks += _chunk_rows(new, key, version, first_chunk)
            rows.vectors += _vector_rows(new, first_chunk, embedder)
            return
        past = (t.versions.c.document_key == key) & (t.versions.c.number == old.version)
        connection.execute(update(t.versions).where(past).values(superseded_sequence=number))
    rows.versions.append(_version_row(new, key, version, number, text_sha256))
    rows.chunks += _chunk_rows(new, key, version, first_chunk)
    rows.vectors += _vector_rows(new, first_chunk, embedder)


def _version_row(new: NewDocument, key: int, version: int, number: int, text_sha256: str) -> dict[str, Any]:
    return _about_text(new) | {
        "document_key": key,
        "number": version,
        "source_sha256": new.source_sha256,
        "text_sha256": text_sha256,
        "characters": len(new.document.text),
        "sequence": number,
        "text": new.document.text,
    }


def _about_text(new: NewDocument) -> dict[str, Any]:
    """What is known of a version's text, beside the text itself."""
    return {
        "title": new.title,
        "format": new.document.format,
        "pages": encode_pages(new.document.pages),
        "metadata": json.dumps(dict(new.document.metadata), ensure_ascii=False),
        "boxes": encode_boxes(new.document.boxes),
    }


def _chunk_rows(new: NewDocument, key: int, version: int, first: int) -> list[dict[str, Any]]:
    return [
        {
            "id": first + ordinal,
            "document_key": key,
            "version": version,
            "ordinal": ordinal,
            "start": chunk.start,
            "end": chunk.end,
            "page": chunk.page,
            "context": chunk.context,
            "text": chunk.text,
        }
        for ordinal, chunk in enumerate(new.chunks)
    ]


def _vector_rows(new: NewDocument, first: int, embedder: int) -> list[dict[str, Any]]:
    return [
        {"chunk_id": first + ordinal, "embedder_id": embedder, "data": encode_vector(vector)}
        for ordinal, vector in enumerate(np.asarray(new.vectors))
    ]


def _grant(connection: Connection, number: int, collection: Row[Any], batch: Batch, who: Principals) -> None:
    for name, principals in batch.access.items():
        scope_id = scope_of(connection, collection.id, principals)
        which = (t.documents.c.id == name) & (t.documents.c.collection == collection.name) & readable(who)
        if (
            connection.execute(select(t.documents.c.key).where(which, t.documents.c.removed == t.THERE)).first()
            is None
        ):
            raise no_document(name)
        connection.execute(
            update(t.documents)
            .where(which, t.documents.c.scope_id != scope_id)
            .values(scope_id=scope_id, sequence=number)
        )


def _check_sources(connection: Connection, batch: Batch, collection: Row[Any]) -> None:
    """Raises:
    NotFound: A document's source is not one of this collection: it may be another tenant's.
    """
    wanted = {new.source_id for new in batch.documents}
    own = set(connection.execute(select(t.sources.c.id).where(t.sources.c.collection_id == collection.id)).scalars())
    if foreign := wanted - own:
        raise NotFound(
            f"collection {collection.name!r} has no source {min(foreign)}", fix="add the file or folder to it first"
        )


def _touch(connection: Connection, touched: Sequence[Touched], collection: str, who: Principals) -> None:
    for one in touched:
        connection.execute(
            update(t.documents)
            .where(
                t.documents.c.id == one.document_id,
                t.documents.c.removed == t.THERE,
                t.documents.c.collection == collection,
                readable(who),
            )
            .values(size=one.size, mtime_ns=one.mtime_ns, etag=one.etag, last_modified=one.last_modified)
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
