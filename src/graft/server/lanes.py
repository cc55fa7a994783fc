"""a blocking call -> a thread of a bounded pool: so many at once, so many in line, the rest refused.

The library's verbs block; this is where they meet the event loop. It does not know what the calls do.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from starlette.requests import Request

from graft.server.failing import Busy, Stopping

T = TypeVar("T")

Tell = Callable[[str], None]
"""What a call tells its pieces to; it raises ClientLeft once nobody wants them."""

Work = Callable[[Tell], T]

_LONGEST_RETRY_S = 60


class ClientLeft(Exception):
    """The client has gone; what was being made for it is dropped."""


class Running(Generic[T]):
    """A call in line or under way.

    Attributes:
        begun: Set at the first piece, and at the end.
        future: Its result.
    """

    def __init__(self, *, pieces: bool) -> None:
        self.begun = asyncio.Event()
        self.future: Future[T]
        self.started_s: float | None = None
        self._wanted = pieces
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._left = threading.Event()

    def leave(self) -> None:
        """Give the call up: one in line never starts, one under way stops at its next piece."""
        self._left.set()
        self.future.cancel()

    async def next_piece(self, seconds: float) -> str | None:
        """The next piece, None at the end of the call.

        Raises:
            TimeoutError: None came within `seconds`.
        """
        async with asyncio.timeout(seconds):
            return await self._pieces.get()

    def run(self, work: Work[T]) -> T:
        """In a thread."""
        self.started_s = time.perf_counter()
        return work(self._tell)

    def ended(self) -> None:
        """In any thread: no piece follows."""
        self._soon(self._pieces.put_nowait, None)
        self._soon(self.begun.set)

    def _tell(self, piece: str) -> None:
        if self._left.is_set():
            raise ClientLeft
        self._soon(self.begun.set)
        if self._wanted:
            self._soon(self._pieces.put_nowait, piece)

    def _soon(self, call: Callable[..., Any], *values: Any) -> None:
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *values)


class Lane:
    """Threads for one kind of call.

    Args:
        name: What its calls are called in messages, "answers" for instance.
        parallel: Calls at once.
        waiting: Calls in line, first come, first served.
    """

    def __init__(self, name: str, *, parallel: int, waiting: int) -> None:
        self.name = name
        self._parallel = max(1, parallel)
        self._waiting = waiting
        self._threads = ThreadPoolExecutor(self._parallel, thread_name_prefix=f"graft-{name}")
        self._lock = threading.Lock()
        self._under_way: set[Running[Any]] = set()
        self._mean_s = 1.0

    def start(self, work: Work[T], *, pieces: bool = False) -> Running[T]:
        """Begin a call, or put it in line.

        Args:
            pieces: Whether its pieces are wanted; they are kept until they are taken.
        Raises:
            Busy: The line is full.
            Stopping: The lane is closed.
        """
        running: Running[T] = Running(pieces=pieces)
        with self._lock:
            if self.full:
                raise self._busy()
            try:
                running.future = self._threads.submit(copy_context().run, running.run, work)
            except RuntimeError as error:
                raise Stopping("the server is being stopped", fix="ask again when it is back") from error
            self._under_way.add(running)
        running.future.add_done_callback(lambda _: self._ended(running))
        return running

    @property
    def under_way(self) -> int:
        """Calls that are made or wait."""
        return len(self._under_way)

    @property
    def full(self) -> bool:
        """Whether the next call would be refused."""
        return self.under_way >= self._parallel + self._waiting

    def close(self, seconds: float) -> bool:
        """Take nothing more, give up what is under way, and wait for it.

        Returns: Whether everything ended in time.
        """
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            left = list(self._under_way)
        for running in left:
            running.leave()
        return not wait([running.future for running in left], timeout=seconds).not_done

    def _ended(self, running: Running[Any]) -> None:
        with self._lock:
            self._under_way.discard(running)
            if running.started_s is not None:
                self._mean_s += 0.2 * (time.perf_counter() - running.started_s - self._mean_s)
        running.ended()

    def _busy(self) -> Busy:
        ahead = self._waiting + 1
        seconds = min(_LONGEST_RETRY_S, max(1, math.ceil(self._mean_s * ahead / self._parallel / 2)))
        return Busy(
            f"{self._parallel} {self.name} are being made and {self._waiting} wait in line, as many as are allowed",
            fix=f"ask again in {seconds} s, or raise [serving] parallel or waiting in graft.toml",
            retry_after_s=seconds,
        )


async def finished(request: Request, running: Running[T]) -> T:
    """The call's result.

    Raises:
        ClientLeft: The client went away first; the call is given up.
    """
    await _until(request, running, running.future)
    return running.future.result()


async def begun(request: Request, running: Running[Any], *, seconds: float) -> None:
    """Return at the first piece, at the end, or after `seconds`; a call that failed by then raises its failure.

    Raises:
        ClientLeft: The client went away first; the call is given up.
    """
    await _until(request, running, None, seconds=seconds)
    if running.future.done():
        running.future.result()


async def _until(
    request: Request, running: Running[Any], future: Future[Any] | None, *, seconds: float | None = None
) -> None:
    """Wait for the future, or for the call to have begun; whatever ends the wait early gives the call up."""
    left = asyncio.ensure_future(_left(request))
    target: asyncio.Future[Any] = (
        asyncio.ensure_future(running.begun.wait()) if future is None else asyncio.wrap_future(future)
    )
    kept = False
    try:
        await asyncio.wait({left, target}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if left.done() and not target.done():
            raise ClientLeft
        kept = True
    finally:
        left.cancel()
        if not kept:
            running.leave()
        if not target.done():
            target.cancel()
        elif not target.cancelled():
            target.exception()  # it is taken from the call itself


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
