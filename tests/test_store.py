"""Our store keeps the contract, and its promises about crashes, damage, full disks and several processes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url

from graft.errors import StoreError, UsageError
from graft.settings import StoreSettings
from graft.store import Batch, Filter, SqlStore, Store
from graft.store.tables import metadata
from graft.testing.store import (
    ANA,
    EMBEDDER,
    StoreContract,
    batch_of,
    collection_of,
    matching_texts,
    nearest_texts,
    new_document,
    vector_of,
)


class TestSqliteStore(StoreContract):
    def open_store(self, home: Path) -> Store:
        return SqlStore(home)


def filled(home: Path, *words: str) -> SqlStore:
    """A store with one document for each word, both indexes built."""
    store = SqlStore(home)
    source = collection_of(store)
    store.write(batch_of(*(new_document(w, [f"{w} here"], source_id=source) for w in words)), principals=ANA)
    store.follow()
    return store


def assert_finds(store: Store, *words: str) -> None:
    """Both searches find exactly the documents of these words."""
    expected = sorted(f"{w} here" for w in words)
    assert sorted(matching_texts(store, "here", 99, Filter(ANA))) == expected
    assert sorted(nearest_texts(store, "here", 99, Filter(ANA))) == expected


# Crashes and full disks

KILLED_WRITER = """
import sys
import tempfile
from pathlib import Path
from graft.store import SqlStore
from graft.testing.store import ANA, batch_of, collection_of, new_document
store = SqlStore(Path(sys.argv[1]))
source = collection_of(store)
for number in range(1000):
    documents = [new_document(f"{number}-{i}", [f"here {number} {i} {j}" for j in range(5)], source_id=source)
                 for i in range(20)]
    store.write(batch_of(*documents), principals=ANA)
    print(number, flush=True)
    store.follow()
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.013, 0.03, 0.06, 0.11])
def test_kill_9_while_writing_leaves_whole_batches_and_loses_none_acknowledged(
    tmp_path: Path, delay_s: float
) -> None:
    command = [sys.executable, "-c", KILLED_WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            acknowledged = int(process.stdout.readline())
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    store = SqlStore(tmp_path)
    documents = store.documents(principals=ANA)
    assert len(documents) % 20 == 0 and len(documents) >= (acknowledged + 1) * 20
    assert len(store.search_text("here", 10_000, Filter(ANA))) == len(documents) * 5
    assert store.check() == []


def test_a_full_database_keeps_nothing_of_the_batch_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = filled(tmp_path, "old")
    source = store.sources("notes", principals=ANA)[0].id
    big = batch_of(*(new_document(f"{i}", ["many words " * 500], source_id=source) for i in range(50)))
    engine = store.database._engine
    engine.dispose()

    def limit(connection: object, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 80")  # type: ignore[attr-defined]

    event.listen(engine, "connect", limit)
    with pytest.raises(StoreError, match="disk is full") as caught:
        store.write(big, principals=ANA)
    assert "nothing of this write was kept" in caught.value.message and "MB" in caught.value.fix
    assert_finds(store, "old")
    event.remove(engine, "connect", limit)
    engine.dispose()
    assert len(store.write(big, principals=ANA).added) == 50
    assert store.check() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root on Linux")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_under_database_and_indexes_loses_nothing_acknowledged(small_disk: Path) -> None:
    store = filled(small_disk, "old")
    source = store.sources("notes", principals=ANA)[0].id
    written = 0
    with pytest.raises(StoreError, match="disk is full"):
        for number in range(1000):
            store.write(batch_of(new_document(f"{number}", ["new words " * 2000], source_id=source)), principals=ANA)
            written = number + 1
            store.follow()
    assert 0 < written < 1000
    assert len(store.documents(principals=ANA)) == written + 1
    store.close()
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    again = SqlStore(small_disk)
    assert len(matching_texts(again, "new", 9999, Filter(ANA))) == written
    assert again.check() == []


# Damage

DAMAGE = {
    "no state": lambda index: [p.unlink() for p in index.rglob("state.json")],
    "a state that is not JSON": lambda index: [p.write_text("{") for p in index.rglob("state.json")],
    "an altered state": lambda index: [
        p.write_text(p.read_text().replace('"rows": ', '"rows": 9')) for p in index.rglob("state.json")
    ],
    "short files": lambda index: (
        [os.truncate(p, 8) for p in index.glob("vectors-*/vectors.*")]
        + [os.truncate(p, 8) for p in index.glob("text/*/*.idx")]
    ),
    "no tantivy folder": lambda index: [shutil.rmtree(p) for p in index.glob("text/[0-9]*")],
    "no code file": lambda index: [p.unlink() for p in index.glob("vectors-*/codes.*")],
    "no meta.json": lambda index: [p.unlink() for p in index.glob("text/*/meta.json")],
    "nothing": lambda index: [shutil.rmtree(index)],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_rebuilt_by_the_next_search(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, "one", "two").close()
    assert DAMAGE[damage](tmp_path / "index")
    store = SqlStore(tmp_path)
    assert_finds(store, "one", "two")
    assert store.check() == []


def test_another_process_sees_a_rebuild(tmp_path: Path) -> None:
    store, other = filled(tmp_path, "one"), SqlStore(tmp_path)
    assert_finds(other, "one")
    store.rebuild_indexes()
    assert_finds(other, "one")
    assert_finds(store, "one")


def test_a_database_restored_from_a_backup_is_not_searched_with_a_newer_index(tmp_path: Path) -> None:
    filled(tmp_path, "one").close()
    shutil.copy(tmp_path / "graft.db", tmp_path / "backup")
    store = SqlStore(tmp_path)
    source = store.sources("notes", principals=ANA)[0].id
    store.write(batch_of(new_document("two", ["two here"], source_id=source)), principals=ANA)
    assert_finds(store, "one", "two")
    store.close()
    shutil.move(tmp_path / "backup", tmp_path / "graft.db")
    assert_finds(SqlStore(tmp_path), "one")


def test_an_index_of_another_database_is_not_taken_for_ours(tmp_path: Path) -> None:
    filled(tmp_path / "a", "one").close()
    filled(tmp_path / "b", "two").close()
    shutil.rmtree(tmp_path / "a" / "index")
    shutil.copytree(tmp_path / "b" / "index", tmp_path / "a" / "index")
    assert_finds(SqlStore(tmp_path / "a"), "one")


@pytest.mark.parametrize("start", [0, 100, 4096])
def test_a_damaged_database_says_how_to_save_what_is_readable(tmp_path: Path, start: int) -> None:
    filled(tmp_path, "one", "two").close()
    path = tmp_path / "graft.db"
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * (path.stat().st_size - start))
    with pytest.raises(StoreError, match="is damaged") as caught:
        SqlStore(tmp_path).documents(principals=ANA)
    assert ".recover" in caught.value.fix and "graft collections rebuild" in caught.value.fix


def test_check_names_what_an_index_lacks(tmp_path: Path) -> None:
    store = filled(tmp_path, "one", "two")
    with store.database.writing() as (connection, _):
        connection.execute(text("DELETE FROM vectors WHERE chunk_id = 1"))
        connection.execute(text("DELETE FROM chunks WHERE id = 1"))
    problems = store.check()
    assert len(problems) == 2 and all("lacks 0 chunks and has 1 too many" in problem for problem in problems)
    store.rebuild_indexes()
    assert store.check() == []


# Schema and settings


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    store = SqlStore(tmp_path)
    collection_of(store)
    with store.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_current_database_is_opened_without_alembic(tmp_path: Path) -> None:
    collection_of(SqlStore(tmp_path))
    code = "import sys; from pathlib import Path; from graft.store import SqlStore"
    code += "; SqlStore(Path(sys.argv[1])).models()"
    code += "; assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_database_of_a_newer_graft_is_left_alone(tmp_path: Path) -> None:
    store = SqlStore(tmp_path)
    collection_of(store)
    with store.database.writing() as (connection, _):
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="made by a newer Graft"):
        SqlStore(tmp_path)


def test_a_url_that_names_no_database_is_explained(tmp_path: Path) -> None:
    for url in ("nonsense", "mysql://host/db", "postgresql://host"):
        with pytest.raises(UsageError):
            SqlStore(tmp_path, StoreSettings(url=url))


# Several threads and processes


def test_two_open_stores_see_each_others_writes_at_once(tmp_path: Path) -> None:
    store, other = filled(tmp_path, "one"), SqlStore(tmp_path)
    assert_finds(other, "one")
    source = store.sources("notes", principals=ANA)[0].id
    for number in range(12):
        writer, reader = (store, other) if number % 2 else (other, store)
        [name] = writer.write(
            batch_of(new_document("x", [f"x{number} here"], source_id=source)), principals=ANA
        ).added
        assert_finds(reader, "one", f"x{number}")
        writer.write(Batch(collection="notes", removed=[name]), principals=ANA)
        assert_finds(reader, "one")


def test_processes_that_open_a_new_workspace_together_make_one_database(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from graft.store import SqlStore\n"
    code += "from graft.testing.store import collection_of\nprint(collection_of(SqlStore(Path(sys.argv[1]))))"
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert answers == ["1"] * 4


def test_threads_that_search_while_others_write_see_whole_batches(tmp_path: Path) -> None:
    store = filled(tmp_path)
    source = store.sources("notes", principals=ANA)[0].id
    failures: list[BaseException] = []
    seen: set[int] = set()
    done = threading.Event()

    def write(name: str) -> None:
        for number in range(8):
            texts = [f"here {name} {number} {i}" for i in range(5)]
            documents = [new_document(f"{name}{i}", [part], source_id=source) for i, part in enumerate(texts)]
            store.write(batch_of(*documents), principals=ANA)

    def search() -> None:
        while not done.is_set():
            words = len(store.search_text("here", 999, Filter(ANA)))
            vectors = len(store.search_vectors(vector_of("x"), 999, Filter(ANA), embedder=EMBEDDER))
            assert words % 5 == 0 and vectors % 5 == 0, (words, vectors)
            seen.add(words)

    def guarded(work: object, *args: str) -> None:
        try:
            work(*args)  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    searchers = [threading.Thread(target=guarded, args=(search,)) for _ in range(3)]
    writers = [threading.Thread(target=guarded, args=(write, name)) for name in "ab"]
    for thread in searchers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in searchers:
        thread.join()
    assert failures == []
    assert seen <= {0, 5, 10} and len(store.search_text("here", 999, Filter(ANA))) == 10
    assert store.check() == []


# PostgreSQL


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a throw-away PostgreSQL cluster on a socket of its own."""
    pytest.importorskip("psycopg", reason="the driver is not installed: pip install 'graft-llm[postgres]'")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb") or (programs and programs[-1] / "initdb")
    if not found:
        pytest.skip("no PostgreSQL server is installed (initdb)")
    bin_folder, folder = Path(found).parent, Path(tempfile.mkdtemp(prefix="graft-pg-"))
    as_user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def run(program: str, *arguments: str) -> None:
        subprocess.run([*as_user, str(bin_folder / program), *arguments], check=True, capture_output=True, cwd=folder)

    run("initdb", "-D", f"{folder}/data", "-U", "graft", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "-D", f"{folder}/data", "-o", options, "-w", "-l", f"{folder}/log", "start")
    try:
        yield f"postgresql://graft@/NAME?host={folder}"
    finally:
        run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, postgres: str) -> Iterator[None]:
        self.url, self.opened = postgres, dict[Path, str]()
        self.stores: list[SqlStore] = []
        yield
        for store in self.stores:
            store.close()

    def open_store(self, home: Path) -> Store:
        if home not in self.opened:
            name = f"t{secrets.token_hex(6)}"
            admin = create_engine(make_url(self.url.replace("NAME", "postgres")).set(drivername="postgresql+psycopg"))
            with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            admin.dispose()
            self.opened[home] = self.url.replace("NAME", name)
        self.stores.append(SqlStore(home, StoreSettings(url=self.opened[home])))
        return self.stores[-1]

    def test_the_migrations_make_the_tables_that_the_code_uses(self, tmp_path: Path) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        store = self.open_store(tmp_path)
        assert isinstance(store, SqlStore)
        with store.database.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def test_a_server_that_is_away_is_named_without_its_password(self, tmp_path: Path) -> None:
        url = "postgresql://graft:geheim@127.0.0.1:1/notes"
        with pytest.raises(StoreError) as caught:
            SqlStore(tmp_path, StoreSettings(url=url))
        assert "geheim" not in str(caught.value) and "127.0.0.1:1/notes" in caught.value.message
