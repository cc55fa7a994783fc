"""Tools and log-probabilities in chat completions, by OpenAI's unchanged client: local, and through a service."""

from __future__ import annotations

import http.server
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import openai
import pytest

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.event_loops import run_aside

pytest.importorskip("litellm", exc_type=ImportError)
# LiteLLM against its own dependencies: pytest hides the filters that Graft and Python set for them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Item '.*' on TypedDict class:UserWarning", "ignore::DeprecationWarning:litellm"
)

MODEL, HOSTED = "smollm2-135m", "service"
CLOSED = {"graft": {"retrieval": False}}
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris and in Rome?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class _Service(http.server.BaseHTTPRequestHandler):
    """An OpenAI-compatible service that asks for two tools, and answers in words once it has their results."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        answered = body["messages"][-1]["role"] == "tool"
        for choice in self._words() if answered or "tools" not in body else self._calls():
            self._send({"choices": [{"index": 0, "finish_reason": None, **choice}]})
        usage = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29}
        self._send({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _calls(self) -> Iterator[dict[str, Any]]:
        for number, city in enumerate(("Paris", "Rome")):
            pieces = ['{"city": ', f'"{city}"}}']
            begun = {"id": f"call_{city}", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
            yield {"delta": {"role": "assistant", "content": None, "tool_calls": [{"index": number, **begun}]}}
            for piece in pieces:
                yield {"delta": {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}}
        yield {"delta": {}, "finish_reason": "tool_calls"}

    def _words(self) -> Iterator[dict[str, Any]]:
        for word in ("Rain", " everywhere"):
            score = {"token": word, "bytes": list(word.encode()), "logprob": -0.25}
            told = {"content": [{**score, "top_logprobs": [score]}]} if self.asked[-1].get("logprobs") else None
            yield {"delta": {"content": word}, "logprobs": told}
        yield {"delta": {}, "finish_reason": "stop"}

    def _send(self, event: dict[str, Any]) -> None:
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "x", **event}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[str]:
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    with Workspace(tmp_path_factory.mktemp("tools") / "home") as workspace:
        workspace.add_hosted_model(
            HOSTED, "litellm/openai/gpt-4.1-mini", api_base=f"http://127.0.0.1:{service.server_port}/v1"
        )
        workspace.add_hosted_model(
            "toolless", "litellm/perplexity/sonar", api_base=f"http://127.0.0.1:{service.server_port}/v1"
        )
        with in_background(workspace, ServingSettings(port=0)) as (where, _):
            yield where
    service.shutdown()
    service.server_close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as opened:
        yield opened


def create(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": HOSTED, "messages": ASKED, "extra_body": CLOSED, **options})


def test_a_hosted_model_asks_for_tools_and_goes_on_from_their_results(client: openai.OpenAI) -> None:
    made = create(client, tools=[TOOL], tool_choice="required", parallel_tool_calls=True)
    (choice,) = made.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    calls = choice.message.tool_calls
    assert [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("call_Paris", "get_weather", {"city": "Paris"}),
        ("call_Rome", "get_weather", {"city": "Rome"}),
    ]
    sent = _Service.asked[-1]
    assert sent["tools"] == [TOOL] and sent["tool_choice"] == "required" and sent["parallel_tool_calls"] is True
    results = [{"role": "tool", "tool_call_id": call.id, "content": "Rain."} for call in calls]
    turns: Any = [*ASKED, choice.message.to_dict(), *results]
    ended = create(client, messages=turns, tools=[TOOL])
    assert ended.choices[0].message.content == "Rain everywhere" and ended.choices[0].message.tool_calls is None
    passed = _Service.asked[-1]["messages"]
    assert passed[1]["tool_calls"] == [call.to_dict() for call in calls] and passed[2:] == results


def test_tool_calls_are_streamed_in_pieces(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=HOSTED, messages=ASKED, tools=[TOOL], extra_body=CLOSED) as stream:
        events = [event.type for event in stream]
        message: Any = stream.get_final_completion().choices[0]
    assert events.count("tool_calls.function.arguments.done") == 2
    assert events.count("tool_calls.function.arguments.delta") >= 4
    assert message.finish_reason == "tool_calls"
    assert [one.function.arguments for one in message.message.tool_calls] == ['{"city": "Paris"}', '{"city": "Rome"}']


async def _asynchronous(url: str) -> list[str]:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        made: Any = await client.chat.completions.create(
            model=HOSTED, messages=ASKED, tools=[TOOL], extra_body=CLOSED
        )
        return [call.id for call in made.choices[0].message.tool_calls]


def test_the_asynchronous_client_gets_tool_calls_too(url: str) -> None:
    assert run_aside(lambda: _asynchronous(url)) == ["call_Paris", "call_Rome"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": MODEL, "tools": [TOOL]}, "tools are passed to hosted models only"),
        ({"model": "toolless", "tools": [TOOL]}, "toolless takes no tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "asks for other"),
        ({"messages": [*ASKED, {"role": "tool", "content": "x"}]}, "answers no call"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "y"}]}, "tool_call_id the tool's"),
        ({"tools": [{"type": "function", "function": {"name": "no such name"}}]}, "tools"),
    ],
)
def test_tools_that_cannot_be_honoured_are_refused(client: openai.OpenAI, given: Any, said: str) -> None:
    before = len(_Service.asked)
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=said):
            create(client, **given, stream=stream)
    assert len(_Service.asked) == before


def test_a_local_model_tells_its_tokens_probabilities(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "logprobs": True, "top_logprobs": 3, "max_completion_tokens": 12}
    (choice,) = create(client, **asked).choices
    tokens = choice.logprobs.content
    assert "".join(one.token for one in tokens).strip() == choice.message.content.strip() != ""
    for one in tokens:
        assert bytes(one.bytes).decode() == one.token and len(one.top_logprobs) == 3
        scores = [top.logprob for top in one.top_logprobs]
        assert scores == sorted(scores, reverse=True) and sum(map(math.exp, scores)) <= 1.001
        assert one.token == one.top_logprobs[0].token and one.logprob == scores[0]  # at temperature 0
    streamed = [
        token
        for chunk in create(client, **asked, stream=True)
        for one in chunk.choices
        if one.logprobs
        for token in one.logprobs.content
    ]
    assert [one.token for one in streamed] == [one.token for one in tokens]
    assert create(client, model=MODEL, max_completion_tokens=4).choices[0].logprobs is None
    alone = create(client, model=MODEL, max_completion_tokens=4, logprobs=True).choices[0].logprobs.content
    assert [one.top_logprobs for one in alone] == [[]] * len(alone) and len(alone) > 0


def test_a_hosted_model_s_probabilities_are_passed_on(client: openai.OpenAI) -> None:
    (choice,) = create(client, logprobs=True, top_logprobs=1).choices
    assert [(one.token, one.logprob, one.top_logprobs[0].token) for one in choice.logprobs.content] == [
        ("Rain", -0.25, "Rain"),
        (" everywhere", -0.25, " everywhere"),
    ]
    assert (_Service.asked[-1]["logprobs"], _Service.asked[-1]["top_logprobs"]) == (True, 1)
