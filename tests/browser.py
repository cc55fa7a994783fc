"""A real server, and Debian's Chromium looking at it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Where this machine's browser is; None for Playwright's own."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser; `bash runs/browser.sh` installs one where there is none."""
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        except Exception:
            if os.environ.get("CI"):
                raise
            pytest.skip("no browser here; bash runs/browser.sh installs one")
        yield opened
        opened.close()


@contextmanager
def server(home: Path, **variables: str) -> Iterator[str]:
    """`graft serve` over a workspace; yields where it is, without /v1."""
    command = [sys.executable, "-m", "graft", "serve", "--home", str(home), "--port", "0", "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **variables},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            told: dict[str, Any] = json.loads(process.stdout.readline())
            yield told["url"].removesuffix("/v1")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
