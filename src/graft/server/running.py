"""the application -> a listening process, until it is told to stop.

Without an administrator's key it binds to loopback only: whoever reached the port could read every document of the
workspace. It does not know routes.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from graft.errors import GraftError, UsageError
from graft.server.app import Pages, create_app
from graft.server.connections import Connection
from graft.server.log import LOG, log_unexpected
from graft.settings import ServingSettings
from graft.workspace import Workspace

_BACKLOG = 512
"""Connections that may wait to be taken."""


def listen(settings: ServingSettings, *, guarded: bool = False) -> socket.socket:
    """A socket that listens on the settings' host and port; requests wait in it until `serve` takes them.

    Args:
        guarded: An administrator has a key, so that others may reach it; see `Identities.has_admin`.
    Raises:
        UsageError: Others reach the host and it is not guarded, or no such port exists.
        GraftError: The port is taken, or may not be taken.
    """
    address = address_of(settings.host, settings.port, guarded=guarded)
    if not 0 <= settings.port < 2**16:
        raise UsageError(f"port {settings.port} is not from 0 to 65535", fix="graft serve --port 8642")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # The protocol is named because asyncio sends without delay only then: an answer's head and body are two
    # packets, and the second would wait some 40 ms for the first one's acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # a port whose last connections are still being closed is free
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((str(address), settings.port))
        listening.listen(_BACKLOG)
        return listening
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            message = f"port {settings.port} of {address} is taken, perhaps by another `graft serve`"
        elif error.errno == errno.EACCES:
            message = f"port {settings.port} may not be taken by this user"
        else:
            message = f"cannot listen on {address}: {error.strerror}"
        other = settings.port + 1 if 1024 <= settings.port < 2**16 - 1 else 8642
        raise GraftError(message, fix=f"graft serve --port {other}, or --port 0 for any that is free") from error


def address_of(host: str, port: int, *, guarded: bool) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address to listen on.

    Raises:
        UsageError: It is none, or others than this machine reach it while no administrator has a key.

    >>> str(address_of("localhost", 8642, guarded=False))
    '127.0.0.1'
    """
    try:
        address = ipaddress.ip_address("127.0.0.1" if host.lower() == "localhost" else host.strip("[]"))
    except ValueError as error:
        raise UsageError(f"--host {host} is no IP address", fix="graft serve --host 127.0.0.1") from error
    if not address.is_loopback and not guarded:
        raise UsageError(
            f"others than this machine reach --host {host}, and there is no administrator's key yet, so that whoever "
            "reached the port could read every document",
            fix=f"graft keys create NAME --role admin; or, from elsewhere, ssh -L {port}:127.0.0.1:{port} MACHINE",
        )
    return address


def url_of(listening: socket.socket) -> str:
    """Where the API is, as OpenAI's clients take it for `base_url`."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(
    workspace: Workspace,
    settings: ServingSettings,
    listening: socket.socket,
    *,
    api_key: str | None,
    ready: Callable[[], object],
    pages: Pages | None = None,
) -> bool:
    """Answer requests until SIGINT or SIGTERM; then finish what is under way, for at most `grace_seconds`.

    A second signal gives up what is under way at once. A job that is at work is queued again in either case.

    Args:
        ready: Called once requests are taken.
    Returns: Whether every call ended; one that did not (a hosted model that is silent) still holds its thread.
    Raises:
        UsageError, StoreError, ModelError: See `create_app`.
    """
    with closing(listening):
        app = create_app(workspace, settings, api_key=api_key, pages=pages)
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped in good order
            _Server(_config(app, settings, sockets=pages is not None), ready).run(sockets=[listening])
        app.state.serving.worker.close(seconds=1.0)  # where a second signal came, nobody has told it to end
    return bool(getattr(app.state, "all_ended", False))


@contextmanager
def in_background(
    workspace: Workspace, settings: ServingSettings, *, api_key: str | None = None
) -> Iterator[tuple[str, FastAPI]]:
    """Serve from a thread while the block runs: for notebooks and tests.

    Yields: Where the API is, for `base_url`; and the application.
    Raises:
        GraftError: It cannot listen or open the workspace.
    """
    with closing(listen(settings, guarded=api_key is not None or workspace.identities.has_admin())) as listening:
        app = create_app(workspace, settings, api_key=api_key)
        started = threading.Event()
        server = _Server(_config(app, settings), started.set)
        thread = threading.Thread(target=server.run, args=([listening],), name="graft-serve", daemon=True)
        thread.start()
        started.wait()
        try:
            yield url_of(listening), app
        finally:
            server.should_exit = True
            thread.join()


def _config(app: FastAPI, settings: ServingSettings, *, sockets: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",
        ws="wsproto" if sockets else "none",
        backlog=_BACKLOG,
        lifespan="on",
        log_config=None,  # ours alone: it never holds paths or bodies
        log_level="critical",
        access_log=False,
        proxy_headers=False,  # a client could name itself and its scheme by them
        server_header=False,
        timeout_graceful_shutdown=settings.grace_seconds,
    )


class _Unhandled:
    """What fails outside of a request -> a line of the log, one a second of a kind.

    asyncio itself would print the error's words, and where descriptors run out megabytes of them a second.
    """

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}

    def __call__(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error, moment = context.get("exception"), time.monotonic()
        name = type(error).__name__
        if moment - self._told_at.get(name, -1.0) < 1.0:
            return
        self._told_at[name] = moment
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            LOG.error("no descriptor is left for more connections: ulimit -n tells how many there are")
        elif isinstance(error, Exception):
            log_unexpected(error)
        else:
            LOG.error("unexpected=%s outside of a request", name)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends in good order, a second of either kind at once; uvicorn's own takes SIGINT only."""
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_Unhandled())
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()
