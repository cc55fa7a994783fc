"""A job's id -> the one process that may run it; nothing is left behind by a process that dies.

Beside SQLite, which serves one machine, a locked file: the kernel lets go of it when its process dies, at
once and whatever killed it. Beside PostgreSQL, which serves many, the same from the server: an advisory lock
that lasts as long as its connection. So there is no heartbeat to tune and no lease to wait for. Should a
connection break while its process lives on, DBOS refuses the next step of the process that lost the job.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

_POLL_SECONDS = 0.02


class Claim(Protocol):
    """That this process may run a job."""

    def holds(self) -> bool:
        """Whether it still may."""
        ...


class Ownership(Protocol):
    """Who runs which job."""

    @contextmanager
    def claim(self, job_id: str, *, seconds: float) -> Iterator[Claim | None]:
        """Claim a job for the length of the block; None where another has it and keeps it for `seconds`."""
        ...

    def claimed(self, job_ids: Iterable[str]) -> frozenset[str]:
        """Those of the jobs that somebody has claimed, this process included."""
        ...


class FileOwnership:
    """For the processes of one machine: a locked file in each job's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def claim(self, job_id: str, *, seconds: float) -> Iterator[Claim | None]:
        """See Ownership."""
        lock = self._lock(job_id)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=seconds, poll_interval=_POLL_SECONDS)
        except Timeout:
            yield None
            return
        try:
            yield _FileClaim()
        finally:
            lock.release()

    def claimed(self, job_ids: Iterable[str]) -> frozenset[str]:
        """See Ownership. A look takes the lock for microseconds, which `claim` waits out."""
        found = set()
        for job_id in job_ids:
            lock = self._lock(job_id)
            if not Path(lock.lock_file).exists():
                continue
            try:
                lock.acquire(timeout=0)
            except Timeout:
                found.add(job_id)
            else:
                lock.release()
        return frozenset(found)

    def _lock(self, job_id: str) -> FileLock:
        return FileLock(self._folder / job_id / "lock")


class _FileClaim:
    def holds(self) -> bool:
        return True


class ServerOwnership:
    """For the processes of many machines: an advisory lock of the PostgreSQL server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def claim(self, job_id: str, *, seconds: float) -> Iterator[Claim | None]:
        """See Ownership."""
        key = _key(job_id)
        until = time.monotonic() + seconds
        with self._engine.connect() as connection:
            while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar():
                if time.monotonic() > until:
                    yield None
                    return
                time.sleep(_POLL_SECONDS)
            try:
                yield _ServerClaim(connection)
            finally:
                if not connection.invalidated:  # a broken connection has let go of it already
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})

    def claimed(self, job_ids: Iterable[str]) -> frozenset[str]:
        """See Ownership."""
        with self._engine.connect() as connection:
            held = connection.execute(
                text(
                    "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' "
                    "AND objsubid = 1 AND granted "
                    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            ).scalars()
            keys = set(held)
        return frozenset(job_id for job_id in job_ids if _key(job_id) in keys)


class _ServerClaim:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def holds(self) -> bool:
        if self._connection.invalidated:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:
            return False
        return True


def _key(job_id: str) -> int:
    """A job's lock among the server's: 63 bits, so that both halves of pg_locks give it back as it was."""
    return int.from_bytes(hashlib.sha256(f"graft job {job_id}".encode()).digest()[:8]) >> 1
