"""GET /health, GET /ready, GET /metrics: for whoever watches the process; nothing of the documents.

The first two ask for no key. The third asks for an administrator's, where there are keys.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from graft.errors import GraftError
from graft.server.authorising import AdminSeat, Serving
from graft.server.replies import Health, Readiness

router = APIRouter(tags=["operation"])


@router.get("/health", response_model=Health)
async def health() -> Health:
    """The process answers."""
    return Health()


@router.get("/ready", response_model=Readiness, responses={503: {"model": Readiness}})
async def ready(request: Request) -> JSONResponse:
    """Whether a question would be answered now: 200, or 503 with what is in the way."""
    problems = await asyncio.to_thread(_problems, request.app.state.serving)
    reply = Readiness(ready=not problems, problems=problems)
    return JSONResponse(reply.model_dump(), 200 if reply.ready else 503)


@router.get("/metrics", response_class=Response)
def metrics(seat: AdminSeat) -> Response:
    """Requests, answers, tokens, cost, lines and jobs, as Prometheus reads them."""
    return Response(seat.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _problems(serving: Serving) -> list[str]:
    problems = []
    try:
        serving.workspace.collections()
        name = serving.workspace.settings.model.default
        if not any(model.name == name and model.ready for model in serving.workspace.models()):
            serving.workspace.model(name)
    except GraftError as error:
        problems.append(str(error))
    if serving.answers.full:
        problems.append("as many answers are under way and in line as are allowed")
    return problems
