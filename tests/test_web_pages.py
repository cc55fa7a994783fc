"""What can be said of the pages without a browser."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

PAGES = ROOT / "src" / "graft" / "web"


def test_nothing_untrusted_can_reach_a_page_as_html() -> None:
    """The one way is the text of an element: what writes HTML is used with constants alone, or not at all."""
    for path in PAGES.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            name = call.func.attr
            assert name not in ("html", "markdown", "restructured_text", "mermaid", "add_body_html", "add_css"), path
            if name in ("add_head_html", "add_slot"):
                assert all(isinstance(one, ast.Name | ast.Constant) for one in call.args), (path, call.lineno)
    for path in (PAGES / "look").glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", path.read_text())


def test_every_page_asks_who_looks_at_it() -> None:
    mounting = ast.parse((PAGES / "mounting.py").read_text(encoding="utf-8"))
    pages = [
        one
        for one in ast.walk(mounting)
        if isinstance(one, ast.AsyncFunctionDef) and "ui.page" in "".join(map(ast.unparse, one.decorator_list))
    ]
    assert len(pages) >= 2
    for page in pages:
        (shown,) = re.findall(r"(\w+)\.show\(visitor_of\(request, serving\), request\)", ast.unparse(page))
        text = (PAGES / f"{shown}.py").read_text(encoding="utf-8")
        assert (
            "seat = await seated(visitor, request)\n    if not isinstance(seat, Serving):\n        return seat"
            in text
        )
        assert "serving.workspace" not in text, "a page that does not act as its visitor"
