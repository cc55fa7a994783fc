"""SQLAlchemy URL -> connections to the one truth, its schema current, its failures explained.

SQLite is the default, in WAL mode: readers never wait, a writer is never half seen. PostgreSQL runs the
same statements. It does not know what the tables mean.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from graft.errors import StoreError, UsageError
from graft.store.tables import SCHEMA, metadata, sequence

FILE_NAME = "graft.db"
BUSY_SECONDS = 60
"""How long a writer waits for another; a batch of hundreds of documents takes a second or two."""

_CACHE_KIB = 32_768  # SQLite's page cache for one connection; the default of 2 MiB doubles the time of a batch
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)
_UPGRADE_LOCK = 0x67726166  # any number that no other program on the server uses for pg_advisory_lock


class Database:
    """Connections to one database whose tables are those of `graft.store.tables`.

    A SQLite file is made by the first write that adds something (`writing(makes=True)`). Until then reads
    see empty tables and leave nothing on disk: a mistyped `--home` is no new workspace.

    Raises:
        UsageError: `url` is not a SQLAlchemy URL of SQLite or PostgreSQL.
        StoreError: It cannot be opened, is damaged, or was made by a newer Graft.
    """

    def __init__(self, url: str, *, home: Path) -> None:
        self.url = _parse(url, home)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._connected(makes=False)

    @property
    def exists(self) -> bool:
        """Whether there is one: a server's always, a file once something was added."""
        return self._engine is not None or not self.is_sqlite or Path(str(self.url.database)).exists()

    @property
    def name(self) -> str:
        """The file, or the URL without its password: how messages name the database."""
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A snapshot: everything read in it is of one moment."""
        with self.explained(), self._connected().connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(
        self, *, makes: bool = False, needs_bytes: int = 0, tells: bool = True
    ) -> Iterator[tuple[Connection, int]]:
        """A transaction and its sequence number; committed if the block ends, undone if it raises.

        Args:
            tells: Others have to learn of it; False leaves the sequence as it is, for what nobody keeps in memory.
            makes: The block adds something, so a database that does not exist is made.
            needs_bytes: About how much the block stores, to say so should the disk be full.
        """
        with self.explained(needs_bytes), self._connected(makes=makes).connect() as connection:
            connection = connection.execution_options(graft_writes=True)
            with connection.begin():
                step = 1 if tells else 0
                number = connection.execute(
                    update(sequence).values(value=sequence.c.value + step).returning(sequence.c.value)
                ).scalar_one()
                yield connection, int(number)

    def current_sequence(self) -> int:
        """The number of the last committed write. Called by every search, so it avoids SQLAlchemy's layers."""
        with self.explained():
            connection = self._connected().raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("SELECT value FROM sequence")
                row = cursor.fetchone()
                cursor.close()
            finally:
                connection.close()
        return int(row[0]) if row else 0

    @contextmanager
    def explained(self, needs_bytes: int = 0) -> Iterator[None]:
        """Turn the drivers' errors into StoreErrors that say what to do.

        Raises:
            StoreError: Instead of any error of SQLAlchemy or sqlite3, of a full disk, or of files that are
                somebody else's.
        """
        try:
            yield
        except DBAPIError as error:
            raise self._explain(str(error.orig), needs_bytes) from error
        except (sqlite3.Error, PoolTimeout) as error:
            raise self._explain(str(error), needs_bytes) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._explain("database or disk is full", needs_bytes) from error
            if error.errno in _NOT_OURS:
                raise StoreError(
                    f"{error.filename or self.name} cannot be written: {error.strerror}",
                    fix="let this user write there, or name another workspace by --home or GRAFT_HOME",
                ) from error
            raise

    def close(self) -> None:
        """Give back all connections."""
        if self._engine is not None:
            self._engine.dispose()

    def _connected(self, *, makes: bool = False) -> Engine:
        """The database's engine, or, where there is no database, one of empty tables in memory."""
        if self._engine is None:
            if not (makes or self.exists):
                return _nothing()
            with self._opening:
                if self._engine is None:
                    self._engine = self._opened()
        return self._engine

    def _opened(self) -> Engine:
        engine = _engine(self.url)
        with self.explained():
            if not self.is_sqlite:
                self._ensure_schema(engine)
                return engine
            folder = Path(str(self.url.database)).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"{folder} cannot be made: {error.strerror}", fix="name another folder by --home or GRAFT_HOME"
                ) from error
            with FileLock(folder / "open.lock"):  # two processes may not switch a new file to WAL at once
                self._ensure_schema(engine)
        return engine

    def _ensure_schema(self, engine: Engine) -> None:
        with engine.connect() as connection:
            version = _version(connection)
        if version == SCHEMA:
            return
        if version is not None and version > SCHEMA:
            raise StoreError(
                f"{self.name} has schema {version}, made by a newer Graft; this one knows up to {SCHEMA}",
                fix="pip install --upgrade graft-llm",
            )
        with engine.connect() as connection:
            connection = connection.execution_options(graft_writes=True)
            with connection.begin():
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
                _upgrade(connection)

    def _explain(self, cause: str, needs_bytes: int) -> StoreError:
        lowered = cause.lower()
        if "disk is full" in lowered or "no space left" in lowered or "disk i/o error" in lowered:
            need = f" about {max(1, needs_bytes // 1_000_000)} MB for it," if needs_bytes else ""
            return StoreError(
                f"{self.name} cannot grow, the disk is full ({cause}); nothing of this write was kept",
                fix=f"free{need} or more, with df -h to see where, then run the same command again",
            )
        if "not a database" in lowered or "malformed" in lowered or "corrupt" in lowered:
            return StoreError(
                f"{self.name} is damaged ({cause}); Graft leaves it as it is",
                fix=f"restore a backup, or save what is readable: sqlite3 {self.name} .recover | sqlite3 saved.db, "
                f"move saved.db to {self.name}, then graft collections rebuild",
            )
        if "locked" in lowered:
            return StoreError(
                f"another process has been writing to {self.name} for over {BUSY_SECONDS} s",
                fix="wait for it to end, then run the same command again",
            )
        if self.is_sqlite:
            return StoreError(
                f"{self.name} cannot be used: {cause}",
                fix=f"check that {Path(self.name).parent} exists and that you may write there",
            )
        return StoreError(
            f"{self.name} cannot be used: {cause.strip()}",
            fix="check that the server runs and that [store] url in graft.toml names it",
        )


