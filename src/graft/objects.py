"""What clients of the API make (files, vector stores, ...): JSON with an id, owners, and an order.

An object that is not theirs does not exist for those who ask: same answer, same words. It does not know what a body
means.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, insert, select, update

from graft.access import Principals, may_read
from graft.errors import NotFound, UsageError
from graft.store import tables as t
from graft.store.database import Database
from graft.store.encoding import decode_principals, encode_principals

Order = Literal["asc", "desc"]
MOST_A_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Attributes:
    parent: Id of what it is in, or None.
    created_at: Seconds since 1970, UTC.
    """

    id: str
    kind: str
    parent: str | None
    principals: Principals
    created_at: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Attributes:
    has_more: Others come after the last.
    """

    data: tuple[Stored, ...]
    has_more: bool


class Objects:
    """The objects of one workspace. For any number of threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        """Give back all connections."""
        self._database.close()

    def put(
        self, kind: str, body: Mapping[str, Any], *, id: str, owners: Principals, parent: str | None = None
    ) -> Stored:
        """Make an object.

        Args:
            id: `new_id`, or one that the caller can tell again.
        Raises:
            UsageError: There is one of that id.
        """
        made = int(time.time())
        with self._database.writing(makes=True, needs_bytes=len(str(body))) as (connection, _):
            if connection.execute(select(t.objects.c.id).where(t.objects.c.id == id)).first() is not None:
                raise UsageError(f"there is {id} already", fix="use it as it is, or remove it first")
            values = {"id": id, "kind": kind, "parent": parent, "created_at": made, "body": _json(body)}
            connection.execute(insert(t.objects).values(**values, principals=encode_principals(owners)))
        return Stored(id=id, kind=kind, parent=parent, principals=owners, created_at=made, body=body)

    def change(self, kind: str, id: str, body: Mapping[str, Any], *, principals: Principals) -> Stored:
        """Give an object another body.

        Raises:
            NotFound: It is not there, or not theirs.
        """
        found = self.get(kind, id, principals=principals)
        with self._database.writing(needs_bytes=len(str(body))) as (connection, _):
            connection.execute(update(t.objects).where(t.objects.c.id == id).values(body=_json(body)))
        return Stored(
            id=id,
            kind=kind,
            parent=found.parent,
            principals=found.principals,
            created_at=found.created_at,
            body=body,
        )

    def edit(
        self,
        kind: str,
        id: str,
        how: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        principals: Principals,
    ) -> Stored:
        """Give an object the body that `how` makes of its own; nobody else's change comes between the two.

        Raises:
            NotFound: It is not there, or not theirs.
        """
        with self._database.writing(tells=False) as (connection, _):
            found = _theirs(connection, kind, id, principals)
            body = how(found.body)
            if body != found.body:
                connection.execute(update(t.objects).where(t.objects.c.id == id).values(body=_json(body)))
        return replace(found, body=body)

    def append(
        self,
        kind: str,
        bodies: Mapping[str, Mapping[str, Any]],
        *,
        to: tuple[str, str],
        principals: Principals,
    ) -> list[Stored]:
        """Put objects into another one, all or none, after those that are in it; they are its owners'.

        Args:
            bodies: By id, of `new_id`.
            to: Kind and id of what they are put into.
        Raises:
            NotFound: That is not there, or not theirs.
        """
        made = int(time.time())
        with self._database.writing(needs_bytes=len(str(bodies)), tells=False) as (connection, _):
            parent = _theirs(connection, *to, principals)
            owners = encode_principals(parent.principals)
            same = {"kind": kind, "parent": parent.id, "principals": owners, "created_at": made}
            for id, body in bodies.items():
                connection.execute(insert(t.objects).values(id=id, body=_json(body), **same))
        return [
            Stored(id=id, kind=kind, parent=parent.id, principals=parent.principals, created_at=made, body=body)
            for id, body in bodies.items()
        ]

    def get(self, kind: str, id: str, *, principals: Principals) -> Stored:
        """Raises:
        NotFound: It is not there, or not theirs.
        """
        with self._database.reading() as connection:
            return _theirs(connection, kind, id, principals)

    def remove(self, kind: str, id: str, *, principals: Principals) -> Stored:
        """Remove an object, and all that has it as parent.

        Raises:
            NotFound: It is not there, or not theirs.
        """
        found = self.get(kind, id, principals=principals)
        with self._database.writing() as (connection, _):
            connection.execute(delete(t.objects).where((t.objects.c.id == id) | (t.objects.c.parent == id)))
        return found

    def page(
        self,
        kind: str,
        *,
        principals: Principals,
        parent: str | None = None,
        limit: int = 20,
        order: Order = "desc",
        after: str | None = None,
        before: str | None = None,
        keep: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> Page:
        """Some of them, in the order in which they were made, or newest first.

        Args:
            after, before: Ids: only what comes after, or before, in this order.
            keep: Of a body, whether it is listed at all.
        Raises:
            NotFound: No such cursor.
            UsageError: limit is not from 1 to 100.
        """
        if not 1 <= limit <= MOST_A_PAGE:
            raise UsageError(f"limit = {limit} is not from 1 to {MOST_A_PAGE}", fix="limit=20, and after=LAST_ID")
        ids = self._ids(kind, parent, principals, keep)
        for cursor in (after, before):
            if cursor is not None and cursor not in ids:
                raise NotFound(f"no {kind} {cursor!r} to begin at", fix="an id of the page before")
        if order == "desc":
            ids.reverse()
        first = 0 if after is None else ids.index(after) + 1
        last = len(ids) if before is None else ids.index(before)
        shown = ids[first:last]
        # with `before` alone, the page that ends where the cursor stands
        some = shown[-limit:] if before is not None and after is None else shown[:limit]
        with self._database.reading() as connection:
            rows = connection.execute(select(t.objects).where(t.objects.c.id.in_(some), t.objects.c.kind == kind))
            found = {row.id: _stored(row) for row in rows}
        return Page(data=tuple(found[id] for id in some if id in found), has_more=len(shown) > limit)

    def _ids(
        self,
        kind: str,
        parent: str | None,
        principals: Principals,
        keep: Callable[[Mapping[str, Any]], bool] | None,
    ) -> list[str]:
        """Of those that may be read, in the order in which they were made; bodies are read only where they matter."""
        columns = [t.objects.c.id, t.objects.c.principals, *([] if keep is None else [t.objects.c.body])]
        where = [t.objects.c.kind == kind, *([] if parent is None else [t.objects.c.parent == parent])]
        with self._database.reading() as connection:
            rows = connection.execute(select(*columns).where(*where).order_by(t.objects.c.number)).all()
        return [
            row.id
            for row in rows
            if may_read(principals, decode_principals(row.principals))
            and (keep is None or keep(json.loads(row.body)))
        ]

    def all(self, kind: str, *, parent: str | None = None) -> list[Stored]:
        """Everybody's, in the order in which they were made; with a parent, what is in it."""
        where = [t.objects.c.kind == kind]
        if parent is not None:
            where.append(t.objects.c.parent == parent)
        with self._database.reading() as connection:
            return [_stored(row) for row in connection.execute(select(t.objects).where(*where).order_by("number"))]


def new_id(prefix: str) -> str:
    """An id that nobody can guess.

    >>> new_id("file-").startswith("file-"), len(new_id("vs_"))
    (True, 27)
    """
    return prefix + secrets.token_hex(12)


def _theirs(connection: Connection, kind: str, id: str, principals: Principals) -> Stored:
    row = connection.execute(select(t.objects).where(t.objects.c.id == id, t.objects.c.kind == kind)).first()
    if row is None or not may_read(principals, decode_principals(row.principals)):
        raise NotFound(f"no {kind} {id!r}", fix="list them to see what is there")
    return _stored(row)


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False)


def _stored(row: Row[Any]) -> Stored:
    return Stored(
        id=row.id,
        kind=row.kind,
        parent=row.parent,
        principals=decode_principals(row.principals),
        created_at=row.created_at,
        body=json.loads(row.body),
    )
