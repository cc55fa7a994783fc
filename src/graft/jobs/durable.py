"""A job's id and its code -> the code run in this thread, its completed steps kept and never run again.

A DBOS workflow a job, in the database of the jobs. DBOS records which steps completed, with their results, and
that only the latest run of a job may record more. Failures, pauses and Ctrl-C leave the code as exceptions that
DBOS does not record, so that the same job can go on later.

It does not know what jobs are for, or how they stand: that is in `records`. This is the only module that imports
DBOS, which takes 0.9 s of processor time; so it is itself imported only where a job runs.
"""

from __future__ import annotations

import contextvars
import json
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# DBOS gives its logger a handler on stderr when it is imported, unless the logger has one.
logging.getLogger("dbos").addHandler(logging.NullHandler())

from dbos import DBOS, DBOSPortableJSONSerializer, SetWorkflowID  # noqa: E402
from dbos import error as dbos_error  # noqa: E402
from sqlalchemy.engine import URL  # noqa: E402

from graft.errors import GraftError, StoreError, UsageError  # noqa: E402
from graft.jobs.running import JobLost  # noqa: E402

_PICKUP_SECONDS = 60
"""Until DBOS hands over a job that goes on: a second on a quiet machine."""
_POLL_SECONDS = 0.05


class _Unrecorded(BaseException):
    """Carries a failure out through DBOS, which would keep it as the outcome for ever were it an Exception."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


_bodies: dict[str, Callable[[], None]] = {}
_lock = threading.Lock()
_users = 0
_url: URL | None = None
_queue = ""


@DBOS.workflow(name="graft_job", max_recovery_attempts=None)
def _job(job_id: str) -> None:
    _bodies[job_id]()


@contextmanager
def launched(url: URL) -> Iterator[None]:
    """DBOS at work on the database at `url`; one database at a time in one process.

    Raises:
        UsageError: Called by a job, or while this process runs jobs of another workspace or uses DBOS itself.
        StoreError: The database cannot be used.
    """
    global _users, _url
    if DBOS.workflow_id is not None:
        raise UsageError("a job cannot run another one within itself", fix="submit it, and let a worker run it")
    with _lock:
        if _users and _url != url:
            raise UsageError(
                "this process runs jobs of another workspace just now", fix="use a process for each workspace"
            )
        if not _users:
            _launch(url)
            _url = url
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                DBOS.destroy()


def run(job_id: str, body: Callable[[], None]) -> None:
    """Run the body of a job in this thread, within `launched`; what it raises is raised here."""
    try:
        if DBOS.get_workflow_status(job_id) is None:
            _begin(job_id, body)
        else:
            _go_on(job_id, body)
    except _Unrecorded as carried:
        raise carried.cause from None


def step(key: str, function: Callable[[], Any]) -> Any:
    """Run a step of the job whose body calls this, or return what it returned when it completed before.

    Raises:
        GraftError: The result is not JSON, or the job's code takes other steps than when it began.
        JobLost: Another process took the job over.
    """

    def once() -> str:
        try:
            return _to_json(key, function())
        except Exception as error:
            raise _Unrecorded(error) from None

    try:
        return json.loads(DBOS.run_step({"name": key}, once))
    except _Unrecorded as carried:
        raise carried.cause from None
    except (dbos_error.DBOSUnexpectedStepError, dbos_error.DBOSStepNondeterminismError) as error:
        raise GraftError(
            f"step {key!r} does not follow where this job was stopped: its code has changed since ({error})",
            fix="cancel the job and start it again",
        ) from error
    except (dbos_error.DBOSWorkflowCancelledError, dbos_error.DBOSWorkflowConflictIDError) as error:
        raise JobLost from error  # DBOS itself would now wait for the other process's outcome


def _begin(job_id: str, body: Callable[[], None]) -> None:
    _bodies[job_id] = _carrying(body)
    try:
        with SetWorkflowID(job_id):
            _job(job_id)
    finally:
        del _bodies[job_id]


def _go_on(job_id: str, body: Callable[[], None]) -> None:
    """Take over a workflow that began earlier.

    DBOS starts those from a queue, in a thread of its own. That thread hands its context over and waits, so that
    the job's code runs in the thread that asked for it: Ctrl-C reaches it there. The queue is this process's own,
    lest another one pick the job up.
    """
    handed: queue.Queue[contextvars.Context] = queue.Queue()
    ended: queue.Queue[BaseException | None] = queue.Queue()

    def hand_over() -> None:
        handed.put(contextvars.copy_context())
        if (outcome := ended.get()) is not None:
            raise _Unrecorded(outcome)

    _bodies[job_id] = hand_over
    outcome: BaseException | None = None
    try:
        DBOS.cancel_workflow(job_id)  # whoever ran it may record no more
        DBOS.register_queue(_queue, polling_interval_sec=_POLL_SECONDS)
        handle = DBOS.resume_workflow(job_id, queue_name=_queue)
        try:
            context = handed.get(timeout=_PICKUP_SECONDS)
        except queue.Empty:
            raise StoreError(
                f"job {job_id} was not handed over within {_PICKUP_SECONDS} s", fix=f"graft jobs resume {job_id}"
            ) from None
        finally:
            DBOS.delete_queue(_queue)
        context.run(_carrying(body))
    except BaseException as error:
        outcome = error
        raise
    finally:
        ended.put(outcome)
        del _bodies[job_id]
    handle.get_result(polling_interval_sec=_POLL_SECONDS)


def _carrying(body: Callable[[], None]) -> Callable[[], None]:
    def carried() -> None:
        try:
            body()
        except Exception as error:
            raise _Unrecorded(error) from None

    return carried


def _to_json(key: str, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise GraftError(
            f"step {key!r} returned what is not JSON: {error}", fix="return numbers, text, lists, dicts"
        ) from error


def _launch(url: URL) -> None:
    global _queue
    executor = secrets.token_hex(8)  # a process's own, so that DBOS leaves the jobs of dead ones to us
    _queue = f"graft-{executor}"
    dbos = DBOS(
        config={
            "name": "graft",
            "system_database_url": url.render_as_string(hide_password=False),
            "executor_id": executor,
            "application_version": "graft",  # an upgrade of Graft may go on with what the former began
            "serializer": DBOSPortableJSONSerializer(),  # the default is pickle, which runs what it reads
            "log_level": "CRITICAL",
            "enable_otlp": False,
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": 0.2,  # how long it may take to end
        }
    )
    if dbos._launched:
        raise UsageError(
            "this process uses DBOS for something else", fix="run the job in a process of its own: graft jobs resume"
        )
    try:
        DBOS.listen_queues([_queue])
        DBOS.launch()
    except Exception as error:
        DBOS.destroy()
        raise StoreError(
            f"the steps of jobs cannot be kept in {url.render_as_string()}: {error}",
            fix="check that the disk has room, or that the server runs",
        ) from error
