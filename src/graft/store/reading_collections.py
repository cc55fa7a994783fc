"""Principals + a connection -> the collections and sources they may see or change, and the filter on documents.

`readable` is the one condition that every read of documents carries. What does not exist and what these
principals may not know of give the same answer.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from graft.access import Principals, may_read
from graft.errors import AccessDenied, NotFound
from graft.store import tables as t
from graft.store.encoding import decode_principals
from graft.store.records import CollectionRecord, SourceRecord


def readable(who: Principals) -> ColumnElement[bool]:
    """The condition on `documents` under which `who` may know of it."""
    return t.documents.c.scope_id.in_(granted_scopes(who))


def no_document(name: str) -> NotFound:
    """The one answer for a document that is not there and for one that is somebody else's."""
    return NotFound(f"no document {name!r}", fix="graft list")


def own_collection(connection: Connection, name: str, who: Principals) -> Row[Any]:
    """A collection's row, for those who may change it: the principals it is granted to as a whole.

    Raises:
        NotFound: There is none, or nothing in it is for these principals.
        AccessDenied: They may only read documents in it.
    """
    row = visible_collection(connection, name, who)
    if not may_read(who, decode_principals(row.principals)):
        raise AccessDenied(
            f"collection {name!r} shares documents with you but is not yours to change",
            fix="ask its owner, or graft collections create NAME",
        )
    return row


def visible_collection(connection: Connection, name: str, who: Principals) -> Row[Any]:
    """A collection's row with its embedder's identity and dimensions.

    Raises:
        NotFound: There is none, or nothing in it is for these principals.
    """
    rows = visible_collections(connection, who)
    found = next((row for row in rows if row.name == name), None)
    if found is None:
        have = ", ".join(row.name for row in rows) or "none"
        raise NotFound(f"no collection named {name!r}; have {have}", fix="graft collections list")
    return found


def list_collections(connection: Connection, who: Principals) -> list[CollectionRecord]:
    counts = {
        row.collection: row
        for row in connection.execute(
            select(
                t.documents.c.collection,
                func.count().label("documents"),
                func.sum(t.documents.c.chunks).label("chunks"),
            )
            .where(readable(who), t.documents.c.removed == t.THERE)
            .group_by(t.documents.c.collection)
        )
    }
    return [
        CollectionRecord(
            name=row.name,
            embedder=row.identity,
            dimensions=row.dimensions,
            documents=counts[row.name].documents if row.name in counts else 0,
            chunks=int(counts[row.name].chunks) if row.name in counts else 0,
            created_at=row.created_at,
        )
        for row in visible_collections(connection, who)
    ]


def list_sources(connection: Connection, collection: str, who: Principals) -> list[SourceRecord]:
    row = visible_collection(connection, collection, who)
    found = connection.execute(select(t.sources).where(t.sources.c.collection_id == row.id).order_by(t.sources.c.id))
    records = (
        SourceRecord(
            id=source.id,
            collection=collection,
            kind=source.kind,
            uri=source.uri,
            principals=decode_principals(source.principals),
            created_at=source.created_at,
            last_sync=source.last_sync,
        )
        for source in found
    )
    return [record for record in records if may_read(who, record.principals)]


def own_source(connection: Connection, source_id: int, who: Principals) -> Row[Any]:
    """A source's row, for those who may change its collection.

    Raises:
        NotFound: There is none, or they may not know of it.
        AccessDenied: They may only read what it brought.
    """
    row = connection.execute(
        select(t.sources, t.collections.c.name.label("collection"))
        .join(t.collections, t.collections.c.id == t.sources.c.collection_id)
        .where(t.sources.c.id == source_id)
    ).first()
    nothing = NotFound(f"no source {source_id}", fix="graft collections list")
    if row is None or not may_read(who, decode_principals(row.principals)):
        raise nothing
    try:
        own_collection(connection, row.collection, who)
    except NotFound as error:  # which would name a collection that they do not see
        raise nothing from error
    return row


def removed_uris(connection: Connection, source_id: int, who: Principals) -> frozenset[str]:
    which = (t.documents.c.source_id == source_id) & (t.documents.c.removed == t.TAKEN_OUT) & readable(who)
    return frozenset(connection.execute(select(t.documents.c.uri).where(which)).scalars())


def granted_scopes(who: Principals) -> Any:
    """The query for the scopes that `who` may look into."""
    return select(t.grants.c.scope_id).where(t.grants.c.principal.in_(sorted(who)))


def visible_collections(connection: Connection, who: Principals) -> list[Row[Any]]:
    """Those granted to `who` as a whole, and those with a document for `who`."""
    rows = connection.execute(
        select(t.collections, t.embedders.c.identity, t.embedders.c.dimensions)
        .outerjoin(t.embedders, t.embedders.c.id == t.collections.c.embedder_id)
        .order_by(t.collections.c.name)
    ).all()
    hidden = [row.name for row in rows if not may_read(who, decode_principals(row.principals))]
    if not hidden:
        return list(rows)
    shared = set(
        connection.execute(
            select(t.documents.c.collection)
            .where(t.documents.c.collection.in_(hidden), t.documents.c.removed == t.THERE, readable(who))
            .distinct()
        ).scalars()
    )
    return [row for row in rows if row.name not in hidden or row.name in shared]
