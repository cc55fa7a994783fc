"""users, groups, keys -> who is calling: a name, a role, and the principals whose documents they see.

A role says what may be done, principals say with which documents. A key is 256 random bits, shown once and kept as
its SHA-256 only; one that is revoked or has expired is known no longer at the very next call. It does not know HTTP.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Connection, delete, insert, select, update

from graft.access import OWNER, Principals
from graft.access import principals as check_principals
from graft.errors import NotFound, UsageError
from graft.store import tables as t
from graft.store.database import Database
from graft.store.encoding import decode_principals, encode_principals

Role = Literal["reader", "editor", "admin"]
"""From least to most: search and ask; add and change documents; users and keys too."""

EVERYONE = "group:everyone"
"""Every user and every key of a user is in it; nothing is granted to it unless somebody does."""
_PREFIX = "graft-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MOST_DAYS = 3650
_MOST_COUNTED = 1_000_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may call.

    Attributes:
        groups: Without "group:", in order.
        created_at: UTC, ISO 8601.
        budget_usd: What answers for them may cost in a calendar month (UTC); None is no limit.
    """

    name: str
    role: Role
    groups: tuple[str, ...]
    created_at: str
    budget_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is kept: nobody can tell the key from it.

    Attributes:
        user: Whose rights it has, at most; None where it stands for a service with principals of its own.
        principals: Of a service; None where it has a user's.
        role: The most that it may do, whatever its user may.
        expires_at: UTC, ISO 8601; None is never.
        requests_per_minute, tokens_per_day: What may be asked for with it; None is no limit.
    """

    name: str
    user: str | None
    principals: Principals | None
    role: Role
    created_at: str
    expires_at: str | None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, with the rights of this moment.

    Attributes:
        owns: Whose that is which they make: of a user theirs alone, not their groups'.
        key: The name of the key; "" of the owner.
        user: The user's name; "" of a service and of the owner.
        requests_per_minute, tokens_per_day, budget_usd: As of `Key` and `User`.
    """

    name: str
    role: Role
    principals: Principals
    owns: Principals
    key: str = ""
    user: str = ""
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    budget_usd: float | None = None

    @property
    def collection(self) -> str:
        """Where what they add goes, if they do not say: a collection is one owner's, so everybody has their own.

        >>> OWNER_CALLER.collection
        'default'
        """
        return "default" if OWNER in self.owns else self.name

    def may(self, role: Role) -> bool:
        """Whether the caller's role is this one or more.

        >>> ana = frozenset({"user:ana"})
        >>> Caller(name="ana", role="editor", principals=ana, owns=ana).may("reader")
        True
        """
        return _rank(self.role) >= _rank(role)


OWNER_CALLER = Caller(name=OWNER, role="admin", principals=frozenset({OWNER}), owns=frozenset({OWNER}))
"""Who runs the command line, and who reaches the loopback address of a workspace without keys."""


