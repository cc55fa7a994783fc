"""a request -> who calls, and what they may use: the one function through which a route gets at the workspace.

Every route under /v1 takes `Seat` (any role) or `EditorSeat` as a parameter and has no other way to documents or
models; a test walks the routes. The workspace of a seat acts as its caller, so what they may not read does not exist
for them. Without keys (`graft keys create`) and without GRAFT_API_KEY, whoever reaches the loopback address acts as
the workspace's owner; as soon as there is one key, every call must bring one.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from graft.errors import UsageError
from graft.identity import OWNER_CALLER, Caller, Role, digest_of
from graft.server.door import is_loopback
from graft.server.failing import RoleRefused, Unauthorised
from graft.server.lanes import Lane, Running
from graft.server.metrics import Metrics
from graft.server.openid import SECRET_VARIABLE, OpenId
from graft.server.rates import Rates
from graft.server.working import Worker
from graft.settings import ServingSettings
from graft.workspace import Workspace

KEY_VARIABLE = "GRAFT_API_KEY"

_MOST_FILES_IN_LINE = 100_000

_bearer = HTTPBearer(auto_error=False, description=f"A key of `graft keys create`, or the server's {KEY_VARIABLE}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the routes work with.

    Attributes:
        workspace: Acts as the caller.
        answers, lookups, imports: Threads for questions to models, for searches and embeddings, for reading files.
        worker: The process for long jobs.
        metrics, rates: What is counted of all requests, and of each key's last minute.
        key_digest: SHA-256 of the owner's key from the environment; None where there is none.
        most_file_bytes: Of one uploaded file.
        background: Calls under way that nobody waits for, by the id of the response that they make.
        exposed: Others than this machine can reach it, so that a key is asked for even if there is none.
        openid: Where users sign in; then a key or a session is asked for even if there is none.
    """

    workspace: Workspace
    answers: Lane
    lookups: Lane
    imports: Lane
    worker: Worker
    metrics: Metrics
    rates: Rates
    key_digest: str | None
    most_file_bytes: int
    background: dict[str, Running[Any]] = field(default_factory=dict)
    exposed: bool = False
    openid: OpenId | None = None
    caller: Caller = OWNER_CALLER

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS, so that its cookies go no other way."""
        return self.workspace.settings.oidc.public_url.startswith("https://")


def session_cookie(serving: Serving) -> str:
    """What the cookie of a session is called."""
    return ("__Host-" if serving.secure else "") + "graft-session"


def open_serving(workspace: Workspace, settings: ServingSettings, *, api_key: str | None = None) -> Serving:
    """What the routes work with, acting as the workspace does.

    Raises:
        UsageError, StoreError, ModelError
    """
    _ = workspace.store, workspace.embedder, workspace.reader, workspace.identities
    return Serving(
        workspace=workspace,
        answers=Lane("answers", parallel=settings.parallel, waiting=settings.waiting),
        lookups=Lane("lookups", parallel=settings.lookups, waiting=settings.waiting),
        imports=Lane("files", parallel=1, waiting=_MOST_FILES_IN_LINE),
        worker=Worker(workspace, enabled=settings.worker),
        metrics=Metrics(),
        rates=Rates(),
        key_digest=owners_key(api_key),
        most_file_bytes=settings.max_file_mb * 1_000_000,
        exposed=not is_loopback(settings.host),
        openid=OpenId(oidc, os.environ.get(SECRET_VARIABLE)) if (oidc := workspace.settings.oidc).issuer else None,
    )


def owners_key(key: str | None) -> str | None:
    """A key as it is kept.

    Raises:
        UsageError: It is empty, or cannot be sent in a header; an empty variable is not taken for "no key".
    """
    if key is None:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"{KEY_VARIABLE} is {'empty' if not key else 'not made of printable ASCII characters without spaces'}",
            fix=f"unset {KEY_VARIABLE}, or: export {KEY_VARIABLE}=$(openssl rand -hex 24)",
        )
    return digest_of(key)


async def authorised(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Serving:
    """What the caller may use.

    Raises:
        Unauthorised: A key is asked for, and the request has none or another.
        Busy: The key's minute is used up.
    """
    serving: Serving = request.app.state.serving
    given = None if credentials is None else credentials.credentials
    seat = await seat_of(serving, given, _session_of(request, serving))
    caller = seat.caller
    request.state.caller = (
        caller.name if not caller.key or caller.key == caller.name else f"{caller.name}/{caller.key}"
    )
    request.state.rate = serving.rates.take(caller)
    return seat


async def seat_of(serving: Serving, given: str | None, session: str | None) -> Serving:
    """What somebody may use by a key or, where none is given, by a session's secret.

    Raises:
        Unauthorised: One is asked for, and there is none or another.
    """
    caller = await asyncio.to_thread(_caller, serving, given, session)
    if caller is None:
        raise Unauthorised(
            "no API key was given" if given is None else "Incorrect API key provided",  # LiteLLM knows the words
            fix=f"OpenAI(api_key=...) with a key of `graft keys create`, or the server's {KEY_VARIABLE}",
        )
    return replace(serving, caller=caller, workspace=serving.workspace.acting_as(caller.principals, owns=caller.owns))


def _session_of(request: Request, serving: Serving) -> str | None:
    """The session's secret, if no other site can have sent the request.

    A browser says where a request comes from; the door has refused another Origin than the server's own.
    """
    headers = request.headers
    if request.method in ("GET", "HEAD"):
        own = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    else:
        own = "origin" in headers or headers.get("sec-fetch-site") == "same-origin"
    return request.cookies.get(session_cookie(serving)) if own else None


def _caller(serving: Serving, given: str | None, session: str | None) -> Caller | None:
    is_open = serving.key_digest is None and not serving.exposed and serving.openid is None
    if is_open and not serving.workspace.identities.guarded():
        return OWNER_CALLER
    if given is not None:
        return _caller_of(serving, digest_of(given))
    if session is None:
        return None
    digest = serving.workspace.sessions.key_of(session)
    return serving.workspace.sessions.caller(session) if digest is None else _caller_of(serving, digest)


def _caller_of(serving: Serving, digest: str) -> Caller | None:
    # Digests are compared: their length says nothing, and the comparison's time says nothing either.
    if serving.key_digest is not None and hmac.compare_digest(digest, serving.key_digest):
        return OWNER_CALLER
    return serving.workspace.identities.caller_of(digest)


def require(seat: Serving, role: Role) -> None:
    """Raises:
    RoleRefused: The caller's role is less.
    """
    if not seat.caller.may(role):
        raise RoleRefused(
            f"{seat.caller.name} is {seat.caller.role}; this needs {role}",
            fix="ask an administrator: graft users set NAME --role, graft keys create NAME --role",
        )


class _Needs:
    """A route's dependency: authorised, and of this role or more."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def __call__(self, seat: Annotated[Serving, Depends(authorised)]) -> Serving:
        require(seat, self._role)
        return seat


Seat = Annotated[Serving, Depends(_Needs("reader"))]
EditorSeat = Annotated[Serving, Depends(_Needs("editor"))]
AdminSeat = Annotated[Serving, Depends(_Needs("admin"))]
