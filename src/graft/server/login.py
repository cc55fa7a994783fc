"""/auth: sign in through an OpenID provider or with a key, sign out, and who is signed in.

A session is a cookie that no script reads and that no other site's page can use. One that was begun with a key has
that key's rights, and ends with it.
"""

from __future__ import annotations

from typing import Annotated, Any, cast
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from graft.errors import AccessDenied, NotFound, UsageError
from graft.identity import Role, digest_of
from graft.server.authorising import Seat, Serving, seat_of, session_cookie
from graft.server.failing import Unauthorised
from graft.server.openid import ATTEMPT_S, OpenId, role_of

router = APIRouter(prefix="/auth", tags=["signing in"])

Text = Annotated[str | None, Query(max_length=4000)]
_ATTEMPT = "graft-attempt"


class Me(BaseModel):
    """Who calls."""

    name: str
    role: Role
    principals: list[str]


@router.get("/login", response_model=None)
async def begin(request: Request, next: Text = None) -> Response:
    """Send a browser to the provider."""
    serving, provider = _provider(request)
    redirect_uri = _base(request, serving) + "/auth/callback"
    url, attempt = await run_in_threadpool(provider.begin, redirect_uri, _local(next))
    reply = RedirectResponse(url, 303)
    _give(reply, serving, _ATTEMPT, attempt.browser, seconds=ATTEMPT_S)
    return reply


@router.get("/callback", response_model=None)
async def finish(request: Request, state: Text = None, code: Text = None, error: Text = None) -> Response:
    """Take up who comes back from the provider: begin their session."""
    serving, provider = _provider(request)
    browser = request.cookies.get(_cookie(serving, _ATTEMPT))
    if error is not None or not state or not code or not browser:
        raise AccessDenied("the provider did not let you in, or this is no answer of it", fix="begin: /auth/login")
    person, attempt = await run_in_threadpool(provider.finish, state, code, browser)
    secret = await run_in_threadpool(
        serving.workspace.sessions.sign_in,
        person.name,
        subject=person.subject,
        role=cast(Role | None, role_of(person.groups, provider.settings)),
        groups=person.groups,
        verified=person.verified,
        hours=provider.settings.session_hours,
    )
    serving.workspace.audit.record("signed in", caller=person.name)
    reply = RedirectResponse(attempt.next, 303)
    _give(reply, serving, "graft-session", secret, seconds=3600 * provider.settings.session_hours)
    reply.delete_cookie(_cookie(serving, _ATTEMPT), **_kept(serving))
    return reply


@router.post("/key", response_model=None)
async def begin_with_key(
    request: Request, key: Annotated[str, Form(max_length=1000)], next: Annotated[str | None, Form()] = None
) -> Response:
    """Begin a session with a key, for a person at a browser."""
    serving: Serving = request.app.state.serving
    try:
        seat = await seat_of(serving, key.strip(), None)
    except Unauthorised:
        if "text/html" not in request.headers.get("accept", ""):
            raise
        return RedirectResponse(f"/app/sign-in?refused=true&next={quote(_local(next))}", 303)
    hours = serving.workspace.settings.oidc.session_hours
    sessions = serving.workspace.sessions
    secret = await run_in_threadpool(sessions.begin_with_key, digest_of(key.strip()), hours=hours)
    serving.workspace.audit.record("signed in with a key", caller=seat.caller.name)
    reply = RedirectResponse(_local(next), 303)
    _give(reply, serving, "graft-session", secret, seconds=3600 * hours)
    return reply


@router.post("/logout", response_model=None)
async def end(request: Request) -> Response:
    """End the session of this browser, here and now."""
    serving: Serving = request.app.state.serving
    if secret := request.cookies.get(session_cookie(serving)):
        await run_in_threadpool(serving.workspace.sessions.end, secret)
    reply = Response(status_code=204)
    reply.delete_cookie(session_cookie(serving), **_kept(serving))
    return reply


@router.get("/me", response_model=Me)
def who(seat: Seat) -> Me:
    """Who calls, with a key or signed in."""
    return Me(name=seat.caller.name, role=seat.caller.role, principals=sorted(seat.caller.principals))


def _provider(request: Request) -> tuple[Serving, OpenId]:
    serving: Serving = request.app.state.serving
    if serving.openid is None:
        raise NotFound("nobody signs in here: no provider is configured", fix="[oidc] issuer in graft.toml")
    return serving, serving.openid


def _base(request: Request, serving: Serving) -> str:
    """How a browser reaches this server: never by what a request's Host says, where others reach it."""
    assert serving.openid is not None
    public = serving.openid.settings.public_url.rstrip("/")
    if public:
        return public
    if serving.exposed:
        raise UsageError("[oidc] public_url is empty, and others reach this server", fix='public_url = "https://..."')
    return f"{request.url.scheme}://{request.url.netloc}"


def _local(next: str | None) -> str:
    """A path of this server, and nowhere else.

    >>> _local("/docs?a=1"), _local("//evil.example"), _local("https://evil.example"), _local("/\\\\\\\\evil.example")
    ('/docs?a=1', '/', '/', '/')
    """
    if not next or not next.startswith("/") or next.startswith("//") or not next.isprintable() or "\\" in next:
        return "/"
    parts = urlsplit(next)
    return "/" if parts.scheme or parts.netloc else next


def _cookie(serving: Serving, name: str) -> str:
    return ("__Host-" if serving.secure else "") + name


def _kept(serving: Serving) -> dict[str, Any]:
    return {"path": "/", "httponly": True, "samesite": "lax", "secure": serving.secure}


def _give(reply: Response, serving: Serving, name: str, value: str, *, seconds: int) -> None:
    reply.set_cookie(_cookie(serving, name), value, max_age=seconds, **_kept(serving))
