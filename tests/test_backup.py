"""A backup brings everything back in another place; a damaged or hostile one brings nothing."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from graft.backup import MANIFEST
from graft.errors import UsageError
from graft.workspace import Workspace
from tests.test_cli import graft

NOTE = "# Travel\n\nA hotel may cost at most 140 EUR a night.\n"
QUESTION = "What may a hotel cost?"


@pytest.fixture
def full(tmp_path: Path, models: Path) -> Iterator[Workspace]:
    """Documents, a user with a key, an uploaded file in a vector store, a model of its own, and a setting."""
    home = tmp_path / "home"
    (tmp_path / "travel.md").write_text(NOTE)
    home.mkdir()
    (home / "graft.toml").write_text("[retrieval]\ntop_k = 3\n")
    with Workspace(home) as workspace:
        workspace.add([str(tmp_path / "travel.md")])
        workspace.identities.create_user("ana", role="editor")
        store = workspace.create_vector_store(name="trips")
        file = workspace.put_file("b.md", io.BytesIO(NOTE.encode()), purpose="assistants", most_bytes=10_000)
        workspace.attach_file(store.id, file.id)
        workspace.index_file(store.id, file.id)
        (home / "tuned" / "mine" / "1").mkdir(parents=True)
        adapter = home / "tuned" / "mine" / "1" / "adapter.gguf"
        adapter.write_bytes(b"GGUF" + bytes(2000))
        done = {"folder": str(adapter.parent), "adapter": str(adapter), "checkpoint": None}
        (adapter.parent / "done.json").write_text(json.dumps(done))
        spec = {"name": "mine", "kind": "file", "target": "/models/base.gguf", "adapter": str(adapter)}
        workspace.store.put_model("mine", spec)
        yield workspace


def test_a_restored_workspace_answers_as_the_first_did(full: Workspace, tmp_path: Path) -> None:
    secret = full.identities.create_key("laptop", user="ana")[1]
    before = full.search(QUESTION).hits
    made = full.back_up(tmp_path / "all.graft")
    assert not any(name.startswith("index") for name in made.files) and "graft.db" in made.files
    assert (tmp_path / "all.graft").stat().st_mode & 0o077 == 0
    full.remove("travel.md")
    new = tmp_path / "elsewhere" / "home"
    with Workspace(new) as restored:
        assert restored.restore(tmp_path / "all.graft").files == made.files
    with Workspace(new) as restored:
        assert restored.search(QUESTION).hits == before and restored.settings.retrieval.top_k == 3
        caller = restored.identities.caller(secret)
        assert caller is not None and caller.name == "ana"
        (store,) = restored.objects.all("vector_store")
        (file,) = restored.objects.all("file")
        assert restored.file_path(file.id).read_text() == NOTE and str(new) in str(restored.file_path(file.id))
        assert [hit.hit.text for hit in restored.search_vector_store(store.id, [QUESTION])]
        moved = new / "tuned" / "mine" / "1" / "adapter.gguf"
        assert restored.store.models()["mine"]["adapter"] == str(moved) and moved.is_file()
        assert json.loads((moved.parent / "done.json").read_text())["adapter"] == str(moved)
        assert restored.check() == []
        restored.remove_file(file.id)  # its source lies below the new folder
        assert restored.search_vector_store(store.id, [QUESTION]) == []


def test_a_database_in_use_is_copied_whole(full: Workspace, tmp_path: Path) -> None:
    with closing(sqlite3.connect(full.home / "graft.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE sequence SET value = value + 1000")
        full.back_up(tmp_path / "all.graft")  # a write that is not committed is no part of it
        other.rollback()
    with Workspace(tmp_path / "new") as restored:
        restored.restore(tmp_path / "all.graft")
        assert restored.check() == [] and restored.search(QUESTION).hits


def test_nothing_that_is_there_is_written_over(full: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "all.graft"
    full.back_up(target)
    before = target.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        full.back_up(target)
    with pytest.raises(UsageError, match="not empty"):
        full.restore(target)
    with pytest.raises(UsageError, match="lies in the workspace"):
        full.back_up(full.home / "x.graft")
    assert target.read_bytes() == before and not list(tmp_path.glob("*.part"))


def test_a_damaged_backup_leaves_nothing_behind(full: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "all.graft"
    full.back_up(target)
    whole = target.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(b"140 EUR")] ^= 1
    for content in (b"", b"no tar at all", whole[: len(whole) // 2], bytes(changed)):
        target.write_bytes(content)
        with Workspace(tmp_path / "new") as restored, pytest.raises(UsageError, match="no backup of Graft, or a dam"):
            restored.restore(target)
        assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())
    with Workspace(tmp_path / "new") as restored, pytest.raises(UsageError, match="no file"):
        restored.restore(tmp_path / "none")


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/outside.txt", "a/../../outside.txt"])
def test_a_backup_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    hostile = tmp_path / "hostile.graft"
    with tarfile.open(hostile, "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    with Workspace(tmp_path / "deep" / "new") as restored, pytest.raises(UsageError):
        restored.restore(hostile)
    assert not list(tmp_path.rglob("outside.txt"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_backup_are_refused(tmp_path: Path, kind: bytes) -> None:
    hostile = tmp_path / "hostile.graft"
    with tarfile.open(hostile, "w") as tar:
        info = tarfile.TarInfo("graft.db")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
        content = json.dumps({"version": 1, "home": "/x", "created": "", "files": {}}).encode()
        about = tarfile.TarInfo(MANIFEST)
        about.size = len(content)
        tar.addfile(about, io.BytesIO(content))
    with Workspace(tmp_path / "new") as restored, pytest.raises(UsageError, match="no backup"):
        restored.restore(hostile)


def test_the_command_line_backs_up_and_restores(full: Workspace, tmp_path: Path) -> None:
    full.close()
    made = graft(full.home, "backup", str(tmp_path / "a.graft"), "--json")
    assert made.returncode == 0 and json.loads(made.stdout)["files"] > 3
    again = graft(tmp_path / "n", "restore", str(tmp_path / "a.graft"))
    assert again.returncode == 0 and "passages are indexed anew" in again.stdout
    found = graft(tmp_path / "n", "search", QUESTION)
    assert "140 EUR" in found.stdout
    refused = graft(tmp_path / "m", "restore", os.devnull)
    assert refused.returncode != 0 and "Traceback" not in refused.stderr
