"""Jobs and other processes: killed in the middle, stopped and followed from elsewhere, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from graft.errors import GraftError, UsageError
from graft.jobs import Job, JobRun, Jobs, JobStatus
from tests.conftest import ROOT
from tests.job_kinds import KINDS, assert_each_step_ended_once, counting_job, lines
from tests.test_store import postgres as postgres

PATIENCE_SECONDS = 60


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


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test began; none outlives it."""
    begun: list[subprocess.Popen[str]] = []
    yield begun
    for process in begun:
        process.kill()
        process.communicate()


class Others:
    """Other processes on the same jobs."""

    def __init__(self, home: Path, begun: list[subprocess.Popen[str]], url: str = "") -> None:
        self.home, self.begun, self.url = home, begun, url

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.job_kinds", str(self.home), *arguments],
            cwd=ROOT,
            env={**os.environ, "GRAFT_TEST_URL": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begun.append(process)
        return process


@pytest.fixture
def others(home: Path, processes: list[subprocess.Popen[str]]) -> Others:
    return Others(home, processes)


def wait_for(log: Path, *wanted: str, times: int = 1) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not all(lines(log).count(line) >= times for line in wanted):
        assert time.monotonic() < until, f"{wanted} did not come; there are {lines(log)[-5:]}"
        time.sleep(0.01)


# Killed, interrupted, resumed


def test_a_killed_job_goes_on_after_its_last_completed_step(jobs: Jobs, log: Path, others: Others) -> None:
    job = counting_job(jobs, log)
    process = others.begin("run", job.id)
    wait_for(log, "begin 2")
    assert jobs.get(job.id).status is JobStatus.RUNNING
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert jobs.get(job.id).status is JobStatus.INTERRUPTED
    seen: list[Job] = []
    ended = jobs.run(job.id, progress=seen.append)
    assert ended.outcome() == {"total": 15, "process": os.getpid()}
    assert_each_step_ended_once(log, 5, cut_off=1)
    assert [j.status for j in seen] == [JobStatus.RUNNING] * (len(seen) - 1) + [JobStatus.DONE]
    assert ended.started is not None and ended.ended is not None and ended.created < ended.started < ended.ended


@pytest.mark.slow
def test_a_job_survives_a_kill_and_then_ctrl_c(jobs: Jobs, log: Path, others: Others) -> None:
    job = counting_job(jobs, log, steps=6)
    process = others.begin("run", job.id)
    wait_for(log, "begin 1")
    process.kill()
    process.wait()
    process = others.begin("run", job.id)
    wait_for(log, "begin 3")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) != 0  # at once, in the midst of a step
    assert jobs.get(job.id).status is JobStatus.INTERRUPTED
    assert jobs.work() == 0  # who pressed Ctrl-C meant it
    assert jobs.run(job.id).outcome()["total"] == 21
    assert_each_step_ended_once(log, 6, cut_off=2)


@pytest.mark.slow
def test_a_job_outlives_kills_at_any_moment(jobs: Jobs, log: Path, others: Others) -> None:
    job = counting_job(jobs, log, steps=20, seconds=0.05)
    kills = random.Random(0)
    for _ in range(6):  # while it imports, launches, takes over, runs, records
        process = others.begin("run", job.id)
        time.sleep(kills.uniform(0.7, 2.2))
        process.kill()
        process.wait()
        assert jobs.get(job.id).status in (JobStatus.QUEUED, JobStatus.INTERRUPTED, JobStatus.DONE)
    assert jobs.run(job.id).outcome()["total"] == 210
    counted = Counter(lines(log))
    assert all(counted[f"end {number}"] >= 1 for number in range(20))
    assert sum(counted.values()) <= 40 + 6 * 2  # a kill costs at most the step at hand


@pytest.mark.slow
def test_two_hundred_queued_jobs_outlive_a_kill(jobs: Jobs, tmp_path: Path, others: Others) -> None:
    logs = {counting_job(jobs, tmp_path / f"log{n}", steps=2, seconds=0).id: tmp_path / f"log{n}" for n in range(200)}
    process = others.begin("work")
    wait_for(tmp_path / "log60", "begin 0")
    process.kill()
    process.wait()
    by_status = Counter(job.status for job in jobs.list())
    assert by_status[JobStatus.DONE] >= 60 and by_status[JobStatus.INTERRUPTED] <= 1
    assert jobs.work() == 200 - by_status[JobStatus.DONE]
    assert [job.status for job in jobs.list()] == [JobStatus.DONE] * 200
    twice = 0
    for log in logs.values():
        counted = Counter(lines(log))
        assert counted["end 0"] >= 1 and counted["end 1"] >= 1
        twice += sum(counted.values()) - 4
    assert twice <= 2  # the step at hand when the process was killed: begun, and perhaps ended but not recorded


@pytest.mark.slow
def test_a_job_that_kills_its_process_each_time_is_given_up(jobs: Jobs, log: Path, others: Others) -> None:
    job = jobs.submit("deadly", {"log": str(log)}, title="out of memory")
    for _ in range(5):
        assert others.begin("work").wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert jobs.work() == 1
    ended = jobs.get(job.id)
    assert ended.status is JobStatus.FAILED and "died 5 times" in str(ended.error)
    assert lines(log) == ["begin"] * 5
    assert jobs.resume(job.id).status is JobStatus.QUEUED  # people may try again


