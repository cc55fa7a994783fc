"""Somebody whom a provider vouches for -> a user and a session, known by a secret that only their browser holds.

A user made by signing in has the provider's groups, and the role that the provider's groups give, anew each time; of
one made by hand nothing is changed. A name belongs to the first subject that signed in with it: an address that the
provider gives to somebody else later does not open what was its owner's. It does not know OpenID or HTTP.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select, update

from graft.access import OWNER
from graft.errors import AccessDenied
from graft.identity import Caller, Role, User, check_name, digest_of, is_name, principals_of
from graft.store import tables as t
from graft.store.database import Database

FROM_PROVIDER = "sso."
"""Before a provider's groups, so that none of them is a group that somebody here has made."""


class Sessions:
    """The sessions of one workspace; for any number of threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        """Give back all connections."""
        self._database.close()

    def sign_in(
        self, name: str, *, subject: str, role: Role | None, groups: Iterable[str], verified: bool, hours: int
    ) -> str:
        """Begin a session.

        Args:
            groups: Of the provider; those whose name cannot be one here are left out.
            subject: Who it is to the provider, for ever: issuer and subject.
            role: By the provider's groups; None lets nobody in who is not here already by hand.
            verified: Whether the provider has made sure that the name is theirs.
        Returns: The secret, which cannot be had again.
        Raises:
            AccessDenied: They may not sign in, or the name is somebody else's.
            UsageError: The name is none.
        """
        check_name(name)
        # Whoever may name a group at the provider must not get into another here by a space in its name.
        theirs = " ".join(sorted({named for one in groups if is_name(named := FROM_PROVIDER + one)}))
        secret, now = secrets.token_urlsafe(32), datetime.datetime.now(datetime.UTC)
        with self._database.writing(makes=True) as (connection, _):
            row = connection.execute(select(t.users).where(t.users.c.name == name)).first()
            is_out = row is not None and row.origin == "oidc" and row.subject == subject and role is None
            if is_out:  # the provider took back what it gave: what was begun elsewhere ends too
                connection.execute(delete(t.sessions).where(t.sessions.c.user == name))
        with self._database.writing(makes=True) as (connection, _):
            row = connection.execute(select(t.users).where(t.users.c.name == name)).first()
            self._let_in(name, row, subject=subject, role=role, verified=verified)
            if row is None:
                values = {"name": name, "role": role, "groups": theirs, "created_at": _told(now)}
                connection.execute(insert(t.users).values(**values, origin="oidc", subject=subject))
            else:
                changed = {"role": role, "groups": theirs} if row.origin == "oidc" else {}
                connection.execute(update(t.users).where(t.users.c.name == name).values(subject=subject, **changed))
            _begin(connection, secret, now, hours, user=name)
        return secret

    def begin_with_key(self, digest: str, *, hours: int) -> str:
        """Begin a session with the rights of a key, for as long as the key has them.

        Args:
            digest: Of the key, which is checked at every call.
        Returns: The secret, which cannot be had again.
        """
        secret, now = secrets.token_urlsafe(32), datetime.datetime.now(datetime.UTC)
        with self._database.writing(makes=True) as (connection, _):
            _begin(connection, secret, now, hours, user="", key=digest)
        return secret

    def key_of(self, secret: str) -> str | None:
        """Digest of the key that a session was begun with; None where it was not, or has ended."""
        with self._database.reading() as connection:
            at = (t.sessions.c.digest == digest_of(secret)) & (t.sessions.c.expires_at > _told())
            return connection.execute(select(t.sessions.c.key).where(at)).scalar()

    def caller(self, secret: str) -> Caller | None:
        """Whose session it is; None where it has ended, or its user is gone."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(t.users)
                .join(t.sessions, t.sessions.c.user == t.users.c.name)
                .where(t.sessions.c.digest == digest_of(secret), t.sessions.c.expires_at > _told())
            ).first()
        if row is None:
            return None
        user = User(name=row.name, role=row.role, groups=tuple(row.groups.split()), created_at=row.created_at)
        return Caller(
            name=user.name,
            role=user.role,
            principals=principals_of(user),
            owns=frozenset({f"user:{user.name}"}),
            user=user.name,
            budget_usd=row.budget_usd,
        )

    def end(self, secret: str) -> None:
        """End a session; of one that is none, nothing happens."""
        with self._database.writing() as (connection, _):
            connection.execute(delete(t.sessions).where(t.sessions.c.digest == digest_of(secret)))

    @staticmethod
    def _let_in(name: str, row: object, *, subject: str, role: Role | None, verified: bool) -> None:
        known, origin = getattr(row, "subject", None), getattr(row, "origin", None)
        if name == OWNER or (known is not None and known != subject):
            raise AccessDenied(
                f"{name} is somebody else here",
                fix="ask an administrator: graft users remove NAME, if they have left",
            )
        if origin == "hand" and not verified:
            raise AccessDenied(
                f"{name} was made by hand, and the provider has not verified that the name is yours",
                fix='sign in with a verified email, or [oidc] name_claim = "email"',
            )
        if role is None and origin != "hand":
            raise AccessDenied(
                f"{name} may not sign in here",
                fix="ask an administrator: graft users add NAME, or [oidc] default_role",
            )


def _begin(
    connection: Connection, secret: str, now: datetime.datetime, hours: int, *, user: str, key: str | None = None
) -> None:
    connection.execute(delete(t.sessions).where(t.sessions.c.expires_at <= _told(now)))
    ends = _told(now + datetime.timedelta(hours=hours))
    values = {"digest": digest_of(secret), "user": user, "key": key, "created_at": _told(now), "expires_at": ends}
    connection.execute(insert(t.sessions).values(**values))


def _told(moment: datetime.datetime | None = None) -> str:
    return (moment or datetime.datetime.now(datetime.UTC)).isoformat(timespec="seconds")
