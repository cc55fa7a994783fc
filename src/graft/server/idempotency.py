"""A POST with an Idempotency-Key -> done once; asked again with that key, its first answer is given again.

For a client that does not know whether its request arrived: for 24 hours, also by a server that was killed since. The
answer is kept before it is sent. It does not know what requests do. Source: the IETF draft
draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import time
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graft.errors import NotFound, UsageError
from graft.objects import Objects, new_id
from graft.server.authorising import Serving, authorised
from graft.server.failing import ParameterRefused, StillUnderWay
from graft.workspace import Workspace

HEADER, REPLAYED = "idempotency-key", "idempotency-replayed"
KEPT_S = 86_400
_KIND = "idempotency"
_LONGEST_KEY = 255
_MOST_BYTES = 1_000_000
_AGAIN = frozenset({409, 429, 499})
"""Of these the request was not carried out, and may be when it comes again; nor were those that failed here."""

_SECRETS = frozenset({"/v1/keys"})
"""What these answer is told once and kept nowhere; a name that is taken says that the first request arrived."""

_THIS_RUN = new_id("")
"""A request that an earlier run of the server began and did not end has no answer: it may be done anew."""


class Replay(Exception):
    """There is an answer already."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class _Claim:
    """This request is the one that is carried out for its key."""

    def __init__(self, workspace: Workspace, id: str, sent: str) -> None:
        self._objects, self._owns, self._id, self._sent = workspace.objects, workspace.owns, id, sent

    def keep(self, status: int, content_type: str, body: str) -> None:
        """Keep its answer."""
        answer = {"status": status, "type": content_type, "body": body}
        self._objects.change(
            _KIND, self._id, {"sent": self._sent, "run": _THIS_RUN, "answer": answer}, principals=self._owns
        )

    def release(self) -> None:
        """It was not carried out, or its answer cannot be kept."""
        self._objects.remove(_KIND, self._id, principals=self._owns)


async def once(request: Request, seat: Annotated[Serving, Depends(authorised)]) -> None:
    """Claim the request's key; a dependency of every route under /v1.

    Raises:
        Replay: The first answer.
        ParameterRefused: The key is none, or came with another request before.
        StillUnderWay: The first request has not ended.
    """
    key = request.headers.get(HEADER)
    if request.method != "POST" or key is None or request.url.path in _SECRETS:
        return
    if not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
        raise ParameterRefused(
            f"{HEADER} has {len(key)} characters; 1 to {_LONGEST_KEY} printable ones",
            param=HEADER,
            fix="a fresh UUID for each request",
            code="invalid_value",
        )
    is_form = request.headers.get("content-type", "").startswith("multipart/")
    sent = request.headers.get("content-length", "").encode() if is_form else await request.body()
    digest = hashlib.sha256(b"\0".join([request.url.path.encode(), request.url.query.encode(), sent])).hexdigest()
    id = hashlib.sha256(f"{sorted(seat.workspace.owns)}\0{key}".encode()).hexdigest()
    request.state.claim = await run_in_threadpool(_claimed, seat.workspace, f"idem_{id}", digest)


def forget_old(objects: Objects) -> None:
    """Those whose time is over, everybody's."""
    before = int(time.time()) - KEPT_S
    for one in objects.all(_KIND):
        if one.created_at < before:
            objects.remove(_KIND, one.id, principals=one.principals)


def _claimed(workspace: Workspace, id: str, digest: str) -> _Claim:
    claim, body = _Claim(workspace, id, digest), {"sent": digest, "run": _THIS_RUN, "answer": None}
    try:
        workspace.objects.put(_KIND, body, id=id, owners=workspace.owns)
        return claim
    except UsageError:
        pass  # there is one: another request's, or this one's earlier self
    try:
        first = workspace.objects.get(_KIND, id, principals=workspace.owns).body
    except NotFound:  # released at this moment
        return _claimed(workspace, id, digest)
    if first["sent"] != digest:
        raise ParameterRefused(
            f"this {HEADER} came with another request before",
            param=HEADER,
            fix="a fresh UUID for each request",
            code="idempotency_key_reused",
        )
    answer = first["answer"]
    if answer is not None:
        raise Replay(Response(answer["body"], answer["status"], {REPLAYED: "true"}, answer["type"]))
    if first["run"] == _THIS_RUN:
        raise StillUnderWay("the first request of this Idempotency-Key has not ended", fix="ask again in a second")
    workspace.objects.change(_KIND, id, body, principals=workspace.owns)
    return claim


class Once:
    """Keeps the answers of claimed requests: an ASGI layer around the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or Headers(scope=scope).get(HEADER) is None:
            await self._app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = bytearray()
        settled = False

        async def kept(message: Message) -> None:
            nonlocal settled
            if message["type"] == "http.response.start":
                start.update(message)
            elif len(body) <= _MOST_BYTES:
                body.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body") and not settled:
                settled = True
                await _settle(scope, start, bytes(body))
            await send(message)

        try:
            await self._app(scope, receive, kept)
        finally:
            if not settled:
                await _settle(scope, {}, b"")


async def _settle(scope: Scope, start: Message, body: bytes) -> None:
    claim: _Claim | None = scope.get("state", {}).get("claim")
    if claim is None:
        return
    status, kind = start.get("status", 500), Headers(raw=start.get("headers", [])).get("content-type", "")
    keeps = status < 500 and status not in _AGAIN and kind.startswith("application/json") and len(body) <= _MOST_BYTES
    await run_in_threadpool(*((claim.keep, status, kind, body.decode()) if keeps else (claim.release,)))
