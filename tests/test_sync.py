"""What happens on disk is what is found, and bad input loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graft import Settings, Workspace
from graft.access import OWNER
from graft.errors import EmbedderMismatch, NotFound, UsageError
from graft.settings import resolve
from graft.store import Batch, NewDocument
from graft.sync import Progress

LEAVE = "# Leave\n\nUnused leave may be carried over until 31 March of the next year.\n"
TRAVEL = "# Travel\n\nA hotel may cost at most 140 EUR a night.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    (documents / "deep").mkdir(parents=True)
    (documents / "leave.md").write_text(LEAVE)
    (documents / "deep" / "travel.md").write_text(TRAVEL)
    return documents


def found(workspace: Workspace, question: str) -> list[str]:
    return [hit.document for hit in workspace.search(question).hits]


def test_adding_a_folder_again_changes_nothing(workspace: Workspace, folder: Path) -> None:
    first = workspace.add([str(folder)])
    again = workspace.add([str(folder)])
    assert (first.added, first.chunks) == (2, 2)
    assert (again.added, again.updated, again.unchanged, again.chunks) == (0, 0, 2, 0)


def test_a_new_time_on_the_same_bytes_is_not_a_change(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    os.utime(folder / "leave.md", (1, 1))
    result = workspace.sync()
    assert (result.updated, result.unchanged) == (0, 2)
    assert [d.version for d in workspace.documents()] == [1, 1]


def test_changed_new_and_deleted_files_are_taken_up(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    (folder / "leave.md").write_text(LEAVE.replace("31 March", "30 June"))
    (folder / "deep" / "travel.md").unlink()
    (folder / "safety.txt").write_text("Helmets are worn in the test hall.")
    result = workspace.sync()
    assert (result.added, result.updated, result.removed, result.unchanged) == (1, 1, 1, 0)
    assert "deep/travel.md" not in found(workspace, "What may a hotel cost?")
    assert "30 June" in workspace.search("Until when may leave be carried over?").hits[0].text


def test_a_folder_that_is_empty_as_an_unmounted_disk_keeps_its_documents(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    disk = folder.rename(folder.with_name("disk"))
    folder.mkdir()
    result = workspace.sync()
    assert (result.removed, [failure.path for failure in result.failed]) == (0, [str(folder)])
    assert "2 documents are kept" in result.failed[0].error and f"graft remove {folder}" in result.failed[0].fix
    with pytest.raises(UsageError, match="is empty"):
        workspace.add([str(folder)])
    folder.rmdir()
    disk.rename(folder)
    assert (workspace.sync().unchanged, len(workspace.documents())) == (2, 2)


def test_a_citation_of_an_old_version_says_superseded_and_then_removed(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    hit = workspace.search("Until when may leave be carried over?").hits[0]
    place = (hit.document_id, hit.version, hit.start, hit.end)
    assert workspace.resolve(*place).state == "current"
    (folder / "leave.md").write_text(LEAVE.replace("31 March", "30 June"))
    workspace.sync()
    superseded = workspace.resolve(*place)
    assert (superseded.state, superseded.text) == ("superseded", hit.text)
    workspace.remove("leave.md")
    removed = workspace.resolve(*place)
    assert (removed.state, removed.text) == ("removed", "")


def test_a_removed_document_is_gone_everywhere_at_once(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    workspace.remove("deep/travel.md")
    assert found(workspace, "hotel cost 140 EUR a night") == ["leave.md"]
    assert [d.uri for d in workspace.documents()] == ["leave.md"]
    with pytest.raises(NotFound, match=r"no document 'deep/travel.md'"):
        workspace.remove("deep/travel.md")


def test_a_file_that_fails_is_reported_with_its_fix_and_the_rest_is_added(workspace: Workspace, folder: Path) -> None:
    (folder / "empty.txt").write_text("")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing follows")
    (folder / "program.bin").write_bytes(bytes(range(256)) * 40)
    result = workspace.add([str(folder)])
    assert result.added == 2
    assert {Path(f.path).name for f in result.failed} == {"empty.txt", "broken.pdf", "program.bin"}
    assert all(f.error and f.fix for f in result.failed)


def test_a_file_that_can_no_longer_be_read_keeps_its_last_good_version(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    (folder / "leave.md").write_text("")
    result = workspace.sync()
    assert len(result.failed) == 1 and result.removed == 0
    assert found(workspace, "Until when may leave be carried over?")[0] == "leave.md"


def test_a_file_over_the_size_limit_is_refused_by_name_and_limit(tmp_path: Path, models: Path, folder: Path) -> None:
    with (folder / "large.txt").open("wb") as file:
        file.truncate(3_000_000)
    with Workspace(tmp_path / "home", settings=resolve({"reading": {"max_file_mb": 2}})) as workspace:
        result = workspace.add([str(folder)])
    assert result.added == 2
    assert "3 MB" in result.failed[0].error and "max_file_mb" in result.failed[0].fix


def test_links_that_loop_or_leave_the_folder_are_not_followed(workspace: Workspace, folder: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    outside = folder.parent / "secret.txt"
    outside.write_text("The vault's number is 4711.")
    (folder / "link.txt").symlink_to(outside)
    (folder / "nowhere.txt").symlink_to(folder / "missing")
    result = workspace.add([str(folder)])
    assert (result.added, result.failed) == (2, [])


def test_a_file_that_vanishes_while_the_folder_is_read_is_reported(workspace: Workspace, folder: Path) -> None:
    def delete(progress: Progress) -> None:
        if progress.path == "leave.md":
            (folder / "leave.md").unlink()

    result = workspace.add([str(folder)], progress=delete)
    assert result.added == 1
    assert "vanished" in result.failed[0].error


def test_a_folder_that_is_not_there_keeps_its_documents(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    folder.rename(folder.with_name("elsewhere"))
    result = workspace.sync()
    assert result.removed == 0 and "is not there" in result.failed[0].error
    assert len(workspace.documents()) == 2


@pytest.mark.parametrize("name", ["missing", "missing.pdf"])
def test_a_location_that_does_not_exist_is_a_usage_error(workspace: Workspace, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        workspace.add([str(tmp_path / name)])


def test_what_was_finished_before_an_interrupt_is_kept(workspace: Workspace, folder: Path) -> None:
    for number in range(150):
        (folder / f"note{number:03}.txt").write_text(f"Note number {number} speaks of subject {number * 7}.")

    def interrupt(progress: Progress) -> None:
        if progress.files == 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.add([str(folder)], progress=interrupt)
    kept = len(workspace.documents())
    result = workspace.add([str(folder)])
    assert kept > 0 and result.unchanged == kept and result.added == 152 - kept


def test_documents_are_found_only_by_those_they_are_granted_to(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)], access=[OWNER, "group:hr"])
    (folder.parent / "salary.txt").write_text("The managing director's salary is 250,000 EUR.")
    workspace.add([str(folder.parent / "salary.txt")])
    with (
        Workspace(workspace.home, principals=["group:hr"]) as hr,
        Workspace(workspace.home, principals=["user:eve"]) as eve,
    ):
        assert "salary.txt" not in found(hr, "salary of the managing director") and found(hr, "leave")
        assert found(eve, "salary of the managing director") == []
        assert eve.documents() == []
        secret = workspace.documents()[-1]
        with pytest.raises(NotFound) as foreign:
            eve.remove(secret.uri)
        with pytest.raises(NotFound) as missing:
            eve.remove("no such thing")
        assert str(foreign.value).replace(secret.uri, "X") == str(missing.value).replace("no such thing", "X")


def test_vectors_of_two_embedders_are_never_mixed(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    workspace.close()
    with Workspace(workspace.home, settings=resolve({"embedding": {"precision": "fp32"}})) as other:
        (folder / "more.txt").write_text("One more file.")
        with pytest.raises(EmbedderMismatch, match=r"int8.*fp32") as refused:
            other.sync()
        assert "graft collections reembed default" in refused.value.fix
        assert other.reembed("default") == 2
        assert other.sync().added == 1
        assert found(other, "hotel cost")[0] == "deep/travel.md"


def test_a_collection_that_lost_all_its_documents_takes_on_another_embedder(
    workspace: Workspace, folder: Path
) -> None:
    workspace.add([str(folder)])
    workspace.remove_source(str(folder))
    workspace.close()
    with Workspace(workspace.home, settings=resolve({"embedding": {"precision": "fp32"}})) as other:
        with pytest.raises(EmbedderMismatch):
            other.add([str(folder)])
        assert other.reembed("default") == 0
        assert other.add([str(folder)]).added == 2
        assert found(other, "hotel cost")[0] == "deep/travel.md"


@pytest.mark.slow
def test_a_killed_add_leaves_whole_documents_only_and_the_next_one_completes(
    tmp_path: Path, models: Path, folder: Path
) -> None:
    for number in range(200):
        (folder / f"note{number:03}.txt").write_text(
            f"Note number {number}. " + f"It tells of matter {number}. " * 20
        )
    home = tmp_path / "home"
    for round_ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "graft", "add", str(folder), "--home", str(home), "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.8 + 0.7 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Workspace(home) as workspace:
            for record in workspace.documents():
                text = workspace.store.version(record.id, principals=frozenset({OWNER})).text
                assert text == (folder / record.uri).read_text() and record.chunks > 0
    with Workspace(home, settings=Settings()) as workspace:
        workspace.add([str(folder)])
        assert len(workspace.documents()) == 202
        assert found(workspace, "Note number 137. It tells of matter 137.")[0] == "note137.txt"


def test_who_adds_for_others_can_still_take_it_back(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)], access=["group:hr"])
    (folder / "leave.md").unlink()
    assert workspace.sync().removed == 1
    with Workspace(workspace.home, principals=["group:hr"]) as hr:
        assert found(hr, "Until when may leave be carried over?") == ["deep/travel.md"]


def test_a_link_to_itself_and_a_name_that_is_not_text_do_no_harm(workspace: Workspace, folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    for name in (b"\xff.txt", b"\xfe.txt"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_text("A note in a file of an odd name.")
    result = workspace.add([str(folder)])
    assert (result.added, result.failed) == (4, [])
    assert r"\xff.txt" in {d.uri for d in workspace.documents()}


def test_names_that_are_written_alike_are_told_apart_or_reported(workspace: Workspace, folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/\xff.txt")).write_text("A note in a file of an odd name.")
    (folder / r"\xff.txt").write_text("A note in a file that is named like it.")
    result = workspace.add([str(folder)])
    assert result.added == 3
    assert [(f.path, "rename" in f.fix) for f in result.failed] == [(rf"{folder}/\xff.txt", True)]


def test_what_cannot_be_looked_at_is_kept_and_nothing_else(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = bytes(folder) + b"/\xff"
    os.mkdir(closed)  # noqa: PTH102
    Path(os.fsdecode(closed), "a.md").write_text(LEAVE)
    (folder / "travel").write_text(TRAVEL)
    (folder / "travel.md").write_text(TRAVEL)
    assert workspace.add([str(folder)]).added == 5
    (folder / "travel.md").unlink()
    scandir, status = os.scandir, Path.stat

    def refuse(path: str) -> object:
        if os.fsencode(path) == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    def refuse_travel(path: Path, **options: bool) -> os.stat_result:
        if path == folder / "travel":
            raise PermissionError(13, "Permission denied", str(path))
        return status(path, **options)

    monkeypatch.setattr(os, "scandir", refuse)  # tests run as root too, whom no folder refuses
    monkeypatch.setattr(Path, "stat", refuse_travel)
    result = workspace.sync()
    assert result.removed == 1
    assert {f.path for f in result.failed} == {rf"{folder}/\xff", f"{folder}/travel"}
    assert {d.uri for d in workspace.documents()} == {"leave.md", "deep/travel.md", "travel", r"\xff/a.md"}


def test_a_file_that_became_a_link_to_itself_fails_alone(workspace: Workspace, folder: Path) -> None:
    note = folder.parent / "note.txt"
    note.write_text("Helmets are worn.")
    workspace.add([str(note), str(folder)])
    note.unlink()
    note.symlink_to(note.name)
    (folder / "new.txt").write_text("One more file.")
    result = workspace.sync()
    assert (result.added, result.removed, [f.path for f in result.failed]) == (1, 0, [str(note)])
    assert workspace.remove_source(str(note.absolute())).documents == 1


def test_what_graft_keeps_is_no_document(workspace: Workspace, folder: Path) -> None:
    with Workspace(folder / "kept") as inside:
        assert (inside.add([str(folder)]).added, inside.sync().failed) == (2, [])
        assert {d.uri for d in inside.documents()} == {"leave.md", "deep/travel.md"}
    with Workspace(folder) as all_of_it, pytest.raises(UsageError, match="workspace's own folder"):
        all_of_it.add([str(folder)])


def test_a_source_of_another_collection_cannot_be_written_to(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    anas = workspace.documents()[0]
    with Workspace(workspace.home, principals=["user:mallory"]) as mallory:
        (folder.parent / "mine.txt").write_text("Mine.")
        mallory.add([str(folder.parent / "mine.txt")], collection="mallorys")
        theirs = mallory.documents()[0]
        document = mallory.reader.read(b"Taken over.", name="x.txt")
        stolen = NewDocument(
            uri=anas.uri,
            source_id=anas.source_id,
            title="x",
            principals=mallory.principals,
            document=document,
            source_sha256="0",
            size=1,
            mtime_ns=1,
            chunks=[],
            vectors=mallory.embedder.embed([]),
        )
        batch = Batch(collection=theirs.collection, embedder=mallory.embedder.identity, documents=[stolen])
        with pytest.raises(NotFound, match="has no source"):
            mallory.store.write(batch, principals=mallory.principals)
    assert [d.uri for d in workspace.documents()] == ["deep/travel.md", "leave.md"]
