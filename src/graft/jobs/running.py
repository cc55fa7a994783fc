"""A running job's code -> its steps, progress, safe points and troubled items: what the code calls.

It does not know where they are kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from graft import interrupts
from graft.errors import AccessDenied, GraftError, LimitExceeded, NotFound, UsageError
from graft.jobs.values import ItemTrouble

T = TypeVar("T")

_BEAT_SECONDS = 0.3
"""Between two writes of progress, and two looks for whether the job is wanted to stop."""
_FIRST_WAIT_SECONDS = 0.2
_SAME_AGAIN = (UsageError, NotFound, AccessDenied, LimitExceeded)
"""Failures that another attempt would only repeat."""


class JobStopped(BaseException):
    """The job was asked to stop: "pause" or "cancel". Not an Exception, so that no item's handler swallows it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class JobLost(BaseException):
    """Another process has taken the job over; this one must not touch it any more."""


class ItemFailed(GraftError):
    """An item failed at every attempt; it is recorded, and the job may go on with the next."""


class Behind(Protocol):
    """What carries a job."""

    def step(self, key: str, function: Callable[[], Any]) -> Any:
        """Run a step, or return what it returned when it completed before."""
        ...

    def beat(self, progress: Progress, troubles: Sequence[ItemTrouble]) -> str:
        """Keep the progress and the troubles since the last beat; returns "", "pause" or "cancel"."""
        ...


class Progress:
    """How far a job is, and its pace since the first report of the stage: a stage is a unit and a total."""

    def __init__(self) -> None:
        self.done, self.total, self.unit, self.note = 0.0, 0.0, "", ""
        self._began, self._done_before, self._anew = time.monotonic(), 0.0, False

    def begin_anew(self) -> None:
        """What the next report says was done before: leave it out of the pace."""
        self._anew = True

    def set(self, done: float, total: float, unit: str, note: str) -> None:
        """Take over what was reported."""
        if self._anew or (total, unit) != (self.total, self.unit) or done < self.done:
            self._began, self._done_before, self._anew = time.monotonic(), done, False
        self.done, self.total, self.unit, self.note = done, total, unit, note

    @property
    def seconds_left(self) -> float | None:
        """What is left, at the mean pace of the stage; None before its second report."""
        made = self.done - self._done_before
        if made <= 0 or self.total <= 0:
            return None
        return round(max(0.0, self.total - self.done) * (time.monotonic() - self._began) / made, 1)


class JobRun:
    """What a job's function is given. `report`, `fail_item` and `retry` may be called from any thread.

    Attributes:
        id: The job's.
    """

    def __init__(self, job_id: str, folder: Path, behind: Behind, failed_before: Sequence[ItemTrouble] = ()) -> None:
        self.id = job_id
        self._folder, self._behind = folder, behind
        self._failed_before = {trouble.item: trouble for trouble in failed_before}
        self._progress, self._troubles = Progress(), dict[str, ItemTrouble]()
        self._lock, self._last_beat, self._wanted = threading.RLock(), 0.0, ""

    @property
    def folder(self) -> Path:
        """The job's own folder, for files that are too large for JSON; it is made, and stays."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def step(self, key: str, function: Callable[[], T]) -> T:
        """Run a step once: its result is kept, and after a crash it is returned without running the step again.

        A step that was cut off runs again, so it must be safe to run twice. After a resume the job's code runs
        from its start and must take the same steps in the same order; work that depends on what is found begins
        with a step that finds it. Steps are taken by the thread that runs the job.

        Args:
            key: The step's name, part of the order above.
            function: Returns JSON: numbers, text, lists, mappings with text keys, None.
        Raises:
            JobStopped: The job was asked to stop; before the step begins.
            KeyboardInterrupt: Ctrl-C came before, and was lost on its way up.
            GraftError: The result is not JSON, or the code no longer takes the steps it took.
        """
        self._beat(at_once=False)
        self._stop_if_wanted()

        ran = False

        def run() -> T:
            nonlocal ran
            ran = True
            result = function()
            self._beat(at_once=bool(self._troubles))  # what a step recorded is kept before it counts as done
            return result

        result: T = self._behind.step(key, run)
        if not ran:
            self._progress.begin_anew()
        return result

    def report(self, done: float, total: float, unit: str, note: str = "") -> None:
        """Say how far the job is; cheap enough for every item.

        Args:
            total: 0 where unknown.
            unit: What is counted, in the plural; another unit or total starts a new estimate of the time left.
        """
        self._progress.set(done, total, unit, note)
        self._beat(at_once=False)

    def check(self) -> None:
        """A safe point: to be called wherever the job may be stopped; cheap enough for every item.

        Raises:
            JobStopped: Somebody wants it paused or cancelled; let it pass once files are closed.
            KeyboardInterrupt: As of `step`.
        """
        self._beat(at_once=False)
        self._stop_if_wanted()

    def fail_item(self, item: str, error: str, fix: str) -> None:
        """Record that an item failed; the same item again replaces it."""
        self._record(ItemTrouble(item, error, fix, attempts=1, recovered=False))

    def retry(self, item: str, function: Callable[[], T], attempts: int = 3) -> T:
        """Try an item until it succeeds, waiting longer each time; why an attempt failed is recorded.

        Raises:
            ItemFailed: The last attempt failed, or another would fail likewise (a usage error, a limit).
            JobStopped: The job was asked to stop between two attempts.
        """
        failure: Exception | None = None
        for attempt in range(1, attempts + 1):
            try:
                result = function()
            except Exception as error:
                failure = error
                if attempt == attempts or isinstance(error, _SAME_AGAIN):
                    reason, fix = describe(error)
                    self._record(ItemTrouble(item, reason, fix, attempt, recovered=False))
                    raise ItemFailed(f"{item}: {reason}", fix=fix) from error
                self.check()
                time.sleep(_FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
            else:
                if failure is not None:
                    self._record(ItemTrouble(item, *describe(failure), attempt, recovered=True))
                elif (before := self._failed_before.get(item)) is not None:  # in a run that was cut off
                    self._record(replace(before, attempts=before.attempts + attempt, recovered=True))
                return result
        raise UsageError(f"retry with {attempts} attempts tries nothing", fix="attempts=1 or more")

    def flush(self) -> None:
        """Keep what was reported and recorded so far."""
        self._beat(at_once=True)

    def _record(self, trouble: ItemTrouble) -> None:
        with self._lock:
            self._troubles[trouble.item] = trouble
        self._beat(at_once=False)

    def _beat(self, *, at_once: bool) -> None:
        if not at_once and time.monotonic() - self._last_beat < _BEAT_SECONDS:
            return
        with self._lock:
            self._wanted = self._behind.beat(self._progress, list(self._troubles.values()))
            self._troubles.clear()
            self._last_beat = time.monotonic()

    def _stop_if_wanted(self) -> None:
        interrupts.check()
        if self._wanted:
            raise JobStopped(self._wanted)


def describe(error: Exception) -> tuple[str, str]:
    """An exception as (what went wrong, what to do)."""
    if isinstance(error, GraftError):
        return error.message, error.fix
    return f"unexpected {type(error).__name__}: {error}", "run it again; if it fails again, report it with this text"
