"""Responses in the background by OpenAI's unchanged client: polled, cancelled, never left over, nobody else's."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.event_loops import run_aside

MODEL = "smollm2-135m"
LONG: Any = {
    "model": MODEL,
    "input": "Count from 1 to 1000, a number a line.",
    "max_output_tokens": 3000,
    "temperature": 1.0,
}
ENDED = ("completed", "incomplete", "failed", "cancelled")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[Workspace, str, list[str]]]:
    """The workspace, the address, and the keys of two users; one answer is made at a time, two wait."""
    with Workspace(tmp_path_factory.mktemp("background") / "home") as workspace:
        for name in ("ana", "ben"):
            workspace.identities.create_user(name, role="editor")
        keys = [workspace.identities.create_key(name, user=name)[1] for name in ("ana", "ben")]
        with in_background(workspace, ServingSettings(port=0, parallel=1, waiting=2)) as (url, _):
            yield workspace, url, keys


@pytest.fixture
def client(served: tuple[Workspace, str, list[str]]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served[1], api_key=served[2][0], max_retries=0) as opened:
        yield opened


def polled(client: openai.OpenAI, id: str, *until: str) -> Any:
    end = time.monotonic() + 60
    while (found := client.responses.retrieve(id)).status not in until:
        assert time.monotonic() < end and found.status in ("queued", "in_progress"), found
        time.sleep(0.02)
    return found


def test_a_background_response_is_answered_at_once_and_polled(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "input": "Say hello.", "max_output_tokens": 12}
    queued = client.responses.create(**asked, background=True, metadata={"a": "b"})
    assert (queued.status, queued.background, queued.output, queued.usage) == ("queued", True, [], None)
    done = polled(client, queued.id, *ENDED)
    now = client.responses.create(**asked)
    assert done.status == now.status and done.output_text == now.output_text != ""
    assert done.usage == now.usage and done.created_at == queued.created_at and done.metadata == {"a": "b"}
    assert [one.content[0].text for one in client.responses.input_items.list(done.id)] == ["Say hello."]  # type: ignore[union-attr]
    after = client.responses.create(model=MODEL, input="Why?", previous_response_id=done.id, max_output_tokens=4)
    assert after.usage is not None and after.usage.input_tokens > done.usage.input_tokens


def test_file_search_works_in_the_background(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="knowledge")
    text = b"# Travel\n\nA hotel may cost at most 140 EUR a night.\n"
    client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("travel.md", text), poll_interval_ms=50
    )
    made = client.responses.create(
        model=MODEL,
        input="What may a hotel cost at most?",
        tools=[{"type": "file_search", "vector_store_ids": [store.id]}],
        background=True,
    )
    done = polled(client, made.id, *ENDED)
    assert done.status == "completed" and "140" in done.output_text
    assert done.output[1].content[0].annotations[0].filename == "travel.md"


def test_a_response_is_cancelled_while_it_is_made_and_while_it_waits(
    client: openai.OpenAI, served: tuple[Workspace, str, list[str]]
) -> None:
    made = client.responses.create(**LONG, background=True)
    polled(client, made.id, "in_progress")
    waiting = client.responses.create(**LONG, background=True)
    with pytest.raises(openai.BadRequestError, match="is queued; a response goes on from one") as caught:
        client.responses.create(model=MODEL, input="And?", previous_response_id=waiting.id)
    assert caught.value.param == "previous_response_id"
    began = time.monotonic()
    for id in (waiting.id, made.id):
        assert client.responses.cancel(id).status == "cancelled"
        assert client.responses.cancel(id).status == "cancelled"  # again, it changes nothing
    quick = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=4)
    assert quick.output_text and time.monotonic() - began < 20, "the cancelled ones were made to their end"
    for id in (waiting.id, made.id):
        assert (client.responses.retrieve(id).status, client.responses.retrieve(id).output) == ("cancelled", [])
    assert not served[0].objects.all("response.under_way")
    done = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=4, background=True)
    ended = polled(client, done.id, *ENDED)
    assert client.responses.cancel(done.id) == ended
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(quick.id)


def test_a_full_line_refuses_and_keeps_nothing(
    client: openai.OpenAI, served: tuple[Workspace, str, list[str]]
) -> None:
    made = [client.responses.create(**LONG, background=True) for _ in range(3)]
    kept = len(served[0].objects.all("response"))
    with pytest.raises(openai.RateLimitError):
        client.responses.create(**LONG, background=True)
    assert len(served[0].objects.all("response")) == kept
    for one in made:
        client.responses.delete(one.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(one.id)
    assert client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=4).output_text
    assert not served[0].objects.all("response.under_way")


def test_what_fails_in_the_background_says_why(client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="word " * 6000, background=True)
    failed = polled(client, made.id, *ENDED)
    assert failed.status == "failed" and failed.error.code == "invalid_prompt" and "/ fix:" in failed.error.message
    assert client.responses.cancel(made.id).status == "failed"
    with pytest.raises(openai.NotFoundError, match="no model named"):
        client.responses.create(model="none", input="Hello", background=True)


def test_a_background_response_is_metered(served: tuple[Workspace, str, list[str]]) -> None:
    workspace, url, _ = served
    workspace.identities.create_user("eve", role="reader")
    secret = workspace.identities.create_key("eve", user="eve", tokens_per_day=10)[1]
    with openai.OpenAI(base_url=url, api_key=secret, max_retries=0) as eve:
        first = eve.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8, background=True)
        assert polled(eve, first.id, *ENDED).output_text
        second = eve.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8, background=True)
        failed = polled(eve, second.id, *ENDED)
        assert failed.status == "failed" and failed.error.code == "rate_limit_exceeded"


def test_others_background_responses_do_not_exist(
    client: openai.OpenAI, served: tuple[Workspace, str, list[str]]
) -> None:
    mine = client.responses.create(**LONG, background=True)
    with openai.OpenAI(base_url=served[1], api_key=served[2][1], max_retries=0) as ben:
        for attempt in (ben.responses.retrieve, ben.responses.cancel, ben.responses.delete):
            told = []
            for id in (mine.id, "resp_missing"):
                with pytest.raises(openai.NotFoundError) as caught:
                    attempt(id)
                told.append(str(caught.value).replace(id, "ID"))
            assert told[0] == told[1]
    assert client.responses.cancel(mine.id).status == "cancelled"


async def _asynchronous(url: str, key: str) -> tuple[str | None, str | None]:
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        made = await client.responses.create(**LONG, background=True)
        return made.status, (await client.responses.cancel(made.id)).status


def test_the_asynchronous_client_cancels_too(served: tuple[Workspace, str, list[str]]) -> None:
    assert run_aside(lambda: _asynchronous(served[1], served[2][0])) == ("queued", "cancelled")


def test_a_killed_server_leaves_none_under_way(tmp_path: Path, models: Path) -> None:
    command = [sys.executable, "-m", "graft", "serve", "--port", "0", "--home", str(tmp_path / "home")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        url = next(found[0] for line in process.stdout if (found := re.search(r"http://[0-9.:]+/v1", line)))
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            ids = [client.responses.create(**LONG, background=True).id for _ in range(2)]
            polled(client, ids[0], "in_progress")
    finally:
        process.kill()
        process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    with Workspace(tmp_path / "home") as workspace:
        with (
            in_background(workspace, ServingSettings(port=0)) as (url, _),
            openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
        ):
            for id in ids:
                found = client.responses.retrieve(id)
                assert found.status == "failed" and found.error is not None
                assert "the server was stopped" in found.error.message
        assert not workspace.objects.all("response.under_way")
