"""Files are read on all cores: in order, within bounds, undisturbed by a hostile one, and let go of at Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import time
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from graft import Workspace
from graft.errors import ReadError
from graft.readers import SandboxedReader
from graft.settings import resolve
from graft.sync import Progress
from graft.sync.ahead import MOST_CHARACTERS, read_ahead


def reading_with(workers: int, **others: int) -> dict[str, dict[str, int]]:
    return {"reading": {"workers": workers, **others}}


def slow_pdf() -> bytes:
    """A small PDF that takes many seconds to read."""
    packed = zlib.compress(b"BT /F 12 Tf (a) Tj ET\n" + b"q 1 0 0 1 0 0 cm BT /F 9 Tf (a) Tj ET Q\n" * 1_500_000, 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R"
        b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(packed), packed),
    ]
    numbered = b"".join(b"%d 0 obj%b\nendobj\n" % pair for pair in enumerate(objects, start=1))
    return b"%PDF-1.4\n" + numbered + b"trailer<</Root 1 0 R/Size 5>>\n%%EOF"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty notes, of which some cannot be read."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(30):
        text = f"# Note {number}\n\n" + f"It tells of matter {number * 7}.\n\n" * (1 + number % 4)
        (documents / f"note{number:02}.md").write_text("" if number % 11 == 3 else text)
    return documents


def contents(workspace: Workspace) -> list[tuple[object, ...]]:
    """All that a store keeps of its documents but their random names, with the keys of their chunks."""
    store, who = workspace.store, workspace.principals
    found: list[tuple[object, ...]] = []
    for document in store.documents(principals=who):
        text = store.version(document.id, principals=who).text
        found.append((document.uri, document.source_sha256, text, document.chunks, document.version))
    ids = range(1, 1 + sum(document.chunks for document in store.documents(principals=who)))
    found += [(c.id, c.uri, c.start, c.end, c.text) for c in store.chunks(list(ids), principals=who)]
    return found


def test_any_number_of_workers_makes_the_same_store(tmp_path: Path, models: Path, folder: Path) -> None:
    made, failures = [], []
    for workers in (1, 3):
        with Workspace(tmp_path / f"home{workers}", settings=resolve(reading_with(workers))) as workspace:
            result = workspace.add([str(folder)])
            assert (result.added, len(result.failed)) == (27, 3)
            made.append(contents(workspace))
            failures.append([failure.path for failure in result.failed])
    assert made[0] == made[1] and len(made[0]) == 2 * 27  # documents, and a chunk of each
    assert failures[0] == failures[1] == sorted(failures[0])


def test_files_named_one_by_one_are_read_side_by_side_and_written_together(
    tmp_path: Path, models: Path, folder: Path
) -> None:
    names = sorted(str(path) for path in folder.iterdir())
    seen: list[Progress] = []
    with Workspace(tmp_path / "home", settings=resolve(reading_with(2))) as workspace:
        before = workspace.store.create_collection("default", principals=workspace.principals)
        result = workspace.add([*names, names[0], str(folder)], progress=seen.append)
        assert before.documents == 0 and result.added == 54
        assert workspace.add(names).unchanged == 27
    assert seen[0].total_files == seen[-1].files == 60  # a file named twice counts once


def test_a_hostile_file_kills_its_own_reader_and_no_other(tmp_path: Path, models: Path, folder: Path) -> None:
    (folder / "note00.pdf").write_bytes(slow_pdf())
    settings = resolve(reading_with(2, max_seconds=2))
    with Workspace(tmp_path / "home", settings=settings) as workspace:
        result = workspace.add([str(folder)])
    hostile = [failure for failure in result.failed if failure.path.endswith(".pdf")]
    assert [failure.error for failure in hostile] == ["reading note00.pdf takes more than 2 s"]
    assert (result.added, len(result.failed)) == (27, 4)


def readers_running() -> set[str]:
    """Process ids of this program's reading processes; other tests' fixtures may hold some."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {line.split()[0] for line in listed.stdout.splitlines() if "graft.readers.worker" in line}


def test_ctrl_c_lets_go_of_files_that_are_still_being_read(tmp_path: Path, models: Path, folder: Path) -> None:
    for number in range(3):
        (folder / f"note01-{number}.pdf").write_bytes(slow_pdf())
    interrupted: list[float] = []

    def interrupt(progress: Progress) -> None:
        if progress.path == "note01-0.pdf":
            time.sleep(1)  # all readers are at work by now
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    with Workspace(tmp_path / "home", settings=resolve(reading_with(3))) as workspace:
        before = readers_running()
        assert workspace.embedder
        with pytest.raises(KeyboardInterrupt):
            workspace.add([str(folder)], progress=interrupt)
        assert readers_running() <= before and time.monotonic() - interrupted[0] < 10
        for path in folder.glob("*.pdf"):
            path.unlink()
        assert workspace.add([str(folder)]).added == 27


# The order and the bounds themselves


def unstarted(count: int) -> list[SandboxedReader]:
    """Readers that never read, so that no process is started."""
    return [SandboxedReader() for _ in range(count)]


def test_outcomes_come_in_the_order_of_the_jobs_whichever_is_done_first() -> None:
    def take(job: int, _: SandboxedReader) -> int:
        time.sleep(0.03 if job % 3 == 0 else 0)
        if job == 4:
            raise ReadError("no", fix="none")
        return job

    found = list(read_ahead(range(12), take, unstarted(4), weigh=lambda _: 0))
    assert isinstance(found.pop(4), ReadError)
    assert found == [job for job in range(12) if job != 4]


@pytest.mark.parametrize(("weight", "most"), [(0, 20), (MOST_CHARACTERS, 2), (MOST_CHARACTERS // 4, 5)])
def test_what_waits_to_be_taken_is_bounded_in_number_and_in_size(weight: int, most: int) -> None:
    begun: list[int] = []

    def take(job: int, _: SandboxedReader) -> int:
        begun.append(job)
        return job

    with closing(read_ahead(range(100), take, unstarted(2), weigh=lambda _: weight)) as outcomes:
        for taken, _ in enumerate(outcomes):
            time.sleep(0.005)
            assert len(begun) - taken <= most + 1
    assert sorted(begun) == list(range(100))


def test_an_error_that_is_no_result_ends_the_reading() -> None:
    begun: list[int] = []

    def take(job: int, _: SandboxedReader) -> int:
        begun.append(job)
        if job == 3:
            raise MemoryError
        return job

    found = []
    with (
        pytest.raises(MemoryError),
        closing(read_ahead(range(500), take, unstarted(2), weigh=lambda _: 0)) as outcomes,
    ):
        for outcome in outcomes:
            found.append(outcome)
    assert found == [0, 1, 2] and len(begun) < 50
