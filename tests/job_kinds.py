"""Kinds of jobs for the tests of `graft.jobs`, and a process that runs them: `python -m tests.job_kinds HOME VERB`.

Each does real work on a real file: a line appended to the `log` that its payload names.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graft.errors import ReadError
from graft.jobs import ItemFailed, Job, JobRun, Jobs


def write_line(log: str, line: str) -> None:
    """Append a line, in one write: processes that write at once do not mix."""
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []


def counting(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """`steps` steps of `seconds` each; each logs when it begins and when it ends."""
    total = 0
    for number in range(payload["steps"]):

        def work(number: int = number) -> int:
            write_line(payload["log"], f"begin {number}")
            until = time.monotonic() + payload.get("seconds", 0)
            while time.monotonic() < until:
                time.sleep(0.01)
            write_line(payload["log"], f"end {number}")
            return number + 1

        total += job.step(f"step {number}", work)
        job.report(number + 1, payload["steps"], "steps", note=f"at {number}")
        job.check()
    return {"total": total, "process": os.getpid()}


def endless(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Never ends by itself; comes to a safe point a hundred times a second."""
    write_line(payload["log"], "begin")
    try:
        while True:
            time.sleep(0.01)
            job.check()
    finally:
        write_line(payload["log"], "closed")


def items(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """`good` goes well, `flaky` at the third attempt, `broken` and `refused` never."""
    tried = {"good": 0, "flaky": 0, "broken": 0, "refused": 0}

    def attempt(item: str) -> str:
        tried[item] += 1
        if item == "flaky" and tried[item] < 3:
            raise ConnectionError(f"attempt {tried[item]} did not get through")
        if item == "broken":
            raise ReadError("broken is cut off", fix="save it again")
        if item == "refused":
            from graft.errors import LimitExceeded

            raise LimitExceeded("refused has 9 pages, the limit is 5", fix="raise the limit")
        return item.upper()

    done = []
    for item in tried:
        try:
            done.append(job.retry(item, lambda item=item: attempt(item)))
        except ItemFailed:
            continue
    job.fail_item("by-hand", "was not looked at", "look at it")
    return {"done": done, "tried": tried}


def failing(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fails in its second step while the file `payload["while"]` exists; `how` says by which exception."""
    write_line(payload["log"], job.step("first", lambda: "first"))

    def second() -> str:
        write_line(payload["log"], "second")
        if Path(payload["while"]).exists():
            if payload["how"] == "explained":
                raise ReadError("the file is cut off", fix="save it again")
            raise ZeroDivisionError("nobody thought of this")
        return "well"

    return {"second": job.step("second", second)}


def deadly(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Kills its process, as running out of memory would."""
    write_line(payload["log"], "begin")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def artefact(job: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    (job.folder / "made.txt").write_text("here", encoding="utf-8")
    return {"folder": str(job.folder), "thread": threading.current_thread().name}


KINDS = {
    "counting": counting,
    "endless": endless,
    "items": items,
    "failing": failing,
    "deadly": deadly,
    "artefact": artefact,
}


def counting_job(jobs: Jobs, log: Path, steps: int = 5, seconds: float = 0.3) -> Job:
    return jobs.submit("counting", {"steps": steps, "seconds": seconds, "log": str(log)}, title="count")


def assert_each_step_ended_once(log: Path, steps: int, cut_off: int = 0) -> None:
    """Every step ended; those that a kill cut off began again, and none that had ended ran again."""
    counted = Counter(lines(log))
    assert [counted[f"end {number}"] for number in range(steps)] == [1] * steps
    assert sum(counted[f"begin {number}"] for number in range(steps)) <= steps + cut_off


def main(home: str, verb: str, *arguments: str) -> None:
    """run ID | work | silent ID, with GRAFT_TEST_URL as the store's URL."""
    jobs = Jobs(Path(home), os.environ.get("GRAFT_TEST_URL", ""), KINDS)

    def show(job: Job) -> None:
        print(job.id, job.status, job.done, job.note, flush=True)

    if verb == "run":
        print(jobs.run(arguments[0]).status, flush=True)
    elif verb == "work":
        print(jobs.work(), flush=True)
    else:
        jobs.run(arguments[0], progress=show)


if __name__ == "__main__":
    main(*sys.argv[1:])
