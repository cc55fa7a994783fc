"""Asynchronous scenarios run apart, so that no event loop is left behind."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_aside(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """In another thread: LiteLLM may have left a loop in this one, which `asyncio.run` would orphan."""
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(lambda: asyncio.run(scenario())).result()
