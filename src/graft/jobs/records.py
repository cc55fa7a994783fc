"""Jobs and their troubled items <-> rows, beside the workspace's truth.

With PostgreSQL they lie in the same database. With SQLite they have a file of their own, `jobs.db`: a batch of
documents holds its database's only write lock for as long as it takes, and a job that reports progress or
records a step meanwhile would wait for that, or for itself.
It does not know how jobs are run, nor who may see them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Dialect,
    Engine,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    TypeDecorator,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from graft.errors import NotFound, StoreError
from graft.extras import install
from graft.jobs.values import SHOWN_FAILURES, ItemTrouble, Job, JobStatus

FILE_NAME = "jobs.db"
SCHEMA = 1
"""Of these tables. A later Graft raises it and says here how the former becomes the new."""
_BUSY_SECONDS = 60
_NAMED = 5  # jobs that an error about an unknown one names


class _AnyText(TypeDecorator[str]):
    """Text that may come from outside, file names of any bytes say: what no database takes is kept as escapes."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


_metadata = MetaData()
_jobs = Table(
    "jobs",
    _metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("title", _AnyText, nullable=False),
    Column("owner", String, nullable=False, index=True),
    Column("payload", Text, nullable=False),
    Column("status", String, nullable=False, index=True),
    Column("wanted", String, nullable=False, default=""),
    Column("created", String, nullable=False),
    Column("started", String),
    Column("ended", String),
    Column("done", Float, nullable=False, default=0),
    Column("total", Float, nullable=False, default=0),
    Column("unit", _AnyText, nullable=False, default=""),
    Column("note", _AnyText, nullable=False, default=""),
    Column("seconds_left", Float),
    Column("result", Text),
    Column("error", _AnyText),
    Column("fix", _AnyText),
    Column("starts", Integer, nullable=False, default=0),
)
_items = Table(
    "job_items",
    _metadata,
    Column("job_id", String, primary_key=True),
    Column("item", _AnyText, primary_key=True),
    Column("error", _AnyText, nullable=False),
    Column("fix", _AnyText, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("recovered", Boolean, nullable=False),
)
_schema = Table("jobs_schema", _metadata, Column("version", Integer, primary_key=True))


def database_url(store_url: str, home: Path) -> URL:
    """Where jobs are kept, for a workspace whose truth is at `store_url`."""
    if store_url.startswith(("postgresql", "postgres:")):
        return make_url(store_url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")
    return URL.create("sqlite", database=str((home / FILE_NAME).resolve()))


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Records:
    """The rows of one workspace's jobs. A SQLite file is made by the first job; before, reads find nothing.

    Raises:
        StoreError: By every method, if the database cannot be used.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._opening = threading.Lock()
        self._opened: Engine | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a database: a server's always, a file once there was a job."""
        return self._opened is not None or not self.is_sqlite or Path(str(self.url.database)).exists()

    @property
    def engine(self) -> Engine:
        """Connections; the database and its tables are made if they are not there."""
        with self._opening, self._explained():
            if self._opened is None:
                self._opened = _open(self.url)
            return self._opened

    def close(self) -> None:
        """Give back all connections."""
        if self._opened is not None:
            self._opened.dispose()

    def add(self, job_id: str, *, kind: str, title: str, owner: str, payload: str) -> None:
        """Write a new job, queued; the payload as JSON."""
        row = {"id": job_id, "kind": kind, "title": title, "owner": owner, "payload": payload}
        with self._writing() as connection:
            connection.execute(insert(_jobs).values(**row, status=JobStatus.QUEUED, created=now()))

    def begin(self, job_id: str) -> None:
        """Write that a job runs; `started` is that of its first start."""
        with self._writing() as connection:
            connection.execute(
                update(_jobs)
                .where(_jobs.c.id == job_id)
                .values(
                    status=JobStatus.RUNNING,
                    started=func.coalesce(_jobs.c.started, now()),
                    ended=None,
                    starts=_jobs.c.starts + 1,
                )
            )

    def change(self, job_id: str, **values: Any) -> None:
        """Write some of a job's columns; `result` as a value, not as JSON."""
        if values.get("result") is not None:
            values["result"] = json.dumps(values["result"])
        with self._writing() as connection:
            connection.execute(update(_jobs).where(_jobs.c.id == job_id).values(values))

    def want(self, job_id: str, wanted: str) -> bool:
        """Write what is wanted of a job that runs or waits; False, and nothing written, if it does neither now."""
        active = _jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])
        with self._writing() as connection:
            asked = update(_jobs).where(_jobs.c.id == job_id, active).values(wanted=wanted)
            return connection.execute(asked).rowcount > 0

    def progress(self, job_id: str, values: Mapping[str, Any], items: Sequence[ItemTrouble]) -> str:
        """Write how far a job is and what went wrong since; returns what is wanted of it: "", "pause", "cancel"."""
        with self._writing() as connection:
            for item in items:
                key = (_items.c.job_id == job_id) & (_items.c.item == item.item)
                connection.execute(delete(_items).where(key))
                connection.execute(insert(_items).values(job_id=job_id, **_columns(item)))
            changed = update(_jobs).where(_jobs.c.id == job_id).values(**values).returning(_jobs.c.wanted)
            return str(connection.execute(changed).scalar_one())

    def get(self, job_id: str, owners: frozenset[str] | None) -> Job:
        """One job.

        Args:
            owners: Whose jobs may be seen; None: everybody's.
        Raises:
            NotFound: There is none of that id, or these may not know of it.
        """
        found = self.find(owners, ids=[job_id])
        if found:
            return found[0]
        have = [job.id for job in self.find(owners, limit=_NAMED)]
        raise NotFound(f"no job {job_id!r}; have {', '.join(have) or 'none'}", fix="graft jobs list")

    def find(
        self,
        owners: frozenset[str] | None,
        *,
        ids: Iterable[str] | None = None,
        statuses: Iterable[JobStatus] | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        """Jobs, the newest first."""
        if not self.exists:
            return []
        query = select(_jobs).order_by(_jobs.c.created.desc(), _jobs.c.id).limit(limit)
        for column, wanted in ((_jobs.c.owner, owners), (_jobs.c.id, ids), (_jobs.c.status, statuses)):
            if wanted is not None:
                query = query.where(column.in_(list(wanted)))
        with self._reading() as connection:
            rows = connection.execute(query).all()
            troubled = _counts(connection, [row.id for row in rows])
            return [_job(connection, row, *troubled.get(row.id, (0, 0))) for row in rows]

    def starts(self, job_id: str) -> int:
        """How often the job was started since it was queued or resumed."""
        with self._reading() as connection:
            return int(connection.execute(select(_jobs.c.starts).where(_jobs.c.id == job_id)).scalar_one())

    def troubles(self, job_id: str) -> list[ItemTrouble]:
        """All items that did not go well at first."""
        with self._reading() as connection:
            return _troubles(connection, job_id, limit=None)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._explained(), self.engine.connect() as connection:
            connection = connection.execution_options(graft_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._explained(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, OSError) as error:
            cause = str(error.orig if isinstance(error, DBAPIError) else error).strip()
            if self.is_sqlite:
                name = str(self.url.database)
                fix = "see with df -h that there is room; a damaged file can be moved away, documents are not in it"
            else:
                name = self.url.render_as_string(hide_password=True)
                fix = "check that the server runs and that [store] url in graft.toml names it"
            raise StoreError(f"the jobs in {name} cannot be used: {cause}", fix=fix) from error


def _open(url: URL) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            engine = create_engine(url, pool_pre_ping=True)
            _ensure_schema(engine)
            return engine
    except ImportError as error:
        raise StoreError(
            f"the driver of {url.drivername} is not installed ({error})", fix=install("postgres")
        ) from error
    file = Path(str(url.database))
    file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None})
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA journal_mode = WAL"))
    event.listen(engine, "begin", _begin_sqlite)
    with FileLock(file.parent / "open.lock"):  # two processes may not switch a new file to WAL at once
        _ensure_schema(engine)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("graft_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _ensure_schema(engine: Engine) -> None:
    with engine.connect().execution_options(graft_writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":  # two processes may not make the tables at once
            connection.execute(select(func.pg_advisory_xact_lock(0x6A6F6273)))
        _metadata.create_all(connection)
        version = connection.execute(select(_schema.c.version)).scalar()
        if version is None:
            connection.execute(insert(_schema).values(version=SCHEMA))
        elif version > SCHEMA:
            raise StoreError(
                f"the jobs have schema {version}, made by a newer Graft; this one knows up to {SCHEMA}",
                fix="pip install --upgrade graft-llm",
            )


def _columns(item: ItemTrouble) -> dict[str, Any]:
    return {
        "item": item.item,
        "error": item.error,
        "fix": item.fix,
        "attempts": item.attempts,
        "recovered": item.recovered,
    }


def _counts(connection: Connection, job_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Job id -> (items that failed, items that recovered), for jobs that have any."""
    counted: dict[str, tuple[int, int]] = {}
    rows = connection.execute(
        select(_items.c.job_id, _items.c.recovered, func.count())
        .where(_items.c.job_id.in_(job_ids))
        .group_by(_items.c.job_id, _items.c.recovered)
    )
    for job_id, recovered, count in rows:
        failed, retried = counted.get(job_id, (0, 0))
        counted[job_id] = (failed, count) if recovered else (count, retried)
    return counted


def _troubles(connection: Connection, job_id: str, *, limit: int | None) -> list[ItemTrouble]:
    query = select(_items).where(_items.c.job_id == job_id).order_by(_items.c.recovered, _items.c.item).limit(limit)
    return [
        ItemTrouble(row.item, row.error, row.fix, row.attempts, bool(row.recovered))
        for row in connection.execute(query)
    ]


def _job(connection: Connection, row: Row[Any], failed: int, retried: int) -> Job:
    shown = _troubles(connection, row.id, limit=SHOWN_FAILURES) if failed else []
    return Job(
        id=row.id,
        kind=row.kind,
        title=row.title,
        owner=row.owner,
        payload=json.loads(row.payload),
        status=JobStatus(row.status),
        wanted=row.wanted,
        created=row.created,
        started=row.started,
        ended=row.ended,
        done=row.done,
        total=row.total,
        unit=row.unit,
        note=row.note,
        seconds_left=row.seconds_left,
        failures=tuple(trouble for trouble in shown if not trouble.recovered),
        failed=failed,
        retried=retried,
        result=None if row.result is None else json.loads(row.result),
        error=row.error,
        fix=row.fix,
    )
