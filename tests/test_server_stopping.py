"""Stopping a real server with an answer and a job under way: in bounded time, and at once if told twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from graft.workspace import Workspace

LONG: dict[str, Any] = {
    "model": "smollm2-135m",
    "messages": [{"role": "user", "content": "Write a very long story about a lighthouse, with many chapters."}],
    "max_tokens": 3_000,
    "stream": True,
    "graft": {"retrieval": False},
}
"""Half a minute and more of writing."""

FILES = 600


class Server:
    """`graft serve` over a workspace whose job, the reading of many files, has begun."""

    def __init__(self, folder: Path, grace_seconds: int) -> None:
        self.home = folder / "home"
        many = folder / "many"
        many.mkdir()
        for number in range(FILES):
            text = "\n\n".join(f"Rule {number}.{part}: a hotel may cost {number + part} EUR." for part in range(60))
            (many / f"{number}.md").write_text(f"# Rules {number}\n\n{text}\n")
        with Workspace(self.home) as workspace:
            self.job = workspace.queue_add([str(many)]).id
        (self.home / "graft.toml").write_text(f'[serving]\nlog = "json"\ngrace_seconds = {grace_seconds}\n')
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "graft", "serve", "--home", str(self.home), "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "GRAFT_API_KEY"},
        )
        assert self.process.stdout is not None
        self.url: str = json.loads(self.process.stdout.readline())["url"]

    def status(self) -> str:
        with Workspace(self.home) as workspace:
            return workspace.jobs.get(self.job).status.value

    def told(self) -> list[dict[str, Any]]:
        self.log.seek(0)
        return [json.loads(line) for line in self.log.read().splitlines()]

    def worker(self) -> int:
        found = [one["message"] for one in self.told() if "worker=" in one.get("message", "")]
        return int(found[-1].split("worker=")[1].split()[0])


@pytest.fixture
def start(tmp_path: Path, models: Path) -> Iterator[Callable[[int], Server]]:
    begun: list[Server] = []

    def one(grace_seconds: int) -> Server:
        begun.append(Server(tmp_path, grace_seconds))
        return begun[0]

    yield one
    for server in begun:
        server.process.kill()
        server.process.communicate()
        server.log.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def alive(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    return False


@pytest.mark.slow
def test_an_answer_that_does_not_end_in_time_is_given_up_and_the_job_is_parked(
    start: Callable[[int], Server],
) -> None:
    server = start(1)
    with httpx.stream("POST", f"{server.url}/chat/completions", json=LONG, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        until(lambda: server.status() == "running")
        worker = server.worker()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with suppress(httpx.RemoteProtocolError):
            assert "data: [DONE]" not in list(lines), "it was cut off"
    assert server.process.wait(timeout=40) == 0
    assert time.monotonic() - began < 35
    assert server.told()[-1]["event"] == "stopped"
    assert not alive(worker), "the worker ended with its server"
    assert server.status() == "queued", "the next server goes on with it"


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once_and_the_job_is_found_again(start: Callable[[int], Server]) -> None:
    server = start(300)
    with httpx.stream("POST", f"{server.url}/chat/completions", json=LONG, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        until(lambda: server.status() == "running")
        worker = server.worker()
        server.process.send_signal(signal.SIGTERM)
        for _ in range(20):
            assert next(lines) is not None, "the first signal lets it go on"
        assert server.process.poll() is None
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
        assert time.monotonic() - began < 10
    assert not alive(worker)
    with Workspace(server.home) as workspace:
        assert workspace.jobs.some_wait(), "a job whose process died is taken up by the next one"
