"""Every request, before any route: which name it was asked for under, how large it is, its id, its log line.

The log and the request's span have method, route, status, milliseconds and the request's id; never a path as it was
given, a body or an error's words, which may hold what documents say. It does not know routes or keys.
"""

from __future__ import annotations

import ipaddress
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graft.server.failing import BodyTooLarge, Failure, HostRefused, failure_of
from graft.server.log import LOG, Told, log_unexpected
from graft.tracing import Step, request_span

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other is a client's own word."""

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_DISCARDED = 16
"""Times the limit that is read of a body that is too large, so that its sender gets to read the refusal."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that was answered.

    Attributes:
        method: One of METHODS, or "other".
        route: The pattern, "-" where none fits; never the path as it was given.
        bytes_in, bytes_out: Of the bodies.
        caller: "" where nobody was let in.
        parameters: The ids in its path.
    """

    method: str
    route: str
    status: int
    seconds: float
    caller: str
    request_id: str
    parameters: Mapping[str, str]
    bytes_in: int
    bytes_out: int


Observe = Callable[[Seen], None]


class Door:
    """The outermost layer.

    Args:
        host: The loopback address listened on; it and the names of loopback are the ones that may be asked for.
            Another name that leads here is DNS rebinding: a page of that name could read the answers. None where
            others reach the server, by whatever name: there every call needs a key, which no page has.
        max_body_bytes: Of one request.
        uploads: Path -> its own limit, where files are sent.
        public_origin: Scheme and host under which browsers reach the server through a proxy; "" where there is none.
        observe: Told of each request once it has been answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str | None,
        max_body_bytes: int,
        uploads: Mapping[str, int] | None = None,
        public_origin: str = "",
        observe: Observe = lambda seen: None,
    ) -> None:
        self._public_origin = public_origin.lower()
        self._app, self._observe = app, observe
        self._names = None if host is None else _LOOPBACK_NAMES | {host.lower()}
        self._max_body_bytes = max_body_bytes
        self._uploads = dict(uploads or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and not self._is_own_page(scope):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "other"
        with request_span(method, Headers(scope=scope).getlist("traceparent")) as step:
            await self._answer(scope, receive, send, method, step)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, method: str, step: Step) -> None:
        began = time.perf_counter()
        request_id = f"req_{uuid.uuid4().hex}"
        status = size = sent = 0
        most = self._uploads.get(scope["path"], self._max_body_bytes)

        async def marked(message: Message) -> None:
            nonlocal status, sent
            sent += len(message.get("body", b""))
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                headers["cross-origin-resource-policy"] = "same-origin"
                headers.setdefault("cache-control", "no-store")
                headers.update(scope.get("state", {}).get("rate", {}))
            await send(message)

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > most:  # of the framework's own kind, which passes through it unchanged
                    raise HTTPException(413, str(await self._too_large(message, receive, most)))
            return message

        try:
            refused = await self._refused(scope, receive, most)
            if refused is None:
                await self._app(scope, counted, marked)
            else:
                await refused.response()(scope, receive, marked)
        except Exception as error:  # the edge: logged without its words, answered without its details
            log_unexpected(error, request_id)
            if not status:
                await failure_of(error).response()(scope, receive, marked)
        finally:
            seen = Seen(
                method=method,
                route=getattr(scope.get("route"), "path", "-"),
                status=status,
                seconds=time.perf_counter() - began,
                caller=scope.get("state", {}).get("caller", ""),
                request_id=request_id,
                parameters=scope.get("path_params", {}),
                bytes_in=size,
                bytes_out=sent,
            )
            _tell(seen, step)
            self._observe(seen)

    async def _refused(self, scope: Scope, receive: Receive, most: int) -> Failure | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host, scope):
            return failure_of(
                HostRefused(
                    "this server answers only under its own loopback address and port, not under the Host given",
                    fix="use the base_url that `graft serve` printed",
                )
            )
        if not self._is_own_origin(headers, scope["scheme"]):
            return failure_of(
                HostRefused("pages of other sites may not use this server", fix="call it from a program, not a page")
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:18]) > most:
            message: Message = {"type": "http.request", "body": b"", "more_body": True}
            return failure_of(await self._too_large(message, receive, most))
        return None

    def _is_own_page(self, scope: Scope) -> bool:
        """Whether a page of this server, and no other, opens a socket: a browser tells its Origin always."""
        headers = Headers(scope=scope)
        scheme = {"ws": "http", "wss": "https"}[scope["scheme"]]
        return self._is_ours(headers.get("host", ""), scope) and self._is_own_origin(headers, scheme)

    def _is_own_origin(self, headers: Headers, scheme: str) -> bool:
        origin = headers.get("origin")
        own = {f"{scheme}://{headers.get('host', '').lower()}", self._public_origin}
        return origin is None or origin.lower() in own

    def _is_ours(self, host: str, scope: Scope) -> bool:
        if self._names is None:
            return True
        name, _, port = host.lower().rpartition(":")
        if not name or host.endswith("]"):  # no port: the protocol's own
            name, port = host.lower(), "80"
        listening = str((scope.get("server") or ("", 0))[1])
        return name.removeprefix("[").removesuffix("]") in self._names and port == listening

    async def _too_large(self, message: Message, receive: Receive, limit: int) -> BodyTooLarge:
        discarded = 0
        while message["type"] == "http.request" and message.get("more_body"):
            discarded += len(message.get("body", b""))
            if discarded > _DISCARDED * self._max_body_bytes + limit:
                break
            message = await receive()
        return BodyTooLarge(
            f"the request's body is over the limit of {limit:,} bytes",
            fix="send less, or raise [serving] max_body_mb in graft.toml",
        )


def _tell(seen: Seen, step: Step) -> None:
    """One line of the log, and what the request's span ends with."""
    LOG.info(
        Told(
            "request",
            id=seen.request_id,
            method=seen.method,
            route=seen.route,
            status=seen.status,
            ms=round(seen.seconds * 1e3, 1),
            caller=seen.caller or None,
            bytes_in=seen.bytes_in,
            bytes_out=seen.bytes_out,
            trace_id=step.trace_id or None,
        )
    )
    step.name(f"{seen.method} {seen.route}")
    step.set(
        {
            "http.request.method": seen.method if seen.method in METHODS else "_OTHER",
            "http.route": seen.route,
            "http.response.status_code": seen.status,
            "graft.request_id": seen.request_id,
        }
    )
    if seen.status >= 500:
        step.set({"error.type": str(seen.status)})
