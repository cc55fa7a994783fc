"""Graft's server as a hosted model of Graft itself, and in front of services that fail."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from graft.errors import ModelError
from graft.models import GenerateOptions, Message, complete
from graft.models.hosted import HostedModel
from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace

pytest.importorskip("litellm", exc_type=ImportError)
# LiteLLM against its own dependencies: pytest hides the filters that Graft and Python set for them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Item '.*' on TypedDict class:UserWarning", "ignore::DeprecationWarning:litellm"
)

KEY = "graft-test-0123456789abcdef"


class _Breaking(http.server.BaseHTTPRequestHandler):
    """An OpenAI-compatible service whose line breaks after two words."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in ("Two ", "words "):
            chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "x"}
            event = f"data: {json.dumps({**chunk, 'choices': [{'index': 0, 'delta': {'content': word}}]})}\n\n"
            self.wfile.write(f"{len(event):x}\r\n{event}\r\n".encode())
            self.wfile.flush()
        self.close_connection = True  # without the end of the last chunk

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def breaking() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Breaking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, models: Path, breaking: str) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hosted")
    (folder / "travel.md").write_text("# Travel\n\nA hotel may cost at most 140 EUR a night.\n")
    with Workspace(folder / "home") as workspace:
        workspace.add([str(folder / "travel.md")])
        workspace.add_hosted_model("breaking", "litellm/openai/breaking", api_base=breaking)
        with in_background(workspace, ServingSettings(port=0), api_key=KEY) as (where, _):
            yield where


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_GRAFT_KEY", KEY)


def model(url: str, name: str) -> HostedModel:
    return HostedModel(f"openai/{name}", api_base=url, key_env="TEST_GRAFT_KEY", context_tokens=4096)


def test_graft_asks_graft_and_gets_the_checked_answer(url: str) -> None:
    pieces: list[str] = []
    stream = model(url, "smollm2-135m").stream(
        [Message("user", "What may a hotel cost at most?")], GenerateOptions(max_tokens=24)
    )
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            reply = end.value
            break
    assert "140" in reply.text and "[1]" in reply.text and "".join(pieces) == reply.text
    assert reply.usage.input_tokens > 20 and reply.usage.output_tokens > 0 and reply.cost_usd is None
    assert reply.finish_reason in ("stop", "length")


def test_a_refusal_of_the_server_is_an_error_with_its_words_on_the_other_side(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = [Message("user", "What may a hotel cost?")]
    with pytest.raises(ModelError, match="stop"):
        complete(model(url, "smollm2-135m"), question, GenerateOptions(stop=("x",)))
    with pytest.raises(ModelError, match="does not exist there"):
        complete(model(url, "nope"), question)
    monkeypatch.setenv("TEST_GRAFT_KEY", "another-key-0123456789")
    with pytest.raises(ModelError, match="TEST_GRAFT_KEY"):
        complete(model(url, "smollm2-135m"), question)


def test_a_model_that_breaks_off_in_a_stream_is_an_error_event_and_no_done(url: str) -> None:
    client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
    body = {"graft": {"retrieval": False}}
    said: list[str] = []
    with pytest.raises(openai.APIError, match="cannot be reached") as caught:
        for chunk in client.chat.completions.create(
            model="breaking", messages=[{"role": "user", "content": "Hi"}], stream=True, extra_body=body
        ):
            said.append(chunk.choices[0].delta.content or "")
    assert "".join(said) == "Two words "
    assert caught.value.type == "api_error" and caught.value.code == "model_error"
    request = {"model": "breaking", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **body}
    raw = httpx.post(
        f"{url}/chat/completions", json=request, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    ).text
    assert "[DONE]" not in raw and json.loads(raw.strip().split("\n")[-1].removeprefix("data: "))["error"]


def test_a_model_that_breaks_off_in_a_held_back_answer_shows_nothing_of_it(url: str) -> None:
    client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
    question: list[dict[str, str]] = [{"role": "user", "content": "What may a hotel cost at most?"}]
    said: list[str] = []
    with pytest.raises(openai.APIError, match="cannot be reached"):
        for chunk in client.chat.completions.create(model="breaking", messages=question, stream=True):  # type: ignore
            said.append(chunk.choices[0].delta.content or "")
    assert "".join(said) == ""
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="breaking", messages=question)  # type: ignore[arg-type]
    assert caught.value.status_code == 502 and caught.value.code == "model_error"
