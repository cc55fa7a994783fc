"""Hosted models against real OpenAI-compatible servers on loopback: llama.cpp's own, and ones that refuse."""

from __future__ import annotations

import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft.errors import ContextOverflow, GraftError, ModelError
from graft.extras import install
from graft.models import GenerateOptions, Message, complete
from graft.models.hosted import HostedModel, embedding_limits, hosted_embeddings
from graft.testing.model import ModelContract

pytest.importorskip("litellm", exc_type=ImportError)
# LiteLLM against its own dependencies: pytest hides the filters that Graft and Python set for them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Item '.*' on TypedDict class:UserWarning", "ignore::DeprecationWarning:litellm"
)

_spec = importlib.util.spec_from_file_location("model_fixtures", Path(__file__).with_name("model_fixtures.py"))
assert _spec is not None and _spec.loader is not None
model_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(model_fixtures)

QUESTION = (Message("user", "What is the capital of France?"),)
KEY = "local/test+key.0123456789"


def _llama_server(*, embedding: bool) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_fixtures.smollm2())
    params.n_ctx = 768
    params.n_batch = params.n_ubatch = 256
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = params.fit_params = False
    params.verbosity = -1
    params.api_keys = [KEY]
    if embedding:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(params)


@pytest.fixture(scope="module")
def chat_server() -> Any:
    return _llama_server(embedding=False)


@pytest.fixture(scope="module")
def model(chat_server: Any) -> HostedModel:
    return HostedModel(
        "openai/smollm2", api_base=f"{chat_server.listening_address}/v1", key_env="TEST_LLAMA_KEY", context_tokens=768
    )


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_LLAMA_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


class TestHostedModel(ModelContract):
    def test_an_unknown_price_is_none_and_not_zero(self, model: HostedModel) -> None:
        assert complete(model, QUESTION, GenerateOptions(max_tokens=2)).cost_usd is None

    def test_usage_is_the_servers_own_count(self, model: HostedModel) -> None:
        reply = complete(model, QUESTION, GenerateOptions(max_tokens=4))
        assert reply.usage.input_tokens == 37 and reply.usage.output_tokens == 4

    def test_an_adapter_is_refused(self, model: HostedModel) -> None:
        with pytest.raises(ModelError, match="adapter"):
            complete(model, QUESTION, GenerateOptions(adapter="x.gguf"))

    def test_a_wrong_key_names_its_variable_and_never_the_key(
        self, model: HostedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEST_LLAMA_KEY", "sk-wrong-secret-9999999999")
        with pytest.raises(ModelError, match="TEST_LLAMA_KEY") as caught:
            complete(model, QUESTION)
        assert "9999" not in str(caught.value) and "TEST_LLAMA_KEY" in caught.value.fix

    def test_a_missing_key_is_noticed_before_any_request(
        self, model: HostedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TEST_LLAMA_KEY")
        with pytest.raises(ModelError, match="TEST_LLAMA_KEY is not set"):
            complete(model, QUESTION)


def test_a_known_price_is_computed_from_the_tokens() -> None:
    from graft.models.hosted import _litellm, price_of
    from graft.models.protocol import Usage

    table = _litellm().model_cost["gpt-4o-mini"]
    cost = price_of("openai/gpt-4o-mini", Usage(1000, 100))
    assert cost == pytest.approx(1000 * table["input_cost_per_token"] + 100 * table["output_cost_per_token"])
    assert HostedModel("openai/gpt-4o-mini").context_tokens == table["max_input_tokens"]


def test_a_providers_missing_key_names_the_providers_variable() -> None:
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
        complete(HostedModel("openai/gpt-4o-mini"), QUESTION)
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
        hosted_embeddings("openai/text-embedding-3-small", ["x"])


def test_texts_become_vectors_in_their_order() -> None:
    server = _llama_server(embedding=True)
    base = f"{server.listening_address}/v1"
    texts = ["The cat sat on the mat.", "Stock prices fell.", "A cat was sitting on a mat."]
    answer = hosted_embeddings("openai/smollm2", texts, api_base=base, key_env="TEST_LLAMA_KEY")
    assert answer.vectors.shape == (3, 576) and answer.vectors.dtype == np.float32
    assert answer.usage.input_tokens > 10 and answer.cost_usd is None
    alone = hosted_embeddings("openai/smollm2", texts[1:2], api_base=base, key_env="TEST_LLAMA_KEY").vectors
    assert float(answer.vectors[1] @ alone[0]) == pytest.approx(1.0, abs=0.01)
    assert answer.vectors[0] @ answer.vectors[2] > answer.vectors[0] @ answer.vectors[1]


def test_the_embedders_limit_is_from_the_table_or_a_cautious_one() -> None:
    assert embedding_limits("text-embedding-3-small") == 8191
    assert embedding_limits("openai/nobody-knows") == 512


class _Refusing:
    """A server that answers every request with one status and body, and remembers the requests."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 500, {}, b"{}"  # type: tuple[int, dict[str, str], bytes]
        self.seen: list[dict[str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.seen.append({name.lower(): value for name, value in self.headers.items()})
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def refusing() -> Iterator[_Refusing]:
    server = _Refusing()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "error", "kind", "says", "fix"),
    [
        (429, {"Retry-After": "17"}, {"message": "slow down"}, ModelError, "rate limit", "wait 17 s"),
        (
            401,
            {},
            {"message": f"Incorrect API key provided: {KEY}"},
            ModelError,
            "TEST_LLAMA_KEY",
            "export TEST_LLAMA_KEY",
        ),
        (404, {}, {"message": "no such model"}, ModelError, "does not exist", "models list"),
        (503, {}, {"message": "overloaded"}, ModelError, "cannot be reached", "later"),
        (
            400,
            {},
            {"message": "This model's maximum context length is 512 tokens", "code": "context_length_exceeded"},
            ContextOverflow,
            "too long",
            "prompt_tokens",
        ),
    ],
)
def test_each_refusal_has_its_remedy_and_shows_no_key(
    refusing: _Refusing,
    status: int,
    headers: dict[str, str],
    error: dict[str, str],
    kind: type[GraftError],
    says: str,
    fix: str,
) -> None:
    refusing.status, refusing.headers = status, headers
    refusing.body = json.dumps({"error": error}).encode()
    model = HostedModel("openai/x", api_base=refusing.base, key_env="TEST_LLAMA_KEY")
    with pytest.raises(kind, match=says) as caught:
        complete(model, QUESTION)
    assert fix in caught.value.fix
    assert KEY not in str(caught.value)
    assert len(refusing.seen) == 1, "it was asked again by itself"


def test_nobody_listening_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ModelError, match="cannot be reached"):
        complete(HostedModel("openai/x", api_base="http://127.0.0.1:9/v1"), QUESTION)


def test_the_providers_key_is_not_sent_to_another_address(
    refusing: _Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-real-one-1234567890")
    with pytest.raises(ModelError):
        complete(HostedModel("openai/x", api_base=refusing.base), QUESTION)
    assert refusing.seen and "real" not in refusing.seen[0].get("authorization", "")


def test_litellm_is_not_imported_before_it_is_used_and_its_absence_has_a_remedy() -> None:
    program = (
        "import sys; sys.modules['litellm'] = None\n"  # an import of it fails, as where it is not installed
        "from graft.models import *; from graft.models.hosted import HostedModel\n"
        "try:\n    complete(HostedModel('openai/x'), (Message('user', 'Hi'),))\n"
        "except Exception as error:\n    print(type(error).__name__, error.fix)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"ModelError {install('hosted')}\n"
