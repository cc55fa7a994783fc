"""The truth's sequence -> indexes that have caught up with it, before every search.

A search asks for the database's sequence (some 20 microseconds). Only where it has moved does one thread of
one process, under the index's lock, read the documents that changed and hand their rows to the index; the
others wait for it and then open the result. What is damaged or missing is built anew from the truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, select

from graft.errors import IndexCorrupt
from graft.store.database import Database
from graft.store.index_state import drop_state, index_lock
from graft.store.tables import chunks, documents, sequence, vectors
from graft.store.text_index import TextIndex, TextRow
from graft.store.vector_index import VectorIndex, VectorRows

Ids = NDArray[np.int64]
_DOCUMENTS_AT_ONCE = 200


class _Index(Protocol):
    @property
    def sequence(self) -> int: ...
    def lock(self) -> AbstractContextManager[None]: ...
    def load(self) -> None: ...
    def clear(self) -> None: ...


class Following:
    """The derived indexes of one database, in one folder of this machine."""

    def __init__(self, database: Database, folder: Path, *, rescore: int) -> None:
        self._database = database
        self._folder = folder
        self._rescore = rescore
        with database.reading() as connection:
            self._store: str = connection.execute(select(sequence.c.store)).scalar_one()
        self._text = TextIndex(folder / "text", store=self._store)
        self._vectors: dict[int, VectorIndex] = {}

    def text(self, at_least: int) -> TextIndex:
        """The text index, with every change up to `at_least`."""
        if self._text.sequence < at_least:
            self._catch_up(self._text, self._apply_text)
        return self._text

    def vectors(self, embedder_id: int, identity: str, dimensions: int, at_least: int) -> VectorIndex:
        """The index of one embedder's vectors, with every change up to `at_least`."""
        index = self._vectors.get(embedder_id)
        if index is None:
            digest = hashlib.sha256(f"{identity}\0{dimensions}".encode()).hexdigest()[:16]
            folder = self._folder / f"vectors-{digest}"
            index = VectorIndex(folder, dimensions=dimensions, store=self._store, rescore=self._rescore)
            index = self._vectors.setdefault(embedder_id, index)
        if index.sequence < at_least:
            follower = index

            def apply(connection: Connection, since: int, now: int) -> None:
                changed = _changed(connection, since)
                follower.apply(sequence=now, changed=changed, rows=_vector_rows(connection, changed, embedder_id))

            self._catch_up(index, apply)
        return index

    def repair_text(self) -> None:
        """Empty the damaged text index, so that the next look at it builds it from the truth."""
        with self._database.explained(), self._text.lock():
            self._text.clear()

    def differences(self) -> list[str]:
        """Where an index in use holds other chunks than the truth, in words."""
        with self._database.reading() as connection:
            truth = {"the text index": set(connection.execute(select(chunks.c.id)).scalars())}
            held = {"the text index": set(self._text.chunk_ids().tolist())}
            for key, index in self._vectors.items():
                name = f"the vector index of embedder {key}"
                ids = select(vectors.c.chunk_id).where(vectors.c.embedder_id == key)
                truth[name] = set(connection.execute(ids).scalars())
                held[name] = set(index.chunk_ids().tolist())
        return [
            f"{name} lacks {len(truth[name] - held[name])} chunks and has {len(held[name] - truth[name])} too many"
            for name in truth
            if truth[name] != held[name]
        ]

    def rebuild(self) -> None:
        """Forget all derived data here; every process builds it from the truth at its next search."""
        with self._database.explained():
            for folder in self._folder.glob("*"):
                with index_lock(folder):
                    drop_state(folder)
            with self._database.writing():  # a new sequence makes every open process look again
                pass
        self._vectors.clear()

    def _apply_text(self, connection: Connection, since: int, now: int) -> None:
        changed = _changed(connection, since)
        self._text.apply(sequence=now, changed=changed, rows=_text_rows(connection, changed))

    def _catch_up(self, index: _Index, apply: Callable[[Connection, int, int], None]) -> None:
        with self._database.explained(), index.lock():
            try:
                index.load()  # another process may have done the work
            except IndexCorrupt:
                index.clear()
            with self._database.reading() as connection:
                now: int = connection.execute(select(sequence.c.value)).scalar_one()
                if index.sequence > now:  # the database was restored from a backup
                    index.clear()
                if index.sequence == now:
                    return
                try:
                    apply(connection, index.sequence, now)
                except IndexCorrupt:
                    index.clear()
                    apply(connection, 0, now)


def _changed(connection: Connection, since: int) -> Ids:
    keys = connection.execute(select(documents.c.key).where(documents.c.sequence > since)).scalars()
    return np.fromiter(keys, np.int64)


def _vector_rows(connection: Connection, changed: Ids, embedder_id: int) -> Iterator[VectorRows]:
    query = (
        select(chunks.c.id, documents.c.key, documents.c.scope_id, vectors.c.data)
        .join_from(documents, chunks, chunks.c.document_key == documents.c.key)
        .join(vectors, (vectors.c.chunk_id == chunks.c.id) & (vectors.c.embedder_id == embedder_id))
    )
    for rows in _parts(connection, query, changed):
        ids, keys, scopes, data = zip(*rows, strict=True)
        yield VectorRows(
            np.array(ids, np.int64),
            np.array(keys, np.int64),
            np.array(scopes, np.int32),
            np.frombuffer(b"".join(data), "<f4").reshape(len(rows), -1),
        )


def _text_rows(connection: Connection, changed: Ids) -> Iterator[TextRow]:
    query = select(chunks.c.id, documents.c.key, documents.c.scope_id, chunks.c.context, chunks.c.text).join_from(
        documents, chunks, chunks.c.document_key == documents.c.key
    )
    for rows in _parts(connection, query, changed):
        for chunk, document, scope, context, text in rows:
            yield TextRow(chunk, document, scope, context, text)


def _parts(connection: Connection, query: Select[Any], changed: Ids) -> Iterator[Sequence[Any]]:
    """Rows of some documents at a time: bounded memory, and SQLite looks them up instead of scanning."""
    for start in range(0, len(changed), _DOCUMENTS_AT_ONCE):
        part = changed[start : start + _DOCUMENTS_AT_ONCE].tolist()
        if rows := connection.execute(query.where(chunks.c.document_key.in_(part))).all():
            yield rows
