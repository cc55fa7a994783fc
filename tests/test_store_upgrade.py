"""A database of before opens, keeps all it holds, and has its documents read once more."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

import graft.store
from graft import Workspace
from graft.store import Batch, Filter, SqlStore
from graft.store.tables import SCHEMA, metadata
from graft.testing.store import ANA, batch_of, collection_of, matching_texts, new_document


def schema_of(revision: str, path: Path) -> None:
    """Make a database with the migrations up to `revision` alone."""
    config = Config()
    config.set_main_option("script_location", str(Path(graft.store.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def as_of_0001(home: Path) -> None:
    """Turn the database in `home` into one that the first Graft made: its tables, the columns that it had."""
    new, old = home / "graft.db", home / "old.db"
    schema_of("0001", old)
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("ATTACH ? AS new", (str(new),))
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table in ("alembic_version", "sqlite_sequence"):
                continue
            columns = ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA table_info({table})"))
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}")
        connection.commit()
    for path in home.glob("graft.db*"):
        path.unlink()
    old.rename(new)


def columns_of(home: Path) -> set[str]:
    with closing(sqlite3.connect(home / "graft.db")) as connection:
        return {row[1] for row in connection.execute("PRAGMA table_info(documents)")}


def test_a_database_of_the_first_schema_is_brought_up_and_keeps_all_it_holds(tmp_path: Path) -> None:
    store = SqlStore(tmp_path)
    source = collection_of(store)
    new = [new_document(uri, [f"word {uri}"], source_id=source, with_boxes=True) for uri in "abc"]
    names = store.write(batch_of(*new), principals=ANA).added
    store.write(Batch(collection="notes", vanished=names[2:]), principals=ANA)
    before = [store.version(name, principals=ANA) for name in names]
    store.close()
    as_of_0001(tmp_path)
    assert "fingerprint" not in columns_of(tmp_path)
    again = SqlStore(tmp_path)
    assert {"fingerprint", "etag", "last_modified"} < columns_of(tmp_path)
    with again.database.reading() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == SCHEMA and compare_metadata(context, metadata) == []
    assert [again.version(name, principals=ANA) for name in names] == before
    assert [d.fingerprint for d in again.documents(principals=ANA)] == ["", ""]
    assert sorted(matching_texts(again, "word", 9, Filter(ANA))) == ["word a", "word b"]
    assert again.removed_uris(source, principals=ANA) == frozenset()
    assert again.check() == []


def test_processes_that_open_an_old_database_together_upgrade_it_once(tmp_path: Path) -> None:
    collection_of(SqlStore(tmp_path))
    as_of_0001(tmp_path)
    code = "import sys; from pathlib import Path; from graft.store import SqlStore\n"
    code += "from graft.testing.store import ANA\nprint(len(SqlStore(Path(sys.argv[1])).collections(principals=ANA)))"
    command_line = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["1"] * 3


def test_documents_of_an_old_database_are_read_once_more_and_cited_as_before(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "travel.md").write_text("# Travel\n\nA hotel may cost at most 140 EUR a night.\n")
    (folder / "leave.txt").write_text("Unused leave may be carried over until 31 March.")
    home = tmp_path / "home"
    with Workspace(home) as workspace:
        workspace.add([str(folder)])
    as_of_0001(home)
    with Workspace(home) as workspace:
        before = workspace.search("What may a hotel cost?").hits[0]
        result = workspace.sync()
        assert (result.updated, result.unchanged, result.added, result.failed) == (2, 0, 0, [])
        after = workspace.search("What may a hotel cost?").hits[0]
        assert (after.document_id, after.version, after.start, after.end) == (
            before.document_id,
            before.version,
            before.start,
            before.end,
        )
        again = workspace.sync()
        assert (again.updated, again.unchanged) == (0, 2)
