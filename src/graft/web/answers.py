"""An answer with its proof -> elements: text, numbered chips, what was found where nothing answers, time and cost.

It does not know where an answer comes from: one just made and one kept for a year look the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

OpenSource = Callable[[Mapping[str, Any]], Any]
"""Called with a citation or a hit, as `GraftPart` has them."""

_MARKS = re.compile(r"\s?\[(\d+)\]|\s?\[(unsupported|partly supported)\]")
_CHIP = {
    "supported": "The source bears this out.",
    "partly": "The source bears out only a part of this.",
    "unsupported": "No source bears this out.",
}
_HOW = {
    "quoted": "In the words of your documents, for the model's own did not pass the check.",
    "closed_book": "From the model alone: nothing was looked up, nothing was checked.",
}


def show_answer(text: str, proof: Mapping[str, Any], open_source: OpenSource) -> None:
    """The answer within the element at hand.

    Args:
        proof: A `GraftPart` as JSON, with `usage` and `model`.
    """
    mode, citations = proof.get("mode", ""), proof.get("citations", [])
    if mode == "abstained":
        ui.label(text).classes("abstained")
        if proof.get("reason"):
            ui.label(proof["reason"]).classes("hint")
        _nearest(proof.get("hits", []), open_source)
    else:
        _marked(text, citations, open_source)
        if mode in _HOW:
            ui.label(_HOW[mode]).classes("hint")
    _figures(proof)


def _marked(text: str, citations: list[Mapping[str, Any]], open_source: OpenSource) -> None:
    with ui.element("div").classes("answer"):
        at = 0
        for mark in _MARKS.finditer(text):
            _words(text[at : mark.start()])
            at = mark.end()
            if mark[1] is None:
                ui.label(mark[2]).classes("flaw")
            elif 0 < (number := int(mark[1])) <= len(citations):
                _chip(number, citations[number - 1], open_source)
            else:
                _words(mark[0])
        _words(text[at:])


def _words(text: str) -> None:
    if text:
        ui.label(text).classes("words")


def _chip(number: int, citation: Mapping[str, Any], open_source: OpenSource) -> None:
    verdict = str(citation.get("verdict", "unsupported"))
    told = f"{_CHIP.get(verdict, '')} {citation.get('document') or 'No source.'}"
    chip = ui.button(str(number), on_click=lambda: open_source(citation)).props("flat dense no-caps unelevated")
    chip.classes(f"chip {verdict}")
    chip.props["aria-label"] = f"Source {number}: {told}"
    with chip:
        ui.tooltip(told)


def _nearest(hits: list[Mapping[str, Any]], open_source: OpenSource) -> None:
    if not hits:
        return
    ui.label("The nearest passages:").classes("hint")
    for hit in hits[:3]:
        with ui.button(on_click=lambda _, hit=hit: open_source(hit)).props("flat no-caps align=left").classes("near"):
            ui.label(where(hit)).classes("from")
            ui.label(_short(hit["text"])).classes("excerpt")


def _figures(proof: Mapping[str, Any]) -> None:
    latency, used = proof.get("latency_ms") or {}, proof.get("usage") or {}
    if not latency:
        return
    cost = proof.get("cost_usd")
    money = "" if not cost else f", ${cost:.4f}"
    with ui.expansion(f"{latency['total'] / 1000:.1f} s{money}").props("dense dense-toggle").classes("figures"):
        rows = {
            "Model": proof.get("model", ""),
            "Looking up": f"{latency['retrieve']:.0f} ms",
            "First word": "-" if latency.get("first_token") is None else f"{latency['first_token']:.0f} ms",
            "Checking": f"{latency['verify']:.0f} ms",
            "Tokens": f"{used.get('input_tokens', 0):,} read, {used.get('output_tokens', 0):,} written",
            "Searched for": proof.get("question", ""),
        }
        for name, value in rows.items():
            with ui.element("div").classes("figure"):
                ui.label(name).classes("name")
                ui.label(value)


def where(range: Mapping[str, Any]) -> str:
    """The place of a citation or a hit in words: document and page.

    >>> where({"document": "a.pdf", "page": 3}), where({"document": "a.md", "page": None})
    ('a.pdf, page 3', 'a.md')
    """
    page = range.get("page")
    return f"{range.get('document') or 'no document'}{'' if page is None else f', page {page}'}"


def _short(text: str, most: int = 220) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else words[:most].rsplit(" ", 1)[0] + " …"
