"""a workspace and its settings -> the ASGI application: routes, failures, door.

Routes are grouped by what they are about, one file each; a further group is one file with a router and one
line here. What a route may use it gets from `authorising.Seat` alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from graft.errors import GraftError
from graft.server import (
    chat,
    conversations,
    files,
    fine_tuning,
    health,
    login,
    lookups,
    own,
    people,
    responses,
    vector_store_files,
    vector_stores,
)
from graft.server.authorising import Serving, authorised, open_serving
from graft.server.door import Door, Observe, Seen, is_loopback
from graft.server.failing import ErrorBody, failure_of, http_failure, validation_failure
from graft.server.idempotency import Once, Replay, forget_old, once
from graft.server.lanes import ClientLeft
from graft.server.mcp_transports import McpOverHttp
from graft.server.polling import fail_left_over
from graft.settings import ServingSettings
from graft.workspace import Workspace

V1 = (
    *(chat.router, responses.router, conversations.router, lookups.router, files.router, vector_stores.router),
    vector_store_files.router,
    *(fine_tuning.router, fine_tuning.models_router, own.router, people.router),
)

Pages = Callable[[FastAPI], object]

_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_CHANGE_NOTHING = frozenset(
    {
        *(
            "/v1/chat/completions",
            "/v1/embeddings",
            "/v1/search",
            "/v1/responses",
            "/v1/advice",
            "/v1/citations/resolve",
            "/v1/citations/page",
        ),
        "/v1/vector_stores/{vector_store_id}/search",
    }
)
_LONGEST_ID = 100
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own would tell paths, queries and the words of errors; see `door` and `tracing` for ours."""

_EVERY_S = 60.0
"""Between two looks for files whose time is over."""

_LAST_SECONDS = 5.0
"""For calls that were given up at the end: the time until their next token."""

_FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "A parameter is wrong, unknown or not supported; `param` names it."},
    401: {"model": ErrorBody, "description": "The key is missing or wrong."},
    403: {"model": ErrorBody, "description": "Asked for under another host's name, or by another site's page."},
    404: {"model": ErrorBody, "description": "No such model or collection."},
    409: {"model": ErrorBody, "description": "The documents' vectors are another embedder's."},
    413: {"model": ErrorBody, "description": "The body is over the limit."},
    429: {"model": ErrorBody, "description": "The line is full; Retry-After says when to ask again."},
    500: {"model": ErrorBody, "description": "Something unexpected; the log has it under x-request-id."},
    502: {"model": ErrorBody, "description": "The model cannot answer."},
    503: {"model": ErrorBody, "description": "The server is being stopped."},
    "4XX": {"model": ErrorBody, "description": "Any other refusal."},
}


def create_app(
    workspace: Workspace,
    settings: ServingSettings | None = None,
    *,
    api_key: str | None = None,
    pages: Pages | None = None,
) -> FastAPI:
    """The application over an open workspace, which stays its caller's to close.

    Opens what all requests share, the store and the embedder, so that a failure shows here and not in a request.

    Args:
        settings: Instead of the workspace's own.
        api_key: The owner's, asked for on every route under /v1 beside those of `workspace.identities`; without
            any key, none is asked for.
        pages: Puts pages for people into it.
    Raises:
        UsageError: The key is empty or cannot be sent.
        StoreError, ModelError: The workspace cannot be opened.
    """
    chosen = settings or workspace.settings.serving
    serving = open_serving(workspace, chosen, api_key=api_key)
    for lane in (serving.answers, serving.lookups, serving.imports):
        serving.metrics.watch_line(lane.name, lambda lane=lane: lane.under_way)  # type: ignore[misc]
    serving.metrics.watch_jobs(lambda: [job.status.value for job in workspace.jobs.list()])
    app = FastAPI(
        title="Graft",
        summary="OpenAI's API over your own documents, with citations that a machine has checked.",
        version=version("graft-llm"),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
        lifespan=_lifespan,
    )
    app.state.serving = serving
    for router in V1:
        app.include_router(router, dependencies=[Depends(authorised), Depends(once)], responses=_FAILURES)
    app.include_router(health.router)
    app.include_router(login.router, responses=_FAILURES)
    app.state.mcp = McpOverHttp(chosen.max_body_mb * 1_000_000)
    app.include_router(app.state.mcp.router, responses=_FAILURES)
    if pages is not None:
        pages(app)
    app.add_exception_handler(GraftError, _graft_failed)
    app.add_exception_handler(HTTPException, _http_failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientLeft, _client_left)
    app.add_exception_handler(Replay, _replayed)
    app.add_middleware(Once)  # within the door
    host = chosen.host if is_loopback(chosen.host) else None
    app.add_middleware(
        Door,
        host=host,
        max_body_bytes=chosen.max_body_mb * 1_000_000,
        public_origin=workspace.settings.oidc.public_url.rstrip("/"),
        observe=_observer(serving),
        uploads={"/v1/files": serving.most_file_bytes + 1_000_000},  # the form around a file has a size too
    )
    return app


def _observer(serving: Serving) -> Observe:
    """Counts every request, and writes down those that change something."""

    def observe(seen: Seen) -> None:
        serving.metrics.request(seen.method, seen.route, seen.status, seen.seconds)
        if seen.method in _CHANGES and seen.route.startswith("/v1/") and seen.route not in _CHANGE_NOTHING:
            serving.workspace.audit.record(
                f"{seen.method} {seen.route}",
                caller=seen.caller or "nobody",
                status=seen.status,
                request=seen.request_id,
                **{name: value[:_LONGEST_ID] for name, value in seen.parameters.items()},
            )

    return observe


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    serving: Serving = app.state.serving
    await asyncio.to_thread(fail_left_over, serving.workspace)
    caring = [asyncio.create_task(_care(serving)), asyncio.create_task(serving.worker.care())]
    async with app.state.mcp.running():
        yield
    for task in caring:
        task.cancel()
    ended = asyncio.create_task(asyncio.to_thread(serving.worker.close))
    lanes = (serving.answers, serving.lookups, serving.imports)
    closed = [asyncio.to_thread(lane.close, _LAST_SECONDS) for lane in lanes]
    app.state.all_ended = all(await asyncio.gather(*closed))
    await ended


async def _care(serving: Serving) -> None:
    """Read what a server that was stopped had not read; remove what has expired, now and every minute."""
    for one in await asyncio.to_thread(serving.workspace.unfinished_files):
        store, _, file = one.id.partition("/")
        theirs = replace(serving, workspace=serving.workspace.acting_as(one.principals))
        vector_store_files.read_later(theirs, store, file)
    while True:
        await asyncio.to_thread(serving.workspace.remove_expired)
        await asyncio.to_thread(serving.workspace.sweep_files)
        await asyncio.to_thread(forget_old, serving.workspace.objects)
        await asyncio.sleep(_EVERY_S)


async def _graft_failed(_: Request, error: Exception) -> Response:
    return failure_of(error).response()


async def _http_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # what it is registered for
    detail = error.detail
    if error.status_code in (404, 405):
        detail = f"no route {request.method} of this path; GET /openapi.json lists them"
    return http_failure(error.status_code, detail).response()


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # what it is registered for
    return validation_failure(error.errors()).response()


async def _replayed(_: Request, error: Exception) -> Response:
    assert isinstance(error, Replay)  # what it is registered for
    return error.response


async def _client_left(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the log shows that the client closed the request
