"""The pictures of docs/page.md, made anew: python -m tests.pictures

The sample handbook, asked real questions, in Chromium: each page wide and light, and narrow and dark.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from graft.workspace import Workspace
from tests.browser import browser, server
from tests.conftest import HANDBOOK, ROOT

INTO = ROOT / "docs" / "pictures"
QUESTION = "How many unused holiday days can I take over into next year?"
LOOKS = (("wide", "light", 1280, 800), ("narrow", "dark", 360, 740))


def take() -> None:
    """All of them."""
    INTO.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        with Workspace(Path(folder) / "home") as workspace:
            workspace.add([str(HANDBOOK)])
        with server(Path(folder) / "home") as root, browser() as opened:
            for width, scheme, across, down in LOOKS:
                context = opened.new_context(
                    viewport={"width": across, "height": down},
                    color_scheme="dark" if scheme == "dark" else "light",
                )
                page = context.new_page()
                for name in ("chat", "documents", "tune", "compare", "advise", "server"):
                    page.goto(f"{root}/app/{'' if name == 'chat' else name}")
                    page.wait_for_load_state("networkidle")
                    if name == "chat":
                        _ask(page)
                    page.wait_for_timeout(700)
                    page.screenshot(path=INTO / f"{name}-{width}-{scheme}.png")
                context.close()


def _ask(page: Page) -> None:
    page.get_by_label("Your question").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".message.graft .figures")).to_have_count(1, timeout=60_000)
    if page.viewport_size and page.viewport_size["width"] > 1000:
        page.locator(".chip, .near").first.click()
        expect(page.locator(".source .text")).to_be_visible()


if __name__ == "__main__":
    take()