def _parse(url: str, home: Path) -> URL:
    if not url:
        return URL.create("sqlite", database=str(home / FILE_NAME))
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UsageError("[store] url is not a database URL", fix="postgresql://user@host/name") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql") or not parsed.database:
        raise UsageError(
            f"[store] url {parsed.render_as_string()} is neither SQLite nor PostgreSQL with a database's name",
            fix="leave it empty for SQLite in the workspace, or postgresql://user@host/name",
        )
    return parsed


def _engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True)
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(
            f"the driver of {url.drivername} is not installed ({error})", fix="pip install 'graft-llm[postgres]'"
        ) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


@cache
def _nothing() -> Engine:
    """Connections to tables with nothing in them; each is a database of its own, in memory, for one use."""
    engine = create_engine("sqlite://", poolclass=NullPool, connect_args={"isolation_level": None})
    made = [str(CreateTable(table).compile(engine)) for table in metadata.sorted_tables]

    def fill(connection: Any, _record: Any) -> None:
        for statement in made:
            connection.execute(statement)
        connection.execute("INSERT INTO sequence VALUES (1, 0, 0, 0, '')")

    event.listen(engine, "connect", fill)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: what was acknowledged outlives a power cut too. One fsync a batch: see benchmarks/bench_store.py.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = FAST")  # removed text is overwritten where that costs no reading
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at the start: a reader that turned writer could fail halfway instead of waiting.
    writes = connection.get_execution_options().get("graft_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _upgrade(connection: Connection) -> None:
    """Apply the migrations that are missing. Alembic takes 0.1 s to import, so only here."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
