"""Durable jobs in one process: real DBOS, a real database."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graft.errors import AccessDenied, GraftError, NotFound, ReadError, StoreError, UsageError
from graft.jobs import Job, JobRun, Jobs, JobStatus
from graft.jobs.ownership import Claim
from graft.jobs.records import FILE_NAME
from graft.jobs.running import Progress
from tests.job_kinds import KINDS, assert_each_step_ended_once, counting_job, lines

ANA, BEN = frozenset({"user:ana"}), frozenset({"user:ben", "group:hr"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def jobs(home: Path) -> Iterator[Jobs]:
    opened = Jobs(home, "", KINDS)
    yield opened
    opened.close()


def test_queued_jobs_are_paused_resumed_and_cancelled_at_once(jobs: Jobs, log: Path) -> None:
    first, second, third = (counting_job(jobs, log, steps=1, seconds=0) for _ in range(3))
    assert jobs.pause(first.id).status is JobStatus.PAUSED
    assert jobs.cancel(second.id).status is JobStatus.CANCELLED
    assert jobs.work() == 1
    assert [job.status for job in jobs.list()] == [JobStatus.DONE, JobStatus.CANCELLED, JobStatus.PAUSED]
    assert jobs.resume(first.id).status is JobStatus.QUEUED
    assert jobs.work() == 1
    for stop in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(UsageError, match=f"job {third.id} is done"):
            stop(third.id)


def test_a_job_that_was_paused_before_it_ran_in_this_process_is_run_by_run(jobs: Jobs, log: Path) -> None:
    job = counting_job(jobs, log, steps=2, seconds=0)
    jobs.pause(job.id)
    assert jobs.run(job.id).status is JobStatus.DONE
    assert jobs.run(job.id).outcome()["total"] == 3  # done already: as it is
    assert_each_step_ended_once(log, 2)


def test_an_explained_failure_is_kept_with_its_fix_and_resuming_tries_the_step_again(
    jobs: Jobs, log: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.touch()
    job = jobs.start("failing", {"log": str(log), "while": str(bad), "how": "explained"}, title="fails")
    assert (job.status, job.error, job.fix) == (JobStatus.FAILED, "the file is cut off", "save it again")
    with pytest.raises(GraftError, match="the file is cut off"):
        job.outcome()
    with pytest.raises(UsageError, match="is failed"):
        jobs.pause(job.id)
    assert jobs.work() == 0
    bad.unlink()
    jobs.resume(job.id)
    assert jobs.work() == 1
    assert jobs.get(job.id).outcome() == {"second": "well"} and jobs.get(job.id).error is None
    assert lines(log) == ["first", "second", "first", "second"]


def test_an_unexpected_failure_shows_no_traceback_but_keeps_it(
    jobs: Jobs, home: Path, log: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.touch()
    job = jobs.start("failing", {"log": str(log), "while": str(bad), "how": "unexpected"}, title="fails")
    assert job.error == "unexpected ZeroDivisionError: nobody thought of this" and job.fix
    kept = (home / "jobs" / job.id / "traceback.txt").read_text(encoding="utf-8")
    assert "in second" in kept and "ZeroDivisionError: nobody thought of this" in kept


def test_items_are_retried_and_the_reasons_kept(jobs: Jobs) -> None:
    job = jobs.start("items", {}, title="items")
    assert job.outcome() == {
        "done": ["GOOD", "FLAKY"],
        "tried": {"good": 1, "flaky": 3, "broken": 3, "refused": 1},  # a limit would only refuse again
    }
    assert (job.failed, job.retried) == (3, 1)
    assert {failure.item: (failure.error, failure.fix, failure.attempts) for failure in job.failures} == {
        "broken": ("broken is cut off", "save it again", 3),
        "refused": ("refused has 9 pages, the limit is 5", "raise the limit", 1),
        "by-hand": ("was not looked at", "look at it", 1),
    }
    *_, flaky = jobs.troubles(job.id)
    assert flaky.recovered and flaky.attempts == 3
    assert flaky.error == "unexpected ConnectionError: attempt 2 did not get through"


def test_an_item_that_failed_before_the_job_was_cut_off_may_recover(home: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.touch()

    def kind(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        def read() -> str:
            if bad.exists():
                raise ConnectionError("no answer")
            return "read"

        return {"item": job.retry("one", read, attempts=1)}

    jobs = Jobs(home, "", {"kind": kind})
    job = jobs.start("kind", {}, title="one item")
    assert job.status is JobStatus.FAILED and (job.failed, job.retried) == (1, 0)
    bad.unlink()
    job = jobs.run(job.id)
    assert job.status is JobStatus.DONE and (job.failed, job.retried) == (0, 1)
    [trouble] = jobs.troubles(job.id)
    assert trouble.attempts == 2 and "no answer" in trouble.error


def test_a_job_runs_in_the_thread_that_asked_and_has_a_folder(jobs: Jobs, home: Path) -> None:
    job = jobs.start("artefact", {}, title="artefact")
    assert job.outcome() == {"folder": str(home / "jobs" / job.id), "thread": threading.current_thread().name}
    assert (home / "jobs" / job.id / "made.txt").read_text(encoding="utf-8") == "here"


def test_what_is_not_json_is_refused_with_a_reason(home: Path) -> None:
    results: dict[str, Any] = {"object": object(), "list": [1], "number": {"value": float("nan")}}
    kinds = {name: (lambda job, payload, value=value: value) for name, value in results.items()}
    kinds["step"] = lambda job, payload: {"value": job.step("odd", lambda: {1, 2})}
    jobs = Jobs(home, "", kinds)
    with pytest.raises(UsageError, match="not JSON"):
        jobs.submit("list", {"path": Path()}, title="")
    for name in kinds:
        job = jobs.start(name, {}, title=name)
        assert job.status is JobStatus.FAILED and "not" in str(job.error) and "JSON" in str(job.error)


def test_a_step_gives_the_same_value_the_first_time_and_after_a_resume(home: Path) -> None:
    values: list[Any] = []

    def kind(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        values.append(job.step("tuple", lambda: (1, None, {"a": "ü"})))
        if len(values) == 1:
            raise RuntimeError("once")
        return {}

    jobs = Jobs(home, "", {"kind": kind})
    assert jobs.run(jobs.start("kind", {}, title="").id).status is JobStatus.DONE
    assert values == [[1, None, {"a": "ü"}]] * 2


def test_code_that_takes_other_steps_after_a_resume_is_found_out(home: Path) -> None:
    names = iter(["first", "other"])

    def kind(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        job.step(next(names), lambda: 1)
        raise RuntimeError("once")

    jobs = Jobs(home, "", {"kind": kind})
    job = jobs.run(jobs.start("kind", {}, title="").id)
    assert job.status is JobStatus.FAILED and "its code has changed" in str(job.error)


def test_a_job_within_a_job_is_refused(home: Path) -> None:
    def outer(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        jobs.start("inner", {}, title="inner")
        return {}

    jobs = Jobs(home, "", {"outer": outer, "inner": lambda job, payload: {}})
    job = jobs.start("outer", {}, title="outer")
    assert job.status is JobStatus.FAILED and "cannot run another" in str(job.error)


def test_reporting_is_cheap_and_told_a_few_times_a_second(home: Path) -> None:
    def kind(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        began = time.process_time()
        for number in range(50_000):
            job.report(number + 1, 50_000, "rows")
            job.check()
        return {"seconds": time.process_time() - began}

    told: list[Job] = []
    job = Jobs(home, "", {"kind": kind}).start("kind", {}, title="", progress=told.append)
    assert job.outcome()["seconds"] / 50_000 < 50e-6
    assert job.done == 50_000 and len(told) < 40


def test_the_time_left_follows_the_pace_of_the_stage() -> None:
    progress = Progress()
    progress.set(50, 100, "rows", "")  # the first report: half was done before
    assert progress.seconds_left is None
    time.sleep(0.2)
    progress.set(60, 100, "rows", "")
    left = progress.seconds_left
    assert left is not None and 0.7 <= left <= 8  # 4 x 0.2 s on a quiet machine
    progress.set(1, 3, "files", "")
    assert progress.seconds_left is None  # another stage


# Who sees what


def test_only_its_owner_and_the_workspaces_owner_see_a_job(home: Path) -> None:
    kinds = {"artefact": KINDS["artefact"]}
    owner, ana, ben = (Jobs(home, "", kinds, principals=who) for who in (frozenset({"owner"}), ANA, BEN))
    own = owner.submit("artefact", {}, title="the owner's")
    hers = ana.submit("artefact", {}, title="Ana's")
    his = owner.submit("artefact", {}, title="for Ben", principal="user:ben")
    assert (own.owner, hers.owner, his.owner) == ("owner", "user:ana", "user:ben")
    seen = {name: {job.id for job in who.list()} for name, who in (("owner", owner), ("ana", ana), ("ben", ben))}
    assert seen == {"owner": {own.id, hers.id, his.id}, "ana": {hers.id}, "ben": {his.id}}
    touched = 0
    for touch in (ben.get, ben.run, ben.cancel, ben.pause, ben.resume, ben.troubles, lambda i: list(ben.follow(i))):
        for foreign in (own.id, hers.id):
            with pytest.raises(NotFound) as failure:
                touch(foreign)
            assert str(failure.value).count(foreign) == 1 and his.id in str(failure.value)
            touched += 1
    assert touched == 14
    with pytest.raises(AccessDenied):
        ben.submit("artefact", {}, title="", principal="user:ana")
    assert ben.work() == 1 and owner.get(hers.id).status is JobStatus.QUEUED
    assert owner.work() == 2


def test_an_unknown_job_names_those_that_exist(jobs: Jobs, log: Path) -> None:
    with pytest.raises(NotFound, match="no job 'x'; have none"):
        jobs.get("x")
    job = counting_job(jobs, log)
    with pytest.raises(NotFound, match=rf"no job '\.\./x'; have {job.id}"):
        jobs.get("../x")
    with pytest.raises(UsageError, match="no kind of job 'tuning' here; have counting"):
        jobs.submit("tuning", {}, title="")


def test_a_worker_leaves_jobs_of_other_kinds_alone(jobs: Jobs, home: Path, log: Path) -> None:
    job = counting_job(jobs, log, steps=1, seconds=0)
    assert Jobs(home, "", {"artefact": KINDS["artefact"]}).work() == 0
    assert jobs.get(job.id).status is JobStatus.QUEUED


# What lies on the disk


def test_looking_for_jobs_leaves_nothing_behind(home: Path) -> None:
    jobs = Jobs(home, "", KINDS)
    assert jobs.list() == () and jobs.work() == 0
    with pytest.raises(NotFound):
        jobs.cancel("x")
    assert not home.exists()


def test_nothing_in_the_database_is_pickled(jobs: Jobs, home: Path, log: Path) -> None:
    jobs.run(counting_job(jobs, log, steps=2, seconds=0).id)
    with sqlite3.connect(home / FILE_NAME) as database:
        kept = database.execute("SELECT output, serialization FROM operation_outputs").fetchall()
        begun = database.execute("SELECT serialization FROM workflow_status").fetchall()
    database.close()
    assert [json.loads(json.loads(output)) for output, _ in kept] == [1, 2]
    assert {how for _, how in kept} | {how for (how,) in begun} == {"portable_json"}


def test_a_damaged_or_newer_database_is_explained(jobs: Jobs, home: Path, log: Path) -> None:
    counting_job(jobs, log)
    jobs.close()
    with sqlite3.connect(home / FILE_NAME) as database:
        database.execute("UPDATE jobs_schema SET version = 99")
    database.close()
    with pytest.raises(StoreError, match="newer Graft"):
        Jobs(home, "", KINDS).list()
    (home / FILE_NAME).write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreError, match="cannot be used"):
        Jobs(home, "", KINDS).list()


def test_dbos_is_imported_only_where_a_job_runs(home: Path) -> None:
    code = (
        "import sys, pathlib, graft.jobs as j, graft.cli.jobs\n"
        "jobs = j.Jobs(pathlib.Path(sys.argv[1]), '', {'kind': lambda job, payload: {}})\n"
        "job = jobs.submit('kind', {}, title='t'); jobs.list(); jobs.pause(job.id); jobs.resume(job.id)\n"
        "print('dbos' in sys.modules, jobs.run(job.id).status, 'dbos' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code, str(home)], check=True, capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("False done True\n", "")


def test_text_that_no_database_takes_is_kept_as_escapes(home: Path) -> None:
    """A file's name may be of any bytes; it must not be what ends a job, or a worker."""
    name = "caf\udce9\0.txt"

    def reads(run: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        run.report(1, 2, "files", name)
        run.fail_item(name, f"cannot read {name}", "rename it")
        raise ReadError(f"no text in {name}", fix=f"mv {name} file.txt")

    jobs = Jobs(home, "", {"reads": reads})
    ended = jobs.start("reads", {"name": name}, title=f"read {name}")
    kept = "caf\\udce9\\x00.txt"
    assert (ended.status, ended.error, ended.title) == ("failed", f"no text in {kept}", f"read {kept}")
    assert ended.failures[0].item == ended.note == kept and ended.payload == {"name": name}
    assert "ReadError" in (home / "jobs" / ended.id / "traceback.txt").read_text()


def test_a_failure_is_told_although_its_traceback_cannot_be_kept(home: Path) -> None:
    def fails(run: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        (run.folder / "traceback.txt").mkdir()  # as where the disk is full
        raise ReadError("the disk is full", fix="make room")

    ended = Jobs(home, "", {"fails": fails}).start("fails", {}, title="fail")
    assert (ended.status, ended.error, ended.fix) == ("failed", "the disk is full", "make room")


@pytest.mark.parametrize(("ends", "verb"), [("done", "cancel"), ("paused", "cancel"), ("paused", "resume")])
def test_a_word_to_a_job_that_ends_at_that_moment_is_not_lost(jobs: Jobs, log: Path, ends: str, verb: str) -> None:
    job = counting_job(jobs, log)
    ownership = jobs._ownership

    class EndsMeanwhile:
        """The job's process writes how it ended after the first look at the claim, and lets go."""

        looks = 0

        @contextmanager
        def claim(self, job_id: str, *, seconds: float) -> Iterator[Claim | None]:
            self.looks += 1
            if self.looks == 1:
                jobs._records.change(job_id, status=ends, wanted="", result={} if ends == "done" else None)
                yield None
                return
            with ownership.claim(job_id, seconds=seconds) as claim:
                yield claim

        def claimed(self, job_ids: Iterable[str]) -> frozenset[str]:
            return ownership.claimed(job_ids)

    jobs.__dict__["_ownership"] = EndsMeanwhile()
    if ends == "done":
        with pytest.raises(UsageError, match="is done"):
            jobs.cancel(job.id)
        assert (jobs.get(job.id).status, jobs.get(job.id).wanted) == ("done", "")
    else:
        asked = jobs.cancel(job.id) if verb == "cancel" else jobs.resume(job.id)
        assert asked.status == {"cancel": "cancelled", "resume": "queued"}[verb]
