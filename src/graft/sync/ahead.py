"""jobs -> their outcomes in the same order, worked on by several readers at once, with bounded memory.

Each reader has a thread that only waits for its process, so one interpreter keeps all cores busy. It does not
know what a job is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from graft.errors import GraftError
from graft.readers.sandbox import SandboxedReader

MOST_CHARACTERS = 4_000_000
"""Of texts that wait to be taken, at which no further job is begun; with its boxes a character takes 20 bytes."""

_LEAST_AHEAD = 16  # jobs begun and not taken: a slow file in front does not stop the readers behind it
_LEAVE_SECONDS = 2.0

J = TypeVar("J")
T = TypeVar("T")


def read_ahead(
    jobs: Sequence[J],
    take: Callable[[J, SandboxedReader], T],
    readers: Sequence[SandboxedReader],
    *,
    weigh: Callable[[T], int],
) -> Generator[T | GraftError, None, None]:
    """Do every job, as many at a time as there are readers.

    Close the generator (`contextlib.closing`) if it is not used up: the files being read are then given up,
    their processes killed.

    Args:
        take: Does one job; called in any thread.
        weigh: Characters that an outcome keeps in memory.
    Returns: One outcome for each job, in the order of the jobs; a GraftError that was raised is one.
    Raises: Whatever else `take` raises.
    """
    shelf = _Shelf(jobs, take, weigh, most_ahead=_LEAST_AHEAD + 2 * len(readers))
    threads = [threading.Thread(target=shelf.fill, args=(reader,), daemon=True) for reader in readers]
    try:
        for thread in threads:
            thread.start()
        for number in range(len(jobs)):
            yield shelf.outcome(number)
    finally:
        shelf.close()
        until = time.monotonic() + _LEAVE_SECONDS  # a download under way is not waited for
        for reader, thread in zip(readers, threads, strict=True):
            thread.join(0.05)  # at the regular end there is nothing left to do, and the processes stay warm
            while thread.is_alive() and time.monotonic() < until:
                reader.stop()
                thread.join(0.05)


@dataclass(frozen=True, slots=True)
class _Crash:
    """An error that is nobody's result: raised where the outcome is taken."""

    error: BaseException


class _Shelf(Generic[J, T]):
    """Outcomes that wait until it is their turn."""

    def __init__(
        self,
        jobs: Sequence[J],
        take: Callable[[J, SandboxedReader], T],
        weigh: Callable[[T], int],
        *,
        most_ahead: int,
    ) -> None:
        self._jobs = jobs
        self._take = take
        self._weigh = weigh
        self._most_ahead = most_ahead
        self._changed = threading.Condition()
        self._waiting: dict[int, T | GraftError | _Crash] = {}
        self._begun = self._taken = self._characters = 0
        self._closed = False

    def fill(self, reader: SandboxedReader) -> None:
        """Do jobs until none is left."""
        while (number := self._next()) is not None:
            outcome: T | GraftError | _Crash
            try:
                outcome = self._take(self._jobs[number], reader)
            except GraftError as error:
                outcome = error
            except BaseException as error:
                outcome = _Crash(error)
            with self._changed:
                self._waiting[number] = outcome
                self._characters += self._weight(outcome)
                self._changed.notify_all()

    def outcome(self, number: int) -> T | GraftError:
        """What became of a job; waits for it."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._waiting)
            outcome = self._waiting.pop(number)
            self._taken += 1
            self._characters -= self._weight(outcome)
            self._changed.notify_all()
        if isinstance(outcome, _Crash):
            raise outcome.error
        return outcome

    def close(self) -> None:
        """Begin no further job."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._begun == len(self._jobs) or self._has_room())
            if self._closed or self._begun == len(self._jobs):
                return None
            self._begun += 1
            return self._begun - 1

    def _has_room(self) -> bool:
        # Jobs begin in order, so the one that is waited for has begun, or nothing waits and there is room.
        return self._begun - self._taken < self._most_ahead and self._characters < MOST_CHARACTERS

    def _weight(self, outcome: T | GraftError | _Crash) -> int:
        return 0 if isinstance(outcome, GraftError | _Crash) else self._weigh(outcome)
