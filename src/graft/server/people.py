"""/v1/users, /v1/keys: who may call, for administrators; /v1/collections/{name}/share: who may read, for owners.

A new key is told once, in the answer that made it. It does not know how keys are checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from graft.errors import NotFound
from graft.identity import Key, Role, User
from graft.server.authorising import AdminSeat, EditorSeat
from graft.server.files import Deleted
from graft.server.requests import WholeBody

router = APIRouter(prefix="/v1", tags=["people"])

PersonName = Annotated[str, Field(min_length=1, max_length=64)]
Groups = Annotated[list[PersonName], Field(max_length=100)]
Dollars = Annotated[float, Field(ge=0, le=1_000_000_000)]


class NewUser(WholeBody):
    """Somebody who may call, once they have a key or sign in."""

    name: PersonName
    role: Role = "reader"
    groups: Groups = Field(default_factory=list)
    budget_usd: Dollars | Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None


class ChangedUser(WholeBody):
    """What is to be otherwise; what is left out stays."""

    role: Role | None = None
    groups: Groups | None = None
    budget_usd: Dollars | Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None


class UserObject(BaseModel):
    """A user."""

    object: Literal["user"] = "user"
    name: str
    role: Role
    groups: list[str]
    budget_usd: float | None
    created_at: str


class UserList(BaseModel):
    """All of them, by name."""

    object: Literal["list"] = "list"
    data: list[UserObject]


class NewKey(WholeBody):
    """A key of a user, or of a service with principals of its own; of neither, it is the workspace owner's."""

    name: PersonName
    user: PersonName | None = None
    acts_as: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=20)] = Field(
        default_factory=list
    )
    role: Role = "editor"
    days: Annotated[int, Field(ge=1, le=3650)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tokens_per_day: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = None


class KeyObject(BaseModel):
    """A key as it is kept: nobody can tell the key from it."""

    object: Literal["key"] = "key"
    name: str
    user: str | None
    acts_as: list[str] | None
    role: Role
    created_at: str
    expires_at: str | None
    requests_per_minute: int | None
    tokens_per_day: int | None


class MadeKey(KeyObject):
    """A new key."""

    key: str = Field(description="The key itself, told now and never again.")


class KeyList(BaseModel):
    """All of them, by name."""

    object: Literal["list"] = "list"
    data: list[KeyObject]


class NewReaders(WholeBody):
    """Who may read a collection from now on, besides those who may already."""

    readers: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=100)] = Field(
        description="As user:ana or group:hr."
    )


class Shared(BaseModel):
    """What came of it."""

    collection: str
    documents: int = Field(description="Those that they could not read before.")


@router.get("/users", response_model=UserList)
def list_users(seat: AdminSeat) -> UserList:
    """Everybody."""
    return UserList(data=[_user(one) for one in seat.workspace.identities.users()])


@router.post("/users", response_model=UserObject)
def create_user(body: NewUser, seat: AdminSeat) -> UserObject:
    """Let somebody in."""
    made = seat.workspace.identities.create_user(
        body.name, role=body.role, groups=body.groups, budget_usd=body.budget_usd
    )
    return _user(made)


@router.post("/users/{name}", response_model=UserObject)
def change_user(name: str, body: ChangedUser, seat: AdminSeat) -> UserObject:
    """Give somebody another role, other groups or another budget; null ends a budget."""
    budget = body.budget_usd
    if budget is None and "budget_usd" in body.model_fields_set:
        budget = float("inf")
    people = seat.workspace.identities
    return _user(people.change_user(name, role=body.role, groups=body.groups, budget_usd=budget))


@router.delete("/users/{name}", response_model=Deleted)
def delete_user(name: str, seat: AdminSeat) -> Deleted:
    """Put somebody out, with their keys and sessions; documents that only they could read stay."""
    seat.workspace.identities.remove_user(name)
    return Deleted(id=name, object="user.deleted")


@router.get("/keys", response_model=KeyList)
def list_keys(seat: AdminSeat) -> KeyList:
    """All keys, those that have expired included; none of them can be read."""
    known = seat.workspace.identities.keys()
    return KeyList(data=[KeyObject(**_key(one)) for one in known])


@router.post("/keys", response_model=MadeKey)
def create_key(body: NewKey, seat: AdminSeat) -> MadeKey:
    """A new key, told this once."""
    made, secret = seat.workspace.identities.create_key(
        body.name,
        user=body.user,
        acts_as=body.acts_as,
        role=body.role,
        days=body.days,
        requests_per_minute=body.requests_per_minute,
        tokens_per_day=body.tokens_per_day,
    )
    return MadeKey(**_key(made), key=secret)


@router.delete("/keys/{name}", response_model=Deleted)
def revoke_key(name: str, seat: AdminSeat) -> Deleted:
    """Make a key unknown at once."""
    seat.workspace.identities.revoke_key(name)
    return Deleted(id=name, object="key.deleted")


@router.post("/collections/{name}/share", response_model=Shared)
def share_collection(name: str, body: NewReaders, seat: EditorSeat) -> Shared:
    """Let others read one of the caller's collections: what is in it, and what its sources bring."""
    if name not in {one.name for one in seat.workspace.collections()}:
        raise NotFound(f"no collection {name!r}", fix="GET /v1/collections lists them")
    return Shared(collection=name, documents=seat.workspace.share_collection(name, body.readers))


def _user(user: User) -> UserObject:
    return UserObject(
        name=user.name,
        role=user.role,
        groups=list(user.groups),
        budget_usd=user.budget_usd,
        created_at=user.created_at,
    )


def _key(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "user": key.user,
        "acts_as": None if key.principals is None else sorted(key.principals),
        "role": key.role,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_day": key.tokens_per_day,
    }
