"""A model that its provider tunes: what is sent and paid, and the tuned model in everyday use.

The provider is a real HTTP server on this machine with OpenAI's routes for files, fine-tuning jobs and chat. What
it calls tuned answers as the nearest example that was uploaded; its base knows nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from graft.errors import TrainingError, UsageError
from graft.tuning import TuneProgress, TuneRequest, is_begun
from graft.workspace import Workspace

pytest.importorskip("litellm", exc_type=ImportError)
# LiteLLM against its own dependencies: pytest hides the filters that Graft and Python set for them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Item '.*' on TypedDict class:UserWarning", "ignore::DeprecationWarning:litellm"
)

KEY = "local/provider+key.0123456789"
TOPICS = {"card": "my card {} has not arrived", "rate": "which exchange rate {} applies", "pin": "I forgot my pin {}"}


class Provider(ThreadingHTTPServer):
    """Files, jobs and chat; a job is over as soon as it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def learnt(self) -> list[dict[str, Any]]:
        """The lines of the latest job's training file."""
        sent = self.files[[*self.jobs.values()][-1]["training_file"]].decode()
        return [json.loads(line) for line in re.findall(r'^\{"messages.*\}\r?$', sent, re.MULTILINE)]

    def answer(self, model: str, question: str) -> str:
        self.asked.append(model)
        if not model.startswith("ft:"):
            return "I do not know."
        words = set(question.split())
        nearest = max(self.learnt(), key=lambda line: len(words & set(line["messages"][0]["content"].split())))
        return str(nearest["messages"][-1]["content"])


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, *_: Any) -> None:
        return

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self._reply({"error": {"message": "wrong key"}}, status=401)
        elif self.path == "/v1/files":
            name = f"file-{len(self.server.files)}"
            self.server.files[name] = body
            self._reply({"id": name, "object": "file", "bytes": len(body), "created_at": 0, "filename": "x.jsonl",
                         "purpose": "fine-tune", "status": "processed"})  # fmt: skip
        elif self.path == "/v1/fine_tuning/jobs":
            asked = json.loads(body)
            name = f"job-{len(self.server.jobs)}"
            self.server.jobs[name] = {
                "id": name, "object": "fine_tuning.job", "created_at": 0, "organization_id": "o", "result_files": [],
                "model": asked["model"], "training_file": asked["training_file"], "seed": asked["seed"],
                "status": "succeeded", "hyperparameters": {}, "trained_tokens": 4711, "error": None,
                "fine_tuned_model": f"ft:{asked['model']}:mine",
            }  # fmt: skip
            self._reply(self.server.jobs[name] | {"status": "queued", "fine_tuned_model": None})
        else:
            asked = json.loads(body)
            self._stream(asked["model"], self.server.answer(asked["model"], asked["messages"][-1]["content"]))

    def do_GET(self) -> None:
        name = re.findall(r"job-\d+", self.path)[0]
        if "/events" in self.path:
            self._reply({"object": "list", "data": [], "has_more": False})
        else:
            self._reply(self.server.jobs[name])

    def _stream(self, model: str, text: str) -> None:
        base = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": model}
        said = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
        over = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        chunks = [{**base, "choices": [said]}, {**base, "choices": [over]}, {**base, "choices": [], "usage": usage}]
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self._send(body.encode(), "text/event-stream", 200)

    def _reply(self, value: dict[str, Any], *, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("PROVIDER_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Provider()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hosted(tmp_path: Path, provider: Provider) -> Iterator[Workspace]:
    """A workspace that knows the provider's base as `gpt`."""
    with Workspace(tmp_path / "home") as workspace:
        workspace.add_hosted_model("gpt", "litellm/openai/base", api_base=provider.address, key_env="PROVIDER_KEY")
        yield workspace


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "messages.jsonl"
    lines = [
        {"prompt": text.format(f"number {number} of {number * 7}"), "completion": topic}
        for number in range(1, 15)
        for topic, text in TOPICS.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def request(data: Path, **given: Any) -> TuneRequest:
    return TuneRequest(**{"name": "support", "model": "gpt", "train": str(data), **given})


def test_the_tuned_model_is_registered_asked_and_evaluated_like_any_other(
    hosted: Workspace, provider: Provider, data: Path
) -> None:
    tuned = hosted.tune(request(data))
    assert (tuned.base, tuned.version, tuned.steps >= 0, tuned.mergeable) == ("gpt", 1, True, False)
    assert tuned.hosted is not None and tuned.hosted.target == "openai/ft:base:mine"
    assert tuned.figures["tuned"]["accuracy"] == 1.0 and tuned.figures["base"]["accuracy"] == 0.0
    assert hosted.tuned_model("support@1") == tuned
    assert {"support", "support@1"} <= {model.name for model in hosted.models()}
    answer = hosted.ask("my card number 99 has not arrived", model="support", retrieval=False)
    assert answer.text == "card" and provider.asked[-1] == "ft:base:mine"
    figures = hosted.evaluate("support", tuned.folder / "held-out.jsonl").metrics
    assert figures["accuracy"].mean == 1.0
    card = tuned.card.read_text(encoding="utf-8")
    assert "ft:base:mine" in card and "4,711" in card and "rank" not in card


def test_what_is_held_out_is_never_sent_and_the_key_is_never_kept(
    hosted: Workspace, provider: Provider, data: Path
) -> None:
    prepared = hosted.prepare_tuning(request(data))
    tuned = hosted.tune(request(data), prepared=prepared)
    sent = {line["messages"][0]["content"] for line in provider.learnt()}
    assert sent == {example.prompt[0].content for example in prepared.train}
    held_out = {example.prompt[0].content for example in prepared.held_out}
    assert held_out and not held_out & sent
    kept = [path for path in hosted.home.rglob("*") if path.is_file()]
    assert tuned.card in kept and not any(KEY.encode() in path.read_bytes() for path in kept)


@pytest.mark.parametrize("form", ["adapter", "merged", "gguf"])
def test_what_the_provider_keeps_cannot_be_exported_or_looked_into(hosted: Workspace, data: Path, form: str) -> None:
    hosted.tune(request(data, proof="none"))
    with pytest.raises(UsageError, match=r"openai/ft:base:mine.*weights are not here"):
        hosted.export("support", to=form)
    with pytest.raises(UsageError, match="weights are not here"):
        hosted.regress("support", against="gpt")
    with pytest.raises(UsageError, match="weights are not here"):
        hosted.regress("gpt", against="support")


def test_a_proof_that_was_cut_off_goes_on_without_a_second_job(
    hosted: Workspace, provider: Provider, data: Path
) -> None:
    def cut(seen: TuneProgress) -> None:
        if seen.stage.startswith("held-out") and seen.done == 2:
            raise KeyboardInterrupt

    prepared = hosted.prepare_tuning(request(data))
    assert not is_begun(prepared)
    with pytest.raises(KeyboardInterrupt):
        hosted.tune(request(data), prepared=prepared, progress=cut)
    again = hosted.prepare_tuning(request(data))
    assert is_begun(again)
    before = len(provider.asked)
    hosted.tune(request(data), prepared=again)
    assert len(provider.jobs) == 1 and len(provider.asked) == 2 * len(again.held_out) and before == 2


def test_the_cost_is_told_where_the_price_is_known_and_is_not_zero_where_it_is_not(
    hosted: Workspace, provider: Provider, data: Path
) -> None:
    unknown = hosted.prepare_tuning(request(data)).preflight
    assert unknown.cost_usd is None and 100 < unknown.tokens < 5000
    told = hosted.prepare_tuning(request(data), price_usd=25.0).preflight
    assert told.cost_usd == pytest.approx(25.0 * 3 * told.tokens / 1e6)
    assert any(provider.address in warning for warning in told.warnings)
    assert not provider.files and not provider.jobs


def graft(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graft", *words],
        env={**os.environ, "GRAFT_HOME": str(home)}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_nothing_is_sent_before_somebody_agreed_to_the_cost(
    hosted: Workspace, provider: Provider, data: Path
) -> None:
    hosted.close()
    words = ("tune", str(data), "--model", "gpt", "--name", "support", "--price", "1000", "--proof", "quality")
    refused = graft(hosted.home, *words)
    assert refused.returncode == 2 and "--yes" in refused.stderr
    assert re.search(r"about \$\d+\.\d\d", refused.stdout) and provider.address in refused.stdout
    assert not provider.files and not provider.jobs
    done = graft(hosted.home, *words, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tuned"]["hosted"]["target"] == "openai/ft:base:mine"
    asked = graft(hosted.home, "ask", "--no-retrieval", "--model", "support", "--json", "which exchange rate applies")
    assert json.loads(asked.stdout)["answer"] == "rate", asked.stderr
    exported = graft(hosted.home, "export", "support", "--to", "gguf")
    assert exported.returncode == 2 and "weights are not here" in exported.stderr


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("litellm/anthropic/claude-x", "no fine-tuning API is known"),
        ("litellm/gpt-4o", "no fine-tuning API is known"),
        ("keyless", "without a key"),
    ],
)
def test_a_model_that_no_provider_would_tune_is_refused_with_a_remedy(
    hosted: Workspace, provider: Provider, data: Path, monkeypatch: pytest.MonkeyPatch, model: str, says: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another-key-that-stays-here")
    hosted.add_hosted_model("keyless", "litellm/openai/base", api_base=provider.address)
    with pytest.raises(UsageError, match=says) as caught:
        hosted.prepare_tuning(request(data, model=model))
    assert "--key-env" in caught.value.fix


def test_what_is_sure_to_fail_is_said_before_anything_is_sent(
    hosted: Workspace, provider: Provider, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(data.read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(TrainingError, match="4 examples to learn from; a provider wants 10"):
        hosted.tune(request(few))
    with pytest.raises(TrainingError, match="no activated LoRA"):
        hosted.tune(request(data), overrides={"method": "activated"})
    with pytest.raises(UsageError, match="canaries"):
        hosted.tune(request(data, canaries=2))
    monkeypatch.delenv("PROVIDER_KEY")
    with pytest.raises(TrainingError, match="PROVIDER_KEY holds no key") as caught:
        hosted.tune(request(data))
    assert "PROVIDER_KEY" in caught.value.fix and not provider.files
