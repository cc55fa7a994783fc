"""The verbs as jobs: queued on the command line, run by a worker, each as those who queued it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graft.cli import main
from graft.tuning import TuneRequest
from graft.workspace import Workspace
from tests.conftest import HANDBOOK

Run = Callable[..., Any]
ANA = ["user:ana", "group:sales"]


@pytest.fixture
def home(tmp_path: Path, models: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`graft ... --json` -> its object."""

    def run(*words: str) -> Any:
        with pytest.raises(SystemExit) as left:
            main(["--home", str(home), *words, "--json"])
        out, err = capsys.readouterr()
        assert not left.value.code, err
        return json.loads(out)

    return run


def test_questions_are_made_by_a_worker_with_the_options_given(run: Run, home: Path, tmp_path: Path) -> None:
    (tmp_path / "returns.md").write_text(
        "# Returns\n\nCustomers in the European Union may return a bike within 30 days of delivery. Gift cards are "
        "not refundable. Returned bikes are inspected in Lyon by the service team.\n"
    )
    run("add", str(tmp_path / "returns.md"), "-c", "shop")
    target = tmp_path / "made.jsonl"
    queued = run("dataset", "generate", str(target), "-n", "1", "-c", "shop", "--seed", "3", "--queue")
    job = run("jobs", "show", queued["job"])
    assert (job["kind"], job["status"], target.exists()) == ("generate", "queued", False)
    options = {"model": None, "collection": "shop", "seed": 3, "budget_usd": None}
    told = {"path": str(target), "n": 1, "options": options, "price": None, "principals": ["owner"]}
    assert job["payload"] == told
    assert run("worker", "--once") == {"ended": 1}
    job = run("jobs", "show", queued["job"])
    assert job["status"] == "done", job["error"]
    assert job["result"] == {"path": str(target), "questions": len(target.read_text().splitlines())}


def test_a_worker_does_what_others_queued_as_them(home: Path, tmp_path: Path) -> None:
    """The owner's worker reads everything; a job of somebody else's must not."""
    (tmp_path / "hers.md").write_text("# Hers\n\nThe zebra is kept in Lyon.\n")
    with Workspace(home) as owner, Workspace(home, principals=ANA) as ana:
        owner.add([str(HANDBOOK)])
        added = ana.queue_add([str(tmp_path / "hers.md")], collection="hers")
        made = ana.queue_generate(tmp_path / "stolen.jsonl", 1)
        assert owner.jobs.work() == 2
        assert ana.jobs.get(added.id).outcome()["added"] == 1
        assert [document.uri for document in ana.documents()] == ["hers.md"]
        failed = ana.jobs.get(made.id)
        assert failed.status == "failed" and "no text to ask about" in str(failed.error)
        assert not (tmp_path / "stolen.jsonl").exists()


def test_a_queued_tuning_finds_its_files_from_any_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Workspace(home) as workspace:
        asked = TuneRequest(name="x", model="smollm2-135m", train="train.jsonl", dev="dev.jsonl")
        job = workspace.tune_job(asked, queue=True)
    assert job.payload["request"]["train"] == str(tmp_path.resolve() / "train.jsonl")
    assert job.payload["request"]["dev"] == str(tmp_path.resolve() / "dev.jsonl")
    assert job.payload["request"]["held_out"] is None


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGTERM")
def test_a_worker_that_is_told_to_end_puts_its_job_back_in_the_queue(home: Path, tmp_path: Path) -> None:
    with Workspace(home) as workspace:
        workspace.add([str(HANDBOOK)])
        job = workspace.queue_generate(tmp_path / "made.jsonl", 200)
        command = [sys.executable, "-m", "graft", "--home", str(home), "worker"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            try:
                until = time.monotonic() + 60
                while workspace.jobs.get(job.id).status != "running":
                    assert time.monotonic() < until and worker.poll() is None
                    time.sleep(0.1)
                time.sleep(1)
                worker.send_signal(signal.SIGTERM)
                _, err = worker.communicate(timeout=60)
            finally:
                worker.kill()
        assert worker.returncode == 130 and "Traceback" not in err
        assert workspace.jobs.get(job.id).status == "queued"
        assert workspace.jobs._records.starts(job.id) == 0
