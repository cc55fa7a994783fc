"""A citation or a hit -> its source beside the answer: the page of a PDF with the words marked, or the text around.

A citation names a version; where that is no longer the newest, or the document is gone, the panel says so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from graft.errors import GraftError, NotFound
from graft.server.authorising import Serving
from graft.web.answers import where
from graft.web.frame import telling
from graft.web.visiting import Visitor
from graft.workspace.documents import Passage

_AROUND, _WHOLE = 1500, 20_000
"""Characters shown before and after."""

_STATES = {
    "superseded": "This document has changed since: the answer rests on an earlier version, shown here.",
    "removed": "This document was removed since. What it said is no longer kept.",
}
_VERDICTS = {
    "supported": "Bears the statement out",
    "partly": "Bears out a part of the statement",
    "unsupported": "Does not bear the statement out",
}


@dataclass(frozen=True, slots=True)
class _Seen:
    passage: Passage
    picture: bytes | None


class SourcePanel:
    """The panel; shut at first."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self.foot: ui.element | None = None
        self._panel = ui.element("aside").classes("source").props('aria-label="Source" tabindex=-1')

    @telling
    async def open(self, range: Mapping[str, Any], *, whole: bool = False) -> None:
        """Show where a citation or a hit stands; or a whole document, from its beginning."""
        self._panel.clear()
        self._panel.classes(add="open")
        with self._panel:
            self._head(where(range))
            if range.get("document_id") is None:
                self._verdict(range)
                ui.label("No passage of your documents speaks of this.").classes("hint")
                return
            waiting = ui.spinner(size="lg")
        try:
            seen = await self._visitor.look(lambda seat: _seen(seat, range, _WHOLE if whole else _AROUND))
        except GraftError:
            self.shut()
            raise
        waiting.delete()
        with self._panel:
            self._show(range, seen, whole=whole)
            self.foot = ui.element("div").classes("foot")

    def shut(self) -> None:
        """Put it away."""
        self._panel.classes(remove="open")
        self._panel.clear()

    def _head(self, title: str) -> None:
        with ui.element("div").classes("head"):
            ui.label(title).classes("title")
            ui.button(icon="close", on_click=self.shut).props('flat round dense aria-label="Close the source"')

    def _verdict(self, range: Mapping[str, Any]) -> None:
        verdict = range.get("verdict")
        if verdict is None:
            return
        with ui.element("div").classes(f"verdict {verdict}"):
            ui.label(_VERDICTS.get(str(verdict), str(verdict)))
            ui.label(f"“{range.get('claim', '')}”").classes("claim")
            if range.get("missing"):
                ui.label(f"Not in the source: {', '.join(range['missing'])}").classes("hint")
            if range.get("opposed"):
                ui.label("The source says the opposite.").classes("hint")

    def _show(self, range: Mapping[str, Any], seen: _Seen, *, whole: bool) -> None:
        quote = seen.passage.quote
        if quote.state in _STATES:
            ui.label(_STATES[quote.state]).classes("state")
        ui.label(f"version {quote.version}").classes("hint")
        self._verdict(range)
        if quote.state == "removed":
            return
        if seen.picture is not None:
            image = ui.element("img").classes("sheet")
            image.props["src"] = "data:image/png;base64," + base64.b64encode(seen.picture).decode()
            image.props["alt"] = f"The page with the words marked: {quote.text}"
        with ui.element("div").classes("text"):
            ui.label(_from_a_line(seen.passage.before)).classes("words")
            ui.label(quote.text).classes("words" if whole else "words marked")
            ui.label(seen.passage.after).classes("words")
        if seen.picture is None:
            ui.run_javascript("document.querySelector('.source .marked')?.scrollIntoView({block: 'center'})")


def _seen(seat: Serving, range: Mapping[str, Any], around: int) -> _Seen:
    workspace = seat.workspace
    at = (range["document_id"], range["version"], range["start"], range["end"])
    passage, picture = workspace.passage(*at, around=around), None
    if range.get("page") is not None and passage.quote.state != "removed":
        with suppress(NotFound):  # the format has no pages, or the file is gone: its words are kept
            picture = workspace.picture(*at)
    return _Seen(passage, picture)


def _from_a_line(before: str) -> str:
    """Without the rest of a line that was cut."""
    return before if len(before) < 1000 else before.partition("\n")[2]
