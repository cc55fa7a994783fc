"""Kinds of jobs + a workspace's folder -> jobs submitted, run, followed, stopped and resumed.

Any process of the workspace may submit, look and stop; one at a time runs a job. It does not know what the kinds
do, and imports DBOS only when it runs one.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from graft import interrupts
from graft.access import OWNER, Principals
from graft.access import principals as check_principals
from graft.errors import AccessDenied, UsageError
from graft.jobs.carrying import Kind, carry, engine
from graft.jobs.ownership import Claim, FileOwnership, Ownership, ServerOwnership
from graft.jobs.records import Records, database_url, now
from graft.jobs.values import ItemTrouble, Job, JobStatus

_KIND = re.compile(r"[a-z][a-z0-9-]{0,30}")
_CLAIM_SECONDS = 0.5
"""For a process that only looks whether a job is running to let go of it."""
_STEER_ROUNDS = 5
"""Looks at a job that changes hands; only one that its own holder steers is met so often."""
_STOP_CLAIM_SECONDS = 0.2
_MOST_STARTS = 5
"""After so many crashes in a row a worker leaves a job to people: it may be what kills the workers."""
_FOLLOW_SECONDS = 0.5
_FOR_GOOD = (JobStatus.DONE, JobStatus.CANCELLED)
_DEAD = {"": JobStatus.INTERRUPTED, "pause": JobStatus.PAUSED, "cancel": JobStatus.CANCELLED}
"""What a job is whose process died, by what was wanted of it."""


class Jobs:
    """The jobs of one workspace.

    Methods that take a job's id raise NotFound where there is none, or these principals may not know of it.

    Args:
        home: The workspace's folder; artefacts of jobs lie in `home/jobs/ID`.
        url: The store's URL; jobs are kept in the same PostgreSQL, or beside the SQLite file.
        kinds: What this process can run, by name: lower case letters, digits and hyphens.
        principals: Who acts. They see their own jobs; the workspace's owner sees all.
    """

    def __init__(
        self, home: Path, url: str, kinds: Mapping[str, Kind], *, principals: Principals = frozenset({OWNER})
    ) -> None:
        for name in kinds:
            if not _KIND.fullmatch(name):
                raise UsageError(f"{name!r} cannot name a kind of job", fix="lower case letters, digits and hyphens")
        self._folder = home / "jobs"
        self._kinds = dict(kinds)
        self._principals = check_principals(principals)
        self._records = Records(database_url(url, home))

    def acting_as(self, principals: Principals) -> Jobs:
        """The same jobs as others see them; closed with these."""
        other = copy.copy(self)
        _ = self._ownership  # shared, too
        other.__dict__["_ownership"] = self._ownership
        other._principals = check_principals(principals)
        return other

    def close(self) -> None:
        """Let go of the database; the jobs can be used again."""
        self._records.close()

    # Submit and run

    def submit(self, kind: str, payload: Mapping[str, Any], *, title: str, principal: str | None = None) -> Job:
        """Queue a job, for a worker or for `run`.

        Args:
            payload: JSON for the kind's function.
            title: What a person reads in the list.
            principal: Whose job it is; by default the owner's where the owner acts, else the acting user's.
        Raises:
            UsageError: No such kind here, or the payload is not JSON.
            AccessDenied: Those who act may not act for `principal`.
        """
        job_id = self._new_id(kind)
        self._add(job_id, kind, payload, title, principal)
        return self.get(job_id)

    def start(
        self,
        kind: str,
        payload: Mapping[str, Any],
        *,
        title: str,
        principal: str | None = None,
        progress: Callable[[Job], object] = lambda job: None,
    ) -> Job:
        """Submit a job and run it here, with no moment between in which a worker could take it."""
        job_id = self._new_id(kind)
        with self._claimed(job_id) as claim:
            self._add(job_id, kind, payload, title, principal)
            return self._run(job_id, claim, progress, ctrl_c=JobStatus.INTERRUPTED)

    def run(self, job_id: str, *, progress: Callable[[Job], object] = lambda job: None) -> Job:
        """Run a job in this thread until it ends, going on after its last completed step.

        Args:
            progress: Told of each change, a few times a second.
        Returns: The job as it ended: done, failed, paused or cancelled; interrupted, or running elsewhere, where
            the connection to PostgreSQL broke meanwhile. One that was done before is returned as it is.
        Raises:
            UsageError: It runs elsewhere, was cancelled, or is of a kind that this process cannot run.
            KeyboardInterrupt: Ctrl-C; the job is `interrupted`, and can go on.
        """
        job = self.get(job_id)
        with self._claimed(job.id) as claim:
            job = self._at_rest(job.id)
            if job.status is JobStatus.DONE:
                return job
            if job.status is JobStatus.CANCELLED:
                raise UsageError(f"job {job.id} was cancelled", fix="start it anew")
            if job.status is not JobStatus.QUEUED:
                self._requeue(job.id)
            return self._run(job.id, claim, progress, ctrl_c=JobStatus.INTERRUPTED)

    def work(
        self,
        *,
        progress: Callable[[Job], object] = lambda job: None,
        wait_seconds: float | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> int:
        """Run what is queued, and what dead processes left behind, one after another, the oldest first.

        Jobs that were paused, that failed, or that somebody ended by Ctrl-C wait for `resume`.

        Args:
            wait_seconds: Between two looks for new jobs; None: return when there are no more.
            until: Asked before each job; True ends the work.
        Returns: How many jobs ended here.
        Raises:
            KeyboardInterrupt: Ctrl-C; the job at hand is queued again.
        """
        ended, is_up = 0, False
        with ExitStack() as stack:
            while not until():
                before = ended
                interrupts.check()
                for job_id in self._waiting():
                    if until():
                        break
                    if not is_up:  # from the first job on, instead of for each
                        stack.enter_context(engine(self._records))
                        is_up = True
                    ended += self._work_on(job_id, progress)
                if ended > before:
                    continue
                if wait_seconds is None:
                    break
                time.sleep(wait_seconds)
        return ended

    # Look

    def get(self, job_id: str) -> Job:
        """One job as it is now."""
        return self._as_seen([self._records.get(job_id, self._owners)])[0]

    def list(self, *, limit: int | None = None) -> tuple[Job, ...]:
        """Jobs, the newest first."""
        return tuple(self._as_seen(self._records.find(self._owners, limit=limit)))

    def some_wait(self) -> bool:
        """Whether `work` would find something to do: queued, or left behind by a process that died."""
        return bool(self._waiting())

    def troubles(self, job_id: str) -> tuple[ItemTrouble, ...]:
        """All items that failed, then those that succeeded at a later attempt, each with its reason."""
        return tuple(self._records.troubles(self.get(job_id).id))

    def follow(self, job_id: str, *, every_seconds: float = _FOLLOW_SECONDS) -> Iterator[Job]:
        """The job now, and again at each change, until it is over; from any process."""
        before = None
        while True:
            job = self.get(job_id)
            if job != before:
                yield job
            if job.is_over:
                return
            before = job
            time.sleep(every_seconds)

    # Stop and go on

    def cancel(self, job_id: str) -> Job:
        """End a job for good: at once, or at its next safe point where it runs (`wanted` until then).

        Raises:
            UsageError: It is done or cancelled.
        """
        return self._stop(job_id, "cancel", _FOR_GOOD)

    def pause(self, job_id: str) -> Job:
        """Stop a job so that it can go on: at once, or at its next safe point where it runs.

        Raises:
            UsageError: It is done, cancelled or failed.
        """
        return self._stop(job_id, "pause", (*_FOR_GOOD, JobStatus.FAILED))

    def resume(self, job_id: str) -> Job:
        """Queue a job again that was paused or interrupted, or that failed; `run` goes on with it here.

        A pause that a running job has not come to yet is taken back.

        Raises:
            UsageError: It is done or cancelled.
        """

        def queue(job: Job) -> None:
            if job.status is not JobStatus.QUEUED:
                self._requeue(job.id)

        return self._steer(job_id, "", queue, _FOR_GOOD)

    def _stop(self, job_id: str, wanted: str, refused: Sequence[JobStatus]) -> Job:
        def end(job: Job) -> None:
            self._records.change(job.id, status=_DEAD[wanted], wanted="", ended=now(), seconds_left=None)

        return self._steer(job_id, wanted, end, refused)

    def _steer(self, job_id: str, wanted: str, at_rest: Callable[[Job], None], refused: Sequence[JobStatus]) -> Job:
        """Tell whoever runs a job what is wanted of it, or do that to a job that nobody runs."""
        for _ in range(_STEER_ROUNDS):  # it may end between the look at who runs it and the word to them
            self._refuse(self.get(job_id), refused)
            with self._ownership.claim(job_id, seconds=_STOP_CLAIM_SECONDS) as claim:
                if claim is not None:
                    job = self._at_rest(job_id)
                    self._refuse(job, refused)
                    at_rest(job)
                if claim is not None or self._records.want(job_id, wanted):
                    return self.get(job_id)
        raise UsageError(f"job {job_id} is just ending", fix=f"graft jobs show {job_id}")

    def _refuse(self, job: Job, statuses: Sequence[JobStatus]) -> None:
        if job.status in statuses:
            raise UsageError(f"job {job.id} is {job.status}", fix=f"graft jobs show {job.id}")

    # Below

    @cached_property
    def _ownership(self) -> Ownership:
        return FileOwnership(self._folder) if self._records.is_sqlite else ServerOwnership(self._records.engine)

    @property
    def _owners(self) -> frozenset[str] | None:
        return None if OWNER in self._principals else self._principals

    @contextmanager
    def _claimed(self, job_id: str) -> Iterator[Claim]:
        with self._ownership.claim(job_id, seconds=_CLAIM_SECONDS) as claim:
            if claim is None:
                raise UsageError(f"job {job_id} is running in another process", fix=f"graft jobs follow {job_id}")
            yield claim

    def _new_id(self, kind: str) -> str:
        self._kind(kind)
        return f"{kind}-{secrets.token_hex(4)}"

    def _kind(self, name: str) -> Kind:
        if name not in self._kinds:
            raise UsageError(
                f"no kind of job {name!r} here; have {', '.join(self._kinds) or 'none'}",
                fix="pip install --upgrade graft-llm",
            )
        return self._kinds[name]

    def _add(self, job_id: str, kind: str, payload: Mapping[str, Any], title: str, principal: str | None) -> None:
        if principal is None:
            principal = OWNER if OWNER in self._principals else min(self._principals, key=_users_first)
        [owner] = check_principals([principal])
        if not self._principals & {OWNER, owner}:
            raise AccessDenied(f"{', '.join(sorted(self._principals))} may not act for {owner}", fix="--as " + owner)
        try:
            text = json.dumps(payload, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"the payload of a job of kind {kind!r} is not JSON: {error}", fix="pass JSON"
            ) from error
        self._records.add(job_id, kind=kind, title=title, owner=owner, payload=text)

    def _requeue(self, job_id: str) -> None:
        self._records.change(
            job_id, status=JobStatus.QUEUED, wanted="", starts=0, ended=None, error=None, fix=None, seconds_left=None
        )

    def _at_rest(self, job_id: str) -> Job:
        """A job that nobody runs: its claim is held here, by one who is not running it yet."""
        return _unattended(self._records.get(job_id, self._owners))

    def _as_seen(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """The jobs as they are, whatever their rows say that dead processes left behind."""
        live = [job.id for job in jobs if job.status is JobStatus.RUNNING or job.wanted]
        if not live:
            return jobs
        ownerless = set(live) - self._ownership.claimed(live)
        # Read again: one that ended between the two looks wrote so before it let go.
        late = {job.id: job for job in self._records.find(self._owners, ids=ownerless)}
        return [_unattended(late.get(job.id, job)) if job.id in ownerless else job for job in jobs]

    def _waiting(self) -> Sequence[str]:
        """Jobs that this process may run, the oldest first."""
        found = self._records.find(self._owners, statuses=(JobStatus.QUEUED, JobStatus.RUNNING))
        waiting = (JobStatus.QUEUED, JobStatus.INTERRUPTED)
        return [job.id for job in reversed(self._as_seen(found)) if job.status in waiting and job.kind in self._kinds]

    def _work_on(self, job_id: str, progress: Callable[[Job], object]) -> bool:
        """Run one job of the queue, unless another process was quicker; whether it ended here."""
        with self._ownership.claim(job_id, seconds=_STOP_CLAIM_SECONDS) as claim:
            if claim is None:
                return False
            status = self._at_rest(job_id).status
            if status is JobStatus.INTERRUPTED and self._records.starts(job_id) >= _MOST_STARTS:
                self._records.change(
                    job_id,
                    status=JobStatus.FAILED,
                    ended=now(),
                    error=f"its process died {_MOST_STARTS} times in a row",
                    fix=f"look at the machine's memory, then graft jobs resume {job_id}",
                )
                return True
            if status not in (JobStatus.QUEUED, JobStatus.INTERRUPTED):
                return False
            self._run(job_id, claim, progress, ctrl_c=JobStatus.QUEUED)
            return True

    def _run(self, job_id: str, claim: Claim, progress: Callable[[Job], object], *, ctrl_c: JobStatus) -> Job:
        job = self._records.get(job_id, self._owners)
        carry(
            job,
            self._kind(job.kind),
            records=self._records,
            claim=claim,
            folder=self._folder / job_id,
            progress=progress,
            ctrl_c=ctrl_c,
        )
        ended = self.get(job_id)
        progress(ended)
        return ended


def _unattended(job: Job) -> Job:
    if job.status is JobStatus.RUNNING or (job.status is JobStatus.QUEUED and job.wanted):
        return replace(job, status=_DEAD[job.wanted], wanted="", seconds_left=None)
    return job


def _users_first(principal: str) -> tuple[bool, str]:
    return not principal.startswith("user:"), principal
