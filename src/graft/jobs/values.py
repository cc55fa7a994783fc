"""What is known of a job, as values; they do not know where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from graft.errors import GraftError

SHOWN_FAILURES = 100
"""Failed items that a Job carries; `Jobs.troubles` has them all."""


class JobStatus(StrEnum):
    """Where a job stands. `interrupted`: its process died or was stopped by Ctrl-C; it can go on."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class ItemTrouble:
    """One item of a job (a file, a question) that did not go well at first, or at all.

    Attributes:
        attempts: How often it was tried.
        error: Why its last failed attempt failed.
        recovered: A later attempt succeeded.
    """

    item: str
    error: str
    fix: str
    attempts: int
    recovered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it was when somebody looked.

    Attributes:
        owner: The principal whose job it is; nobody else but the workspace's owner sees it.
        wanted: "pause" or "cancel" where that was asked for and the job has not come to a safe point yet.
        created, started, ended: UTC, ISO 8601; `started` is the first start, None before it.
        done, total: In `unit`s; total is 0 where it is unknown.
        seconds_left: An estimate from the pace so far; None where there is none.
        failures: The first items that failed, at most SHOWN_FAILURES of all `failed`.
        retried: How many items failed at first and succeeded later.
        result: What the job's function returned; None unless done.
        error, fix: Why it failed, and the remedy; None unless failed.
    """

    id: str
    kind: str
    title: str
    owner: str
    payload: Mapping[str, Any]
    status: JobStatus
    wanted: str
    created: str
    started: str | None
    ended: str | None
    done: float
    total: float
    unit: str
    note: str
    seconds_left: float | None
    failures: tuple[ItemTrouble, ...]
    failed: int
    retried: int
    result: Mapping[str, Any] | None
    error: str | None
    fix: str | None

    @property
    def is_over(self) -> bool:
        """Nothing will happen to it unless somebody resumes it."""
        return self.status not in (JobStatus.QUEUED, JobStatus.RUNNING)

    def outcome(self) -> Mapping[str, Any]:
        """The result of a job that is done.

        Raises:
            GraftError: It is not done: its own error, or where it stands and how to go on.
        """
        if self.status is JobStatus.DONE and self.result is not None:
            return self.result
        if self.error is not None and self.fix is not None:
            raise GraftError(self.error, fix=self.fix)
        go_on = "graft jobs follow" if not self.is_over else "graft jobs resume"
        fix = "start it again" if self.status is JobStatus.CANCELLED else f"{go_on} {self.id}"
        raise GraftError(f"job {self.id} is {self.status}, so it has no result", fix=fix)