# From another process: pause, cancel, follow


def test_a_job_paused_from_another_process_goes_on_later(jobs: Jobs, log: Path, others: Others) -> None:
    job = counting_job(jobs, log, steps=20, seconds=0.15)
    process = others.begin("run", job.id)
    wait_for(log, "begin 1")
    with pytest.raises(UsageError, match="running in another process"):
        jobs.run(job.id)
    assert jobs.pause(job.id).wanted == "pause"
    seen = list(jobs.follow(job.id, every_seconds=0.05))
    assert (seen[0].status, seen[-1].status) == (JobStatus.RUNNING, JobStatus.PAUSED)
    assert process.communicate(timeout=PATIENCE_SECONDS) == ("paused\n", "")  # and DBOS said nothing
    done_before = len([line for line in lines(log) if line.startswith("end")])
    assert 0 < done_before < 20
    assert jobs.work() == 0
    assert jobs.resume(job.id).status is JobStatus.QUEUED
    assert jobs.work() == 1
    assert jobs.get(job.id).outcome()["total"] == 210
    assert_each_step_ended_once(log, 20)


def test_a_job_cancelled_from_another_process_is_closed_and_stays_so(jobs: Jobs, log: Path, others: Others) -> None:
    job = jobs.submit("endless", {"log": str(log)}, title="endless")
    process = others.begin("run", job.id)
    wait_for(log, "begin")
    jobs.cancel(job.id)
    assert process.communicate(timeout=PATIENCE_SECONDS) == ("cancelled\n", "")
    assert lines(log) == ["begin", "closed"]
    with pytest.raises(UsageError, match="is cancelled"):
        jobs.resume(job.id)
    with pytest.raises(UsageError, match="was cancelled"):
        jobs.run(job.id)
    with pytest.raises(GraftError, match="no result"):
        jobs.get(job.id).outcome()


def test_following_shows_progress_made_in_another_process(jobs: Jobs, log: Path, others: Others) -> None:
    job = counting_job(jobs, log, steps=6, seconds=0.4)
    others.begin("run", job.id)
    seen = list(jobs.follow(job.id, every_seconds=0.05))
    assert seen[0].status is JobStatus.QUEUED and seen[-1].status is JobStatus.DONE
    made = [job.done for job in seen]
    assert made == sorted(made) and len(set(made)) >= 4
    assert seen[-1].total == 6 and seen[-1].unit == "steps"
    assert any(job.seconds_left is not None and 0 < job.seconds_left < 60 for job in seen)


@pytest.mark.slow
def test_two_workers_share_the_jobs_and_double_none(jobs: Jobs, tmp_path: Path, others: Others) -> None:
    logs = {
        counting_job(jobs, tmp_path / f"log{n}", steps=2, seconds=0.1).id: tmp_path / f"log{n}" for n in range(16)
    }
    workers = [others.begin("work") for _ in range(2)]
    ended = [worker.communicate(timeout=PATIENCE_SECONDS) for worker in workers]
    assert sum(int(out) for out, _ in ended) == 16 and [said for _, said in ended] == ["", ""]
    done = {job.id: job for job in jobs.list()}
    assert len({job.outcome()["process"] for job in done.values()}) == 2
    for job_id, log in logs.items():
        assert lines(log) == ["begin 0", "end 0", "begin 1", "end 1"], done[job_id]


# PostgreSQL


@pytest.fixture
def database(postgres: str) -> str:
    """The URL of a new database on the server."""
    name = f"t{secrets.token_hex(6)}"
    admin = create_engine(make_url(postgres.replace("NAME", "postgres")).set(drivername="postgresql+psycopg"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return postgres.replace("NAME", name)


@pytest.mark.slow
def test_on_postgres_a_killed_job_goes_on_and_no_two_processes_run_it(
    database: str, home: Path, log: Path, processes: list[subprocess.Popen[str]]
) -> None:
    jobs = Jobs(home, database, KINDS)
    job = counting_job(jobs, log)
    process = Others(home, processes, database).begin("run", job.id)
    wait_for(log, "begin 2")
    assert jobs.get(job.id).status is JobStatus.RUNNING
    with pytest.raises(UsageError, match="running in another process"):
        jobs.run(job.id)
    process.kill()
    process.wait()
    until = time.monotonic() + PATIENCE_SECONDS
    while jobs.get(job.id).status is JobStatus.RUNNING:  # until the server has noticed
        assert time.monotonic() < until
        time.sleep(0.05)
    assert jobs.get(job.id).status is JobStatus.INTERRUPTED
    assert jobs.work() == 1 and jobs.get(job.id).outcome()["total"] == 15
    assert_each_step_ended_once(log, 5, cut_off=1)
    jobs.close()


@pytest.mark.slow
def test_on_postgres_a_process_that_lost_its_connection_stops(database: str, home: Path, log: Path) -> None:
    def kind(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        job.step("first", lambda: 1)
        admin = create_engine(make_url(database).set(drivername="postgresql+psycopg"))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            )
        admin.dispose()
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            job.check()
            time.sleep(0.01)
        return {}

    jobs = Jobs(home, database, {"kind": kind})
    job = jobs.submit("kind", {}, title="loses its claim")
    assert jobs.run(job.id).status is JobStatus.INTERRUPTED
    with pytest.raises(GraftError, match="is interrupted, so it has no result"):
        jobs.get(job.id).outcome()
    jobs.close()
