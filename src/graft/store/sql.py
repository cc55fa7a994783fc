"""The store on a SQL database with its indexes in local files: opens transactions, hands the work on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, insert, select, text, update

from graft.access import Principals, may_read
from graft.documents import Boxes
from graft.embedding.protocol import Vectors
from graft.errors import AccessDenied, EmbedderMismatch, IndexCorrupt, NotFound, UsageError
from graft.settings import StoreSettings
from graft.store import embedders, reading, reading_collections, writing
from graft.store import tables as t
from graft.store.database import Database
from graft.store.encoding import decode_principals, encode_principals
from graft.store.following import Following
from graft.store.records import (
    Batch,
    ChunkRecord,
    CollectionRecord,
    DocumentRecord,
    Filter,
    Scored,
    SourceKind,
    SourceRecord,
    Unembedded,
    VersionRecord,
    WriteResult,
)
from graft.store.removing import remove_all


class SqlStore:
    """See `graft.store.protocol.Store`. For any number of threads and processes.

    Args:
        home: The workspace: holds the indexes, and the database unless `settings.url` names another. Made
            when something is added.
    Raises:
        StoreError: The database cannot be opened.
    """

    def __init__(self, home: Path, settings: StoreSettings | None = None) -> None:
        chosen = settings or StoreSettings()
        self.database = Database(chosen.url, home=home)
        self._index_folder, self._rescore = home / "index", chosen.rescore
        self._reaches: tuple[int, dict[tuple[Principals, tuple[str, ...] | None], reading.Reach]] = (-1, {})

    @cached_property
    def _following(self) -> Following:
        """The indexes; only of a database that exists."""
        return Following(self.database, self._index_folder, rescore=self._rescore)

    # Collections and sources

    def create_collection(
        self, name: str, *, principals: Principals, owners: Principals | None = None
    ) -> CollectionRecord:
        if not name.strip() or len(name) > 200 or not name.isprintable():
            raise UsageError(f"{name!r} cannot name a collection", fix="use 1 to 200 printable characters")
        with self.database.writing(makes=True) as (connection, _):
            saved = connection.execute(
                select(t.collections.c.principals).where(t.collections.c.name == name)
            ).scalar()
            if saved is not None and not may_read(principals, decode_principals(saved)):
                raise AccessDenied(f"the name {name!r} is taken", fix="choose another name")
            if saved is None:
                values = {
                    "name": name,
                    "principals": encode_principals(owners or principals),
                    "created_at": writing.now(),
                }
                connection.execute(insert(t.collections).values(values))
            return next(c for c in reading_collections.list_collections(connection, principals) if c.name == name)

    def collections(self, *, principals: Principals) -> list[CollectionRecord]:
        with self.database.reading() as connection:
            return reading_collections.list_collections(connection, principals)

    def remove_collection(self, name: str, *, principals: Principals) -> WriteResult:
        with self.database.writing() as (connection, number):
            row = reading_collections.own_collection(connection, name, principals)
            removed = remove_all(connection, number, t.documents.c.collection == name)
            connection.execute(delete(t.collections).where(t.collections.c.id == row.id))
        return WriteResult(sequence=number, removed=removed)

    def add_source(
        self, collection: str, *, kind: SourceKind, uri: str, grant: Principals, principals: Principals
    ) -> SourceRecord:
        with self.database.writing() as (connection, _):
            row = reading_collections.own_collection(connection, collection, principals)
            where = (t.sources.c.collection_id == row.id) & (t.sources.c.uri == uri)
            values = {"kind": kind, "principals": encode_principals(grant)}
            if connection.execute(update(t.sources).where(where).values(values)).rowcount == 0:
                values |= {"collection_id": row.id, "uri": uri, "created_at": writing.now()}
                connection.execute(insert(t.sources).values(values))
            everyone = principals | grant
            return next(s for s in reading_collections.list_sources(connection, collection, everyone) if s.uri == uri)

    def sources(self, collection: str, *, principals: Principals) -> list[SourceRecord]:
        with self.database.reading() as connection:
            return reading_collections.list_sources(connection, collection, principals)

    def mark_synced(self, source_id: int, *, principals: Principals) -> None:
        with self.database.writing() as (connection, _):
            reading_collections.own_source(connection, source_id, principals)
            connection.execute(update(t.sources).where(t.sources.c.id == source_id).values(last_sync=writing.now()))

    def remove_source(self, source_id: int, *, principals: Principals) -> WriteResult:
        with self.database.writing() as (connection, number):
            reading_collections.own_source(connection, source_id, principals)
            removed = remove_all(connection, number, t.documents.c.source_id == source_id)
            connection.execute(delete(t.sources).where(t.sources.c.id == source_id))
        return WriteResult(sequence=number, removed=removed)

    def removed_uris(self, source_id: int, *, principals: Principals) -> frozenset[str]:
        with self.database.reading() as connection:
            return reading_collections.removed_uris(connection, source_id, principals)

    # Documents

    def write(self, batch: Batch, *, principals: Principals) -> WriteResult:
        writing.check_batch(batch)
        with self.database.writing(needs_bytes=writing.batch_bytes(batch)) as (connection, number):
            row = reading_collections.own_collection(connection, batch.collection, principals)
            return writing.apply_batch(connection, number, batch, row, principals)

    def documents(
        self,
        collection: str | None = None,
        *,
        source_id: int | None = None,
        limit: int | None = None,
        offset: int = 0,
        principals: Principals,
    ) -> list[DocumentRecord]:
        with self.database.reading() as connection:
            return reading.list_documents(
                connection, principals, collection=collection, source_id=source_id, limit=limit, offset=offset
            )

    def document(self, document_id: str, *, principals: Principals) -> DocumentRecord:
        with self.database.reading() as connection:
            return reading.get_document(connection, document_id, principals)

    def version(self, document_id: str, number: int | None = None, *, principals: Principals) -> VersionRecord:
        with self.database.reading() as connection:
            return reading.get_version(connection, document_id, number, principals)

    def text_range(self, document_id: str, number: int, start: int, end: int, *, principals: Principals) -> str:
        with self.database.reading() as connection:
            return reading.get_text_range(connection, document_id, number, start, end, principals)

    def boxes(self, document_id: str, number: int, start: int, end: int, *, principals: Principals) -> Boxes | None:
        with self.database.reading() as connection:
            return reading.get_boxes(connection, document_id, number, start, end, principals)

    def chunks(self, chunk_ids: Sequence[int], *, principals: Principals) -> list[ChunkRecord]:
        with self.database.reading() as connection:
            return reading.get_chunks(connection, chunk_ids, principals)

    def neighbours(
        self, chunk_id: int, *, before: int = 1, after: int = 1, principals: Principals
    ) -> list[ChunkRecord]:
        with self.database.reading() as connection:
            return reading.get_neighbours(connection, chunk_id, before, after, principals)

    def chunk_vectors(self, document_id: str, *, principals: Principals) -> dict[tuple[str, str], Vectors]:
        with self.database.reading() as connection:
            return reading.chunk_vectors(connection, document_id, principals)

    # Searches

    def search_vectors(self, query: Vectors, k: int, filter: Filter, *, embedder: str) -> list[Scored]:
        number = self.database.current_sequence()
        reach = self._reach(number, filter)
        used = _one_embedder(reach, embedder)
        if used is None or used.embedder_id is None:
            return []
        if query.shape != (used.dimensions,) or not np.isfinite(query).all():
            raise UsageError(
                f"the query's vector has shape {query.shape} or is not finite; {embedder} has {used.dimensions}",
                fix="report it: the embedder broke its contract",
            )
        keys = self._document_keys(filter)
        index = self._following.vectors(used.embedder_id, embedder, int(used.dimensions or 0), number)
        return index.search(query.astype(np.float32), k, scopes=reach.scopes, documents=keys)

    def search_text(self, query: str, k: int, filter: Filter) -> list[Scored]:
        number = self.database.current_sequence()
        reach = self._reach(number, filter)
        if not len(reach.scopes):
            return []
        keys = self._document_keys(filter)
        until = reach.sequence if reach.everything else -1
        try:
            index = self._following.text(number)
            return index.search(query, k, scopes=reach.scopes, documents=keys, all_until=until)
        except IndexCorrupt:  # found only in use; what it was made from is whole
            self._following.repair_text()
            index = self._following.text(number)
            return index.search(query, k, scopes=reach.scopes, documents=keys, all_until=until)

    def follow(self) -> None:
        number = self.database.current_sequence()
        if not number:  # nothing was ever written; perhaps there is no database
            return
        self._following.text(number)
        with self.database.reading() as connection:
            used = select(t.collections.c.embedder_id)
            rows = connection.execute(select(t.embedders).where(t.embedders.c.id.in_(used))).all()
        for row in rows:
            self._following.vectors(row.id, row.identity, row.dimensions, number)

    def _reach(self, number: int, filter: Filter) -> reading.Reach:
        """What the filter allows, remembered until anything is written."""
        cached_at, reaches = self._reaches
        if cached_at != number:
            reaches = {}
            self._reaches = (number, reaches)
        key = (filter.principals, filter.collections)
        if key not in reaches:
            with self.database.reading() as connection:
                reaches[key] = reading.reach(connection, filter.principals, filter.collections)
        return reaches[key]

    def _document_keys(self, filter: Filter) -> NDArray[np.int64] | None:
        if filter.documents is None:
            return None
        with self.database.reading() as connection:
            return reading.document_keys(connection, filter.documents, filter.principals)

    # Another embedder

    def unembedded(self, collection: str, embedder: str, *, limit: int, principals: Principals) -> list[Unembedded]:
        with self.database.reading() as connection:
            reading_collections.own_collection(connection, collection, principals)
            rows = connection.execute(
                embedders.without_vectors(collection, embedder).order_by(t.chunks.c.id).limit(limit)
            )
            return [Unembedded(row.id, row.context, row.text) for row in rows]

    def put_vectors(
        self, embedder: str, chunk_ids: Sequence[int], vectors: Vectors, *, principals: Principals
    ) -> None:
        embedders.check_vectors(chunk_ids, vectors)
        with self.database.writing(needs_bytes=2 * vectors.nbytes) as (connection, _):
            embedders.put_vectors(connection, embedder, chunk_ids, vectors, principals)

    def switch_embedder(self, collection: str, embedder: str, *, principals: Principals) -> int:
        with self.database.writing() as (connection, number):
            row = reading_collections.own_collection(connection, collection, principals)
            embedders.switch_embedder(connection, number, row, embedder)
        return number

    def move_sources(self, before: str, now: str) -> int:
        with self.database.writing() as (connection, _):
            rows = connection.execute(select(t.sources.c.id, t.sources.c.uri)).all()
            moved = [(row.id, now + row.uri.removeprefix(before)) for row in rows if row.uri.startswith(f"{before}/")]
            for id, uri in moved:
                connection.execute(update(t.sources).where(t.sources.c.id == id).values(uri=uri))
        return len(moved)

    # Models

    def put_model(self, name: str, spec: Mapping[str, Any]) -> None:
        with self.database.writing(makes=True) as (connection, _):
            connection.execute(delete(t.models).where(t.models.c.name == name))
            connection.execute(insert(t.models).values(name=name, spec=json.dumps(dict(spec))))

    def model(self, name: str) -> dict[str, Any]:
        known = self.models()
        if name not in known:
            raise _no_model(name, known)
        return known[name]

    def models(self) -> dict[str, dict[str, Any]]:
        with self.database.reading() as connection:
            rows = connection.execute(select(t.models).order_by(t.models.c.name))
            return {row.name: json.loads(row.spec) for row in rows}

    def remove_model(self, name: str) -> None:
        known = self.models()
        with self.database.writing() as (connection, _):
            if connection.execute(delete(t.models).where(t.models.c.name == name)).rowcount == 0:
                raise _no_model(name, known)

    # Care

    def rebuild_indexes(self) -> None:
        if not self.database.exists:
            return
        self._following.rebuild()
        self.follow()

    def check(self) -> list[str]:
        if not self.database.current_sequence():
            return []
        problems = []
        with self.database.reading() as connection:
            if self.database.is_sqlite:
                found = connection.execute(text("PRAGMA quick_check")).scalars().all()
                problems += [f"{self.database.name}: {line}" for line in found if line != "ok"]
        if not problems:
            self.follow()
            problems += self._following.differences()
        return problems

    def close(self) -> None:
        self.database.close()


def _one_embedder(reach: reading.Reach, embedder: str) -> reading.EmbedderUse | None:
    """The use of `embedder` within reach; None where nothing is embedded there."""
    uses = [use for use in reach.collections if use.identity is not None]
    other = next((use for use in uses if use.identity != embedder), None)
    if other is not None:
        raise EmbedderMismatch(
            f"collection {other.collection!r} was embedded by {other.identity}, the question by {embedder}; "
            "they cannot be compared",
            fix=f"graft collections reembed {other.collection}, or name the collections to search",
        )
    return uses[0] if uses else None


def _no_model(name: str, known: Mapping[str, Any]) -> NotFound:
    return NotFound(f"no model named {name!r}; have {', '.join(known) or 'none'}", fix="graft models list")
