"""What every page has around it: name, navigation, light or dark, who one is; and how a failure is shown.

Whatever comes from documents, models or people goes onto a page as text of an element, by `ui.label` and its like,
and never as HTML or Markdown: the browser gets it as data. That is the one way, and a test looks for others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse
from nicegui import ui

from graft.errors import GraftError
from graft.extras import install
from graft.server.authorising import Serving, session_cookie
from graft.server.failing import Unauthorised
from graft.server.log import log_unexpected
from graft.web.visiting import Visitor

P = ParamSpec("P")

_LOOK = '<link rel="stylesheet" href="/app/look/graft.css"><script src="/app/look/graft.js"></script>'
PAGES = (
    ("Chat", "/", "chat_bubble_outline"),
    ("Documents", "/documents", "description"),
    ("Tune", "/tune", "tune"),
    ("Compare", "/compare", "balance"),
    ("Advise", "/advise", "explore"),
    ("Server", "/server", "dns"),
)
_FOR_ADMINISTRATORS = ("/server",)
_THEME = "graft-theme"


async def seated(visitor: Visitor, request: Request) -> Serving | RedirectResponse:
    """What the visitor may use, or where to go to sign in."""
    try:
        return await visitor.seat()
    except Unauthorised:
        return RedirectResponse(f"/app/sign-in?next={quote('/app' + request.url.path.removeprefix('/app'))}", 303)


@contextmanager
def frame(seat: Serving, request: Request, title: str) -> Iterator[None]:
    """The page's surroundings; its content is made within."""
    ui.page_title(f"{title} · Graft")
    ui.add_head_html(_LOOK)
    chosen = request.cookies.get(_THEME)
    dark = ui.dark_mode({"dark": True, "light": False}.get(chosen or ""))
    with ui.header().classes("bar"):
        ui.link("Graft", "/").classes("brand")
        with ui.element("nav").props('aria-label="Pages"'):
            for name, path, icon in PAGES:
                if path in _FOR_ADMINISTRATORS and not seat.caller.may("admin"):
                    continue
                with ui.link(target=path).classes("here" if name == title else ""):
                    ui.icon(icon).props("aria-hidden=true")
                    ui.label(name)
        ui.space()
        _theme_button(dark)
        _who(seat, has_session=session_cookie(seat) in request.cookies)
    with ui.element("div").classes("page"):
        ui.label(title).classes("unseen").props("role=heading aria-level=1")
        yield


def _theme_button(dark: ui.dark_mode) -> None:
    def turn() -> None:
        dark.value = not dark.value
        kept = "dark" if dark.value else "light"
        ui.run_javascript(f'document.cookie = "{_THEME}={kept}; path=/app; max-age=31536000; samesite=lax"')

    ui.button(icon="contrast", on_click=turn).props('flat round dense aria-label="Light or dark"')


def _who(seat: Serving, *, has_session: bool) -> None:
    caller = seat.caller
    with ui.button(icon="person").props('flat round dense aria-label="Who you are"'), ui.menu():
        ui.label(f"{caller.name}, {caller.role}").classes("who")
        if has_session:
            ui.menu_item("Sign out", on_click=lambda: ui.run_javascript(_SIGN_OUT))


_SIGN_OUT = "fetch('/auth/logout', {method: 'POST'}).then(() => location.assign('/app/sign-in'))"


def telling(action: Callable[P, Awaitable[Any]]) -> Callable[P, Awaitable[None]]:
    """The action; if it fails, the person is told what and what to do, and nothing else is lost."""

    @wraps(action)
    async def told(*args: P.args, **kwargs: P.kwargs) -> None:
        with ui.context.client:  # the page's, for what was pressed may be gone by the end
            try:
                await action(*args, **kwargs)
            except Unauthorised:
                ui.navigate.to("/sign-in")
            except GraftError as error:
                tell(error)
            except ImportError as error:  # of an extra
                ui.notify(f"This needs {error.name}, which is not installed here: {install('tune')}", type="negative")
            except Exception as error:  # the edge: logged without its words
                log_unexpected(error)
                ui.notify("Something unexpected; the server's log has where.", type="negative")

    return told


def tell(error: GraftError) -> None:
    """What went wrong, and what to do."""
    ui.notify(
        f"{error.message}\n{error.fix}".strip(), type="negative", multi_line=True, timeout=10_000, close_button="OK"
    )


def minutes(seconds: float) -> str:
    """A time in words.

    >>> minutes(20), minutes(130)
    ('20 s', '2 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
