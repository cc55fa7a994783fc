"""Many clients, and clients that leave: bounded work, a clear "come again", and slots that become free."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from benchmarks.bench_upload import upload
from benchmarks.server import served
from graft.extras import install
from graft.server import in_background
from graft.server.authorising import Serving
from graft.server.failing import Busy, Stopping
from graft.server.lanes import ClientLeft, Lane, Tell
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.event_loops import run_aside

LARGE_MB = 300
LONG: dict[str, Any] = {
    "model": "smollm2-135m",
    "messages": [{"role": "user", "content": "Write a very long story about a lighthouse, with many chapters."}],
    "max_tokens": 3_000,
    "graft": {"retrieval": False},
}
"""Half a minute and more of writing: what ends sooner was stopped."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    folder = tmp_path_factory.mktemp("load")
    (folder / "travel.md").write_text("# Travel\n\nA hotel may cost at most 140 EUR a night.\n")
    with Workspace(folder / "home") as workspace:
        workspace.add([str(folder / "travel.md")])
    return folder / "home"


@pytest.fixture
def narrow(home: Path) -> Iterator[tuple[str, Serving]]:
    """One answer at a time, one in line."""
    with (
        Workspace(home) as workspace,
        in_background(workspace, ServingSettings(port=0, parallel=1, waiting=1, grace_seconds=1)) as (url, app),
    ):
        yield url, serving_of(app)


def serving_of(app: FastAPI) -> Serving:
    serving: Serving = app.state.serving
    return serving


def until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def test_a_full_line_is_told_to_come_again_and_searches_still_go_through(narrow: tuple[str, Serving]) -> None:
    url, serving = narrow
    stream = {**LONG, "stream": True}
    with (
        httpx.Client(timeout=60) as http,
        http.stream("POST", f"{url}/chat/completions", json=stream) as first,
        ThreadPoolExecutor(1) as pool,
    ):
        lines = first.iter_lines()
        while "content" not in next(lines):
            pass
        second = pool.submit(httpx.post, f"{url}/chat/completions", json={**LONG, "max_tokens": 2}, timeout=60)
        until(lambda: serving.answers.full)
        refused = httpx.post(f"{url}/chat/completions", json=LONG)
        assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        with pytest.raises(openai.RateLimitError):
            body = {key: value for key, value in LONG.items() if key != "graft"}
            openai.OpenAI(base_url=url, api_key="x", max_retries=0).chat.completions.create(**body)
        began = time.monotonic()
        assert httpx.post(f"{url}/search", json={"query": "hotel"}).status_code == 200
        assert time.monotonic() - began < 5
        ready = httpx.get(url.replace("/v1", "/ready"))
        assert ready.status_code == 503 and "in line" in ready.json()["problems"][0]
        first.close()  # the one under way leaves, so the one in line has its turn
        assert second.result(timeout=30).status_code == 200
    until(lambda: not serving.answers.full)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_client_that_leaves_frees_its_slot(narrow: tuple[str, Serving], streaming: bool) -> None:
    url, serving = narrow
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        body = httpx.Request("POST", url, json={**LONG, "stream": streaming}).content
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: serving.answers.under_way == 1)
        if streaming:
            assert b"200 OK" in connection.recv(200)
        time.sleep(0.5)
        assert serving.answers.under_way == 1
    began = time.monotonic()
    until(lambda: serving.answers.under_way == 0, seconds=10)
    assert time.monotonic() - began < 10


def test_one_that_leaves_the_line_never_starts(narrow: tuple[str, Serving]) -> None:
    url, serving = narrow
    stream = {**LONG, "stream": True}
    with httpx.Client(timeout=60) as http, http.stream("POST", f"{url}/chat/completions", json=stream) as first:
        lines = first.iter_lines()  # kept: httpx hangs up when it is dropped
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/chat/completions", json=LONG, timeout=0.5)
        until(lambda: serving.answers.under_way == 1, seconds=10)
        assert next(line for line in lines if line.startswith("data:")), "the one before it goes on"


