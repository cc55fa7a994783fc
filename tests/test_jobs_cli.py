"""`graft jobs`: readable for people, exactly one JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graft.cli import main
from graft.jobs import Jobs
from graft.workspace import Workspace
from tests.job_kinds import KINDS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def jobs(home: Path) -> Jobs:
    return Jobs(home, "", KINDS)


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`graft jobs` on a workspace whose jobs are of the tests' kinds."""

    def of_tests(workspace: Workspace) -> Jobs:
        return Jobs(workspace.home, workspace.settings.store.url, KINDS, principals=workspace.principals)

    monkeypatch.setattr(Workspace, "jobs", property(of_tests), raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["--home", str(home), "jobs", *words])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def one_object(answer: tuple[int, str, str]) -> Any:
    status, out, err = answer
    assert (status, err, out.count("\n")) == (0, "", 1)
    return json.loads(out)


def test_jobs_are_listed_stopped_and_resumed(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    assert one_object(run("list", "--json")) == {"jobs": []}
    job = jobs.submit("counting", {"steps": 2, "log": str(tmp_path / "log")}, title="Count to two")
    assert one_object(run("pause", job.id, "--json"))["status"] == "paused"
    [listed] = one_object(run("list", "--json"))["jobs"]
    assert (listed["id"], listed["status"], listed["title"]) == (job.id, "paused", "Count to two")
    assert one_object(run("resume", job.id, "--queue", "--json"))["status"] == "queued"
    done = one_object(run("resume", job.id, "--json"))
    assert done["status"] == "done" and done["result"]["total"] == 3 and done["done"] == done["total"] == 2
    assert one_object(run("follow", job.id, "--json"))["id"] == job.id
    status, out, _ = run("list")
    assert status == 0 and "Count to two" in out and "2 of 2 steps" in out
    status, out, err = run("cancel", job.id)
    assert status == 2 and "is done" in err and f"graft jobs show {job.id}" in err


def test_a_shown_job_names_each_failed_item_with_its_fix(run: Run, jobs: Jobs) -> None:
    job = jobs.submit("items", {}, title="Read four items")
    status, out, err = run("resume", job.id)
    assert status == 0 and out == f"{job.id} done\n" and f"{job.id} running" in err
    shown = one_object(run("show", job.id, "--json"))
    assert len(shown["failures"]) == 3 and len(shown["troubles"]) == 4
    status, out, _ = run("show", job.id)
    assert status == 0
    for line in (
        "✗ broken: broken is cut off (3 attempts)",
        "  fix: save it again",
        "~ flaky: succeeded after 3 attempts; before: unexpected ConnectionError: attempt 2 did not get through",
    ):
        assert line in out.splitlines()


def test_a_job_that_failed_is_a_failure_of_the_command_with_its_fix(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.touch()
    payload = {"log": str(tmp_path / "log"), "while": str(bad), "how": "explained"}
    job = jobs.submit("failing", payload, title="Fail\x1b[2J")
    status, out, err = run("resume", job.id, "--json")
    assert status == 1 and json.loads(out) == {"error": "the file is cut off", "fix": "save it again"}
    assert "Traceback" not in err
    status, out, _ = run("show", job.id)
    assert status == 0 and "✗ the file is cut off" in out and "\x1b" not in out


def test_a_foreign_job_is_not_found(run: Run, jobs: Jobs) -> None:
    job = jobs.submit("artefact", {}, title="the owner's")
    for verb in ("show", "follow", "cancel", "pause", "resume"):
        status, out, err = run(verb, job.id, "--as", "user:ana", "--json")
        assert status == 1 and json.loads(out)["error"] == f"no job {job.id!r}; have none", err
    assert one_object(run("list", "--as", "user:ana", "--json")) == {"jobs": []}
