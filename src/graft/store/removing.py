"""Which documents + one open transaction -> tombstones: rows that say "removed" and why, and nothing else.

What is removed loses its text, chunks and vectors at once; its row stays, so that a citation says what became
of it and a sync knows what somebody took out. It does not know who asks, but for documents named by id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select, update

from graft.access import Principals
from graft.store import tables as t
from graft.store.reading_collections import no_document, readable

_AT_ONCE = 500  # ids in one statement; SQLite takes 32,766 values, PostgreSQL 65,535


def remove_all(connection: Connection, number: int, which: ColumnElement[bool]) -> tuple[str, ...]:
    """Remove the documents `which` said, of whoever they are; the ids of those that were there."""
    alive = which & (t.documents.c.removed == t.THERE)
    removed = tuple(connection.execute(select(t.documents.c.id).where(alive)).scalars())
    _bury(connection, number, alive, t.TAKEN_OUT)
    return removed


def remove_ids(
    connection: Connection, number: int, collection: str, ids: Sequence[str], who: Principals, *, reason: int
) -> list[str]:
    """Remove documents of a collection for `reason`, TAKEN_OUT or VANISHED; the ids of those that were there.

    Raises:
        NotFound: One does not exist, or `who` may not read it.
    """
    removed: list[str] = []
    for part in parts_of(ids):
        which = t.documents.c.id.in_(part) & (t.documents.c.collection == collection) & readable(who)
        rows = connection.execute(select(t.documents.c.id, t.documents.c.removed).where(which))
        found = {row.id: row.removed for row in rows}
        missing = next((name for name in part if name not in found), None)
        if missing is not None:
            raise no_document(missing)
        removed += [name for name, gone in found.items() if not gone]
        _bury(connection, number, which & (t.documents.c.removed == t.THERE), reason)
        if reason == t.TAKEN_OUT:  # of one whose file had vanished: it shall not return either
            connection.execute(update(t.documents).where(which).values(removed=reason))
    return removed


def forget_chunks(connection: Connection, keys: Any) -> None:
    """Delete chunks and vectors of the documents with these keys (a list, or a query)."""
    mine = select(t.chunks.c.id).where(t.chunks.c.document_key.in_(keys))
    connection.execute(delete(t.vectors).where(t.vectors.c.chunk_id.in_(mine)))
    connection.execute(delete(t.chunks).where(t.chunks.c.document_key.in_(keys)))


def parts_of(names: Sequence[str]) -> Iterable[list[str]]:
    """Each name once, as many at a time as a statement takes."""
    unique = list(dict.fromkeys(names))
    return (unique[start : start + _AT_ONCE] for start in range(0, len(unique), _AT_ONCE))


def _bury(connection: Connection, number: int, which: ColumnElement[bool], reason: int) -> None:
    keys = select(t.documents.c.key).where(which)
    forget_chunks(connection, keys)
    connection.execute(delete(t.versions).where(t.versions.c.document_key.in_(keys)))
    nothing = dict.fromkeys(("title", "source_sha256", "chunks_sha256", "fingerprint", "etag", "last_modified"), "")
    connection.execute(
        update(t.documents).where(which).values(removed=reason, sequence=number, chunks=0, size=0, **nothing)
    )