def test_a_stream_that_waits_keeps_its_connection_open_with_comments(
    narrow: tuple[str, Serving], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.server.chat.KEEP_ALIVE_SECONDS", 0.2)
    monkeypatch.setattr("graft.server.chat.FIRST_SECONDS", 0.1)
    url, _ = narrow
    stream = {**LONG, "stream": True}
    with httpx.Client(timeout=60) as http, http.stream("POST", f"{url}/chat/completions", json=stream) as first:
        kept = first.iter_lines()
        next(kept)
        with http.stream("POST", f"{url}/chat/completions", json={**stream, "max_tokens": 2}) as second:
            lines = second.iter_lines()
            assert '"role":"assistant"' in next(lines)
            comments = [line for _ in range(6) if (line := next(lines)).startswith(":")]
            assert comments and set(comments) == {": working"}
            assert next(line for line in kept if line.startswith("data:")), "the one before it goes on"
            first.close()
            assert [line for line in lines if line][-1] == "data: [DONE]"


def test_many_clients_at_once_get_an_answer_or_a_429_and_nothing_else(home: Path) -> None:
    settings = ServingSettings(port=0, parallel=2, waiting=2)
    with Workspace(home) as workspace, in_background(workspace, settings) as (url, app):

        async def all_of_them() -> list[tuple[str, int]]:
            async with httpx.AsyncClient(timeout=120) as http:

                async def one(number: int) -> tuple[str, int]:
                    if number % 2:
                        return "search", (await http.post(f"{url}/search", json={"query": "hotel"})).status_code
                    body = {**LONG, "max_tokens": 3}
                    return "chat", (await http.post(f"{url}/chat/completions", json=body)).status_code

                return list(await asyncio.gather(*map(one, range(40))))

        outcomes = run_aside(all_of_them)
        assert {status for _, status in outcomes} <= {200, 429}
        assert sum(outcome == ("chat", 200) for outcome in outcomes) >= 4
        assert outcomes.count(("search", 200)) >= 6
        assert serving_of(app).answers.under_way == 0


def test_a_lane_runs_so_many_at_once_in_order_and_refuses_the_rest() -> None:
    async def scenario() -> None:
        lane = Lane("answers", parallel=1, waiting=1)
        hold, order = threading.Event(), []

        def work(name: str) -> Any:
            def run(tell: Tell) -> str:
                order.append(name)
                hold.wait(10)
                tell("piece")
                return name

            return run

        first, second = lane.start(work("first")), lane.start(work("second"))
        with pytest.raises(Busy, match="1 answers are being made and 1 wait"):
            lane.start(work("third"))
        hold.set()
        assert await asyncio.wrap_future(second.future) == "second" and first.future.result() == "first"
        assert order == ["first", "second"]
        hold.clear()
        left = lane.start(work("left"))
        left.leave()
        hold.set()
        with pytest.raises((ClientLeft, asyncio.CancelledError)):
            await asyncio.wrap_future(left.future)
        assert lane.close(5)
        with pytest.raises(Stopping):
            lane.start(work("late"))

    run_aside(scenario)


COMMAND = (
    "from graft.cli import graft, main; from graft.cli.serving import COMMANDS\n"
    "[graft.add_command(command) for command in COMMANDS if command.name not in graft.commands]; main()"
)


def command(home: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--home", str(home), "serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_listens_answers_and_ends_in_good_order(home: Path, stop: signal.Signals) -> None:
    process = command(home, "--port", "0", "--json", GRAFT_API_KEY="graft-key-of-this-test")
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert said["key_required"] and said["model"] == "smollm2-135m"
    client = openai.OpenAI(base_url=said["url"], api_key="graft-key-of-this-test")
    body = {key: value for key, value in LONG.items() if key not in ("graft", "max_tokens")}
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(client.chat.completions.create, **body, max_tokens=20, extra_body={"graft": CLOSED})
        time.sleep(0.5)
        process.send_signal(stop)
        assert under_way.result(timeout=60).choices[0].message.content, "what was under way is finished"
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "" and "Traceback" not in err and "stopped" in err


CLOSED = {"retrieval": False}


@pytest.mark.parametrize(
    ("words", "variables", "status", "message"),
    [
        (("--host", "0.0.0.0"), {}, 2, "no administrator's key"),
        (("--port", "70000"), {}, 2, "70000"),
        (("--port", "0"), {"GRAFT_API_KEY": ""}, 2, "GRAFT_API_KEY is empty"),
    ],
)
def test_the_command_refuses_what_is_not_safe(
    home: Path, words: tuple[str, ...], variables: dict[str, str], status: int, message: str
) -> None:
    process = command(home, *words, **variables)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status and message in err and "fix:" in err and "Traceback" not in err


def test_without_the_extra_the_command_names_it(home: Path) -> None:
    program = f"import sys; sys.modules['uvicorn'] = None\n{COMMAND}"
    done = subprocess.run(
        [sys.executable, "-c", program, "--home", str(home), "serve"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and install("serve") in done.stderr and "Traceback" not in done.stderr


def test_a_large_upload_goes_to_the_disk_and_not_into_memory() -> None:
    with served(f"[serving]\nmax_file_mb = {LARGE_MB + 1}\n") as server:
        before, most, _ = upload(server, LARGE_MB)
    assert most < before + 60, "MB of memory while 300 arrived"
