"""A server that is killed with -9: nothing half is visible afterwards, and what was under way goes on or is told."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from graft.workspace import Workspace

MODEL = "smollm2-135m"


@contextmanager
def server(home: Path, models: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process of its own, killed with all that it started when this is left."""
    command = [sys.executable, "-m", "graft", "--home", str(home), "--json", "serve", "--port", "0"]
    environment = {**os.environ, "GRAFT_MODELS": str(models), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        workers = children_of(process.pid)
        for pid in (process.pid, *workers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                child = int(path.parent.name)
                found += [child, *children_of(child)]
    return found


def until(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
    return found


@pytest.fixture
def home(tmp_path: Path, models: Path) -> Path:
    (tmp_path / "travel.md").write_text("# Travel\n\nA hotel may cost at most 140 EUR a night.\n")
    with Workspace(tmp_path / "home") as workspace:
        workspace.add([str(tmp_path / "travel.md")])
    return tmp_path / "home"


def test_an_upload_that_was_cut_off_is_nowhere(home: Path, models: Path) -> None:
    with server(home, models) as (url, process):
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port)) as connection:
            head = (
                f"POST /v1/files HTTP/1.1\r\nHost: {address.host}:{address.port}\r\nContent-Length: 50000000\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
                '--x\r\nContent-Disposition: form-data; name="file"; filename="half.md"\r\n\r\n'
            )
            connection.sendall(head.encode() + b"half of it " * 1_000_000)
            time.sleep(0.3)
            process.kill()
    with server(home, models) as (url, _), openai.OpenAI(base_url=url, api_key="none") as client:
        assert list(client.files.list()) == []
        assert not list((home / "files").glob("*"))


def test_what_a_killed_server_left_of_an_upload_is_swept_away(home: Path) -> None:
    with Workspace(home) as workspace:
        kept = workspace.put_file("kept.md", io.BytesIO(b"Kept."), purpose="assistants", most_bytes=100)
        for name, days in (("file-half", 2), ("file-coming", 0)):
            (home / "files" / name).mkdir()
            (home / "files" / name / "half.md").write_text("Half of")
            os.utime(home / "files" / name, times=(time.time() - days * 86_400,) * 2)
        os.utime(home / "files" / kept.id, times=(0, 0))
        assert workspace.sweep_files() == 1
        assert {one.name for one in (home / "files").iterdir()} == {"file-coming", kept.id}


def test_files_that_were_being_read_are_read_by_the_next_server(home: Path, models: Path) -> None:
    text = "# Rules\n\n" + "\n\n".join(f"Rule {n}: a guest of rank {n} may have {n * 7} keys." for n in range(400))
    with server(home, models) as (url, process), openai.OpenAI(base_url=url, api_key="none") as client:
        store = client.vector_stores.create(name="rules")
        for n in range(4):
            file = client.files.create(file=(f"{n}.md", io.BytesIO(text.encode())), purpose="assistants")
            client.vector_stores.files.create(file_id=file.id, vector_store_id=store.id)
        process.kill()
    with server(home, models) as (url, _), openai.OpenAI(base_url=url, api_key="none") as client:
        seen = []

        def all_read() -> bool:
            counts = client.vector_stores.retrieve(store.id).file_counts
            seen.append(counts.completed)
            assert counts.failed == 0 and counts.total == 4
            return counts.completed == 4

        until(all_read, seconds=120)
        assert seen == sorted(seen)
        assert len({hit.file_id for hit in client.vector_stores.search(store.id, query="keys of rank 12").data}) == 4


def test_a_comparison_goes_on_after_server_and_worker_were_killed(home: Path, models: Path) -> None:
    questions = "".join(
        json.dumps({"question": f"What may a hotel of {n} stars cost at most?", "answers": ["140 EUR"]}) + "\n"
        for n in range(1, 16)
    ).encode()
    with server(home, models) as (url, process), openai.OpenAI(base_url=url, api_key="none") as client:
        file = client.files.create(file=("questions.jsonl", io.BytesIO(questions)), purpose="evals")
        body = {"questions": file.id, "arms": ["base", "rag", "best-sentence"]}
        job = httpx.post(f"{url}/comparisons", json=body).json()["id"]
        until(lambda: 0 < httpx.get(f"{url}/jobs/{job}").json()["done"] < 45, seconds=120)
        for pid in (*children_of(process.pid), process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    with server(home, models) as (url, _):
        states = set()

        def is_done() -> bool:
            told = httpx.get(f"{url}/jobs/{job}").json()
            states.add(told["status"])
            assert told["status"] in ("queued", "running", "interrupted", "done"), told
            return told["status"] == "done"

        until(is_done, seconds=240)
        result = httpx.get(f"{url}/comparisons/{job}").json()
        assert {arm["name"] for arm in result["arms"]} == {"base", "rag", "best-sentence"}
        assert len(result["records"]) == 15 and all(len(one["replies"]) == 3 for one in result["records"])
        assert httpx.get(f"{url}/comparisons/{job}/report").status_code == 200