class Identities:
    """The users and keys of one workspace.

    Args:
        database: Of the store; every write to it raises its sequence, by which other processes learn of a change.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen = -1
        self._known: dict[str, Key] = {}
        self._people: dict[str, User] = {}

    def close(self) -> None:
        """Give back all connections."""
        self._database.close()

    def create_user(
        self, name: str, *, role: str = "reader", groups: Iterable[str] = (), budget_usd: float | None = None
    ) -> User:
        """Raises:
        UsageError: The name, the role or a group is none, or the name is taken.
        """
        made = User(
            name=check_name(name),
            role=_role(role),
            groups=_groups(groups),
            created_at=_now(),
            budget_usd=_dollars(budget_usd),
        )
        with self._database.writing(makes=True) as (connection, _):
            if name == OWNER or name in _users(connection):
                raise UsageError(f"there is a user {name!r} already", fix=f"graft users set {name} --role {role}")
            values = {"name": name, "role": made.role, "groups": _joined(made.groups), "created_at": made.created_at}
            connection.execute(insert(t.users).values(**values, budget_usd=made.budget_usd))
        return made

    def change_user(
        self,
        name: str,
        *,
        role: str | None = None,
        groups: Iterable[str] | None = None,
        budget_usd: float | None = None,
    ) -> User:
        """Give a user another role, other groups or another budget; None leaves what is, and a budget of inf ends it.

        Raises:
            NotFound, UsageError
        """
        with self._database.writing() as (connection, _):
            before = _user(connection, name)
            values = {
                "role": before.role if role is None else _role(role),
                "groups": _joined(before.groups if groups is None else _groups(groups)),
                "budget_usd": before.budget_usd if budget_usd is None else _dollars(budget_usd),
            }
            connection.execute(update(t.users).where(t.users.c.name == name).values(values))
            return _user(connection, name)

    def remove_user(self, name: str) -> tuple[str, ...]:
        """Remove a user with their keys, whose names are returned; documents that only they could read stay.

        Raises:
            NotFound
        """
        with self._database.writing() as (connection, _):
            _user(connection, name)
            keys = tuple(key.name for key in _keys(connection).values() if key.user == name)
            connection.execute(delete(t.keys).where(t.keys.c.user == name))
            connection.execute(delete(t.sessions).where(t.sessions.c.user == name))
            connection.execute(delete(t.users).where(t.users.c.name == name))
        return keys

    def users(self) -> list[User]:
        """By name."""
        with self._database.reading() as connection:
            return list(_users(connection).values())

    def create_key(
        self,
        name: str,
        *,
        user: str | None = None,
        acts_as: Iterable[str] = (),
        role: str = "editor",
        days: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_day: int | None = None,
    ) -> tuple[Key, str]:
        """A new key, and the key itself, which cannot be had again.

        Args:
            user: Whose rights it has, limited by `role`.
            acts_as: Principals of a service, in place of a user's; neither is the workspace's owner.
            days: Until it expires; None is never.
            requests_per_minute, tokens_per_day: What may be asked for with it; None is no limit.
        Raises:
            UsageError: A value is none of its kind, or the name is taken.
            NotFound: No such user.
        """
        principals = check_principals(acts_as) if (acts_as := tuple(acts_as)) else None
        if user is not None and principals is not None:
            raise UsageError("a key acts for a user or as a service, not both", fix="--user NAME, or --as PRINCIPAL")
        if days is not None and not 1 <= days <= _MOST_DAYS:
            raise UsageError(f"{days} days; from 1 to {_MOST_DAYS}", fix="--days 90")
        secret = _PREFIX + secrets.token_urlsafe(32)
        made = Key(
            name=check_name(name),
            user=None if user == OWNER else user,
            principals=principals or (frozenset({OWNER}) if user in (None, OWNER) else None),
            role=_role(role),
            created_at=_now(),
            expires_at=None if days is None else _now(days),
            requests_per_minute=_counted(requests_per_minute, "requests per minute"),
            tokens_per_day=_counted(tokens_per_day, "tokens per day"),
        )
        with self._database.writing(makes=True) as (connection, _):
            if name in {key.name for key in _keys(connection).values()}:
                raise UsageError(f"there is a key {name!r} already", fix=f"graft keys revoke {name}")
            if made.user is not None:
                _user(connection, made.user)
            saved = None if made.principals is None else encode_principals(made.principals)
            values = {"name": name, "user": made.user, "principals": saved, "role": made.role}
            times = {"created_at": made.created_at, "expires_at": made.expires_at}
            limits = {"requests_per_minute": made.requests_per_minute, "tokens_per_day": made.tokens_per_day}
            connection.execute(insert(t.keys).values(**values, **times, **limits, digest=digest_of(secret)))
        return made, secret

    def revoke_key(self, name: str) -> Key:
        """Make a key unknown.

        Raises:
            NotFound: Names those that exist.
        """
        with self._database.writing() as (connection, _):
            found = {key.name: key for key in _keys(connection).values()}
            if name not in found:
                raise NotFound(f"no key named {name!r}; have {', '.join(found) or 'none'}", fix="graft keys list")
            connection.execute(delete(t.keys).where(t.keys.c.name == name))
        return found[name]

    def keys(self) -> list[Key]:
        """By name, those that have expired included."""
        with self._database.reading() as connection:
            return list(_keys(connection).values())

    def caller(self, secret: str) -> Caller | None:
        """Who calls with a key; None where it is no key, or one no longer."""
        return self.caller_of(digest_of(secret))

    def caller_of(self, digest: str) -> Caller | None:
        """Who calls with the key of a digest; what was sent is never compared, so the time tells nothing of it."""
        self._follow()
        key = self._known.get(digest)
        if key is None or _is_over(key):
            return None
        if key.user is None:
            assert key.principals is not None
            return Caller(
                name=key.name,
                role=key.role,
                principals=key.principals,
                owns=key.principals,
                key=key.name,
                requests_per_minute=key.requests_per_minute,
                tokens_per_day=key.tokens_per_day,
            )
        user = self._people.get(key.user)
        if user is None:
            return None
        return Caller(
            name=user.name,
            role=min(key.role, user.role, key=_rank),
            principals=principals_of(user),
            owns=frozenset({f"user:{user.name}"}),
            key=key.name,
            user=user.name,
            requests_per_minute=key.requests_per_minute,
            tokens_per_day=key.tokens_per_day,
            budget_usd=user.budget_usd,
        )

    def guarded(self) -> bool:
        """Whether there are keys, so that every call must bring one."""
        self._follow()
        return bool(self._known)

    def has_admin(self) -> bool:
        """Whether some key that has not expired can do everything: without one nobody could let others in."""
        callers = (key for key in self.keys() if not _is_over(key) and key.role == "admin")
        admins = {user.name for user in self.users() if user.role == "admin"}
        return any(key.user is None or key.user in admins for key in callers)

    def _follow(self) -> None:
        sequence = self._database.current_sequence()
        if sequence != self._seen:
            with self._database.reading() as connection:
                known, people = _keys(connection), _users(connection)
            self._known, self._people, self._seen = known, people, sequence


def principals_of(user: User) -> Principals:
    """Whose documents a user sees; an administrator sees the workspace's own too.

    >>> sorted(principals_of(User(name="ana", role="reader", groups=("hr",), created_at="")))
    ['group:everyone', 'group:hr', 'user:ana']
    """
    own = frozenset({f"user:{user.name}", EVERYONE, *(f"group:{group}" for group in user.groups)})
    return own | {OWNER} if user.role == "admin" else own


def _counted(given: int | None, what: str) -> int | None:
    if given is not None and not 1 <= given <= _MOST_COUNTED:
        raise UsageError(f"{given} {what}; from 1 to {_MOST_COUNTED:,}", fix="leave it out for no limit")
    return given


def _dollars(given: float | None) -> float | None:
    if given is None or given == float("inf"):
        return None
    if not 0 <= given <= _MOST_COUNTED:  # nan too
        raise UsageError(f"a budget of {given} is no sum of dollars", fix="--budget 5; --budget inf for no limit")
    return given


def _rank(role: Role) -> int:
    return get_args(Role).index(role)


def _role(given: str) -> Role:
    for role in get_args(Role):
        if given == role:
            known: Role = role
            return known
    raise UsageError(f"no role {given!r}; have {', '.join(get_args(Role))}", fix="--role reader")


def is_name(given: str) -> bool:
    """Whether a user, group or key can be called so.

    >>> is_name("ana@example.org"), is_name("two words")
    (True, False)
    """
    return _NAME.fullmatch(given) is not None


def check_name(given: str) -> str:
    """A user's, group's or key's name as it is.

    Raises:
        UsageError: It is none.
    """
    if not is_name(given):
        raise UsageError(
            f"{given!r} is no name: letters, digits and . _ @ - , at most 64, beginning with a letter or digit",
            fix="ana, or ana@example.org",
        )
    return given


def _groups(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({check_name(name.removeprefix("group:")) for name in given}))


def _joined(groups: Iterable[str]) -> str:
    return " ".join(groups)


def _now(days: int = 0) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    return moment.isoformat(timespec="seconds")


def _is_over(key: Key) -> bool:
    return key.expires_at is not None and key.expires_at <= _now()


def digest_of(secret: str) -> str:
    """A key as it is kept: SHA-256, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _users(connection: Connection) -> dict[str, User]:
    rows = connection.execute(select(t.users).order_by(t.users.c.name))
    return {
        row.name: User(
            name=row.name,
            role=row.role,
            groups=tuple(row.groups.split()),
            created_at=row.created_at,
            budget_usd=row.budget_usd,
        )
        for row in rows
    }


def _user(connection: Connection, name: str) -> User:
    found = _users(connection)
    if name not in found:
        raise NotFound(f"no user named {name!r}; have {', '.join(found) or 'none'}", fix="graft users list")
    return found[name]


def _keys(connection: Connection) -> dict[str, Key]:
    """By digest."""
    return {row.digest: _key(row) for row in connection.execute(select(t.keys).order_by(t.keys.c.name))}


def _key(row: Any) -> Key:
    return Key(
        name=row.name,
        user=row.user,
        principals=None if row.principals is None else decode_principals(row.principals),
        role=row.role,
        created_at=row.created_at,
        expires_at=row.expires_at,
        requests_per_minute=row.requests_per_minute,
        tokens_per_day=row.tokens_per_day,
    )
