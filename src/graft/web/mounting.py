"""The application of the API -> the same, with pages below /app.

NiceGUI's assets come from its package: nothing is loaded from elsewhere, and the policy below lets nothing be. The
framework compiles templates in the browser and writes its first state into the page, which takes 'unsafe-eval' and
'unsafe-inline' for scripts; everything that could carry words away is closed all the same: no picture, frame, form,
connection or font leads to another host.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graft.web import administering, advise, chat, compare, documents, tune
from graft.web.signing_in import sign_in_page
from graft.web.visiting import visitor_of

ROOT = "/app"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def mount(app: FastAPI) -> None:
    """Put the pages into an application; one application a process can have them."""
    serving = app.state.serving

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse(f"{ROOT}/")

    @app.get(f"{ROOT}/sign-in", include_in_schema=False)
    def sign_in(next: str | None = None, refused: bool = False) -> HTMLResponse:
        page = sign_in_page(with_provider=serving.openid is not None, next=next, refused=refused)
        return HTMLResponse(page, headers={"content-security-policy": POLICY})

    @ui.page("/")
    async def chat_page(request: Request) -> object:
        return await chat.show(visitor_of(request, serving), request)

    @ui.page("/documents")
    async def documents_page(request: Request) -> object:
        return await documents.show(visitor_of(request, serving), request)

    @ui.page("/tune")
    async def tune_page(request: Request) -> object:
        return await tune.show(visitor_of(request, serving), request)

    @ui.page("/compare")
    async def compare_page(request: Request) -> object:
        return await compare.show(visitor_of(request, serving), request)

    @ui.page("/advise")
    async def advise_page(request: Request) -> object:
        return await advise.show(visitor_of(request, serving), request)

    @ui.page("/server")
    async def server_page(request: Request) -> object:
        return await administering.show(visitor_of(request, serving), request)

    nicegui_app.add_static_files("/look", str(Path(__file__).parent / "look"))
    ui.run_with(
        app,
        mount_path=ROOT,
        title="Graft",
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
    )
    nicegui_app.add_middleware(_Policy)


class _Policy:
    """What a browser may load and where it may send, on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = POLICY
                headers["referrer-policy"] = "same-origin"
            await send(message)

        await self._app(scope, receive, marked)
