"""The tools over standard input and output, and over HTTP at /mcp.

HTTP is stateless: each request brings its key, is authorised as every other, and is answered in JSON, so that there
is no session to steal or to keep. It does not know what the tools do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from mcp.server.mcpserver import Context
from starlette.types import Receive, Scope, Send

from graft.server.authorising import Seat, Serving, open_serving
from graft.server.mcp_tools import mcp_server
from graft.workspace import Workspace

_LAST_SECONDS = 5.0


class McpOverHttp:
    """The route, and what must run behind it.

    Args:
        most_bytes: Of a request's body.
    """

    def __init__(self, most_bytes: int) -> None:
        server = mcp_server(_seat_of_request)
        server.streamable_http_app(stateless_http=True, json_response=True, max_request_body_size=most_bytes)
        self._manager = server.session_manager
        self.router = APIRouter(tags=["mcp"])
        self.router.post("/mcp", response_model=None, include_in_schema=False)(self._call)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Serve until this is left; once."""
        return self._manager.run()

    async def _call(self, request: Request, seat: Seat) -> Response:
        """One message of a Model Context Protocol client."""
        request.state.seat = seat
        return _Handed(self._manager.handle_request)


class _Handed(Response):
    """A response that another application writes."""

    def __init__(self, application: Any) -> None:
        super().__init__()
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


def _seat_of_request(ctx: Context[Any, Any]) -> Serving:
    request = ctx.request_context.request
    assert isinstance(request, Request)  # what this transport always gives
    seat: Serving = request.state.seat
    return seat


def serve_stdio(workspace: Workspace, *, folders: Iterable[Path] = (), may_add: bool = True) -> None:
    """Answer the process that started this one, as whom the workspace acts, until it closes standard input.

    Args:
        folders: Those that `add` may read from.
    """
    serving = open_serving(workspace, workspace.settings.serving)
    asyncio.run(_over_stdio(serving, folders, may_add=may_add))


async def _over_stdio(serving: Serving, folders: Iterable[Path], *, may_add: bool) -> None:
    server = mcp_server(lambda _: serving, folders=folders, may_add=may_add)
    try:
        await server.run_stdio_async()
    finally:
        lanes = (serving.answers, serving.lookups, serving.imports)
        await asyncio.gather(*(asyncio.to_thread(lane.close, _LAST_SECONDS) for lane in lanes))
