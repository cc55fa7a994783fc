"""Ctrl-C and SIGTERM -> KeyboardInterrupt, which cannot be lost.

A signal's exception is raised wherever the main thread happens to be. Within the import of a native module it comes
out as an ImportError, within a destructor it is printed and forgotten, and a library that builds itself may wait for
ever when it is torn down half built. So that it came is kept, to be asked for at safe points, and it can be put off.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)
_came = threading.Event()


@contextmanager
def heeded(*signals: signal.Signals) -> Iterator[None]:
    """Turn these signals into KeyboardInterrupt, and remember that one came; does nothing beside the main thread."""
    if not _in_main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        _came.set()
        raise KeyboardInterrupt

    _came.clear()
    before = {one: signal.signal(one, interrupt) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def came() -> bool:
    """Whether a signal that is heeded has come, whatever became of its exception."""
    return _came.is_set()


def check() -> None:
    """Raises:
    KeyboardInterrupt: A signal came, and its exception was lost on the way.
    """
    if _came.is_set() and _in_main_thread():
        raise KeyboardInterrupt


@contextmanager
def put_off() -> Iterator[None]:
    """Let what must not be torn down half built be built; a signal that comes meanwhile is delivered after it."""
    if not _in_main_thread():
        yield
        return
    late: list[int] = []
    before = {one: signal.signal(one, lambda number, frame: late.append(number)) for one in _ENDING}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number in late[:1]:
            signal.raise_signal(number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
