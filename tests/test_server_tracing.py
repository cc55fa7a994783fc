"""What a question's traces tell, and what they never do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import timeit
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from graft import tracing
from graft.errors import GraftError, UsageError
from graft.server import in_background, spans_exported
from graft.settings import ServingSettings
from graft.workspace import Workspace

PLANTED = "zanzibar"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHAT: dict[str, Any] = {
    "model": "smollm2-135m",
    "messages": [
        {"role": "user", "content": f"Where does the {PLANTED} ledger lie?"},
        {"role": "assistant", "content": f"The {PLANTED} ledger lies in the green safe."},
        {"role": "user", "content": f"And what does a hotel in {PLANTED} cost?"},
    ],
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tracing")
    (folder / "note.md").write_text(
        f"# {PLANTED}\n\nThe {PLANTED} ledger lies in the green safe.\n\n"
        f"A hotel in {PLANTED} may cost at most 140 EUR a night.\n"
    )
    with Workspace(folder / "home") as workspace:
        workspace.add([str(folder / "note.md")])
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            yield url


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider.get_tracer("graft"))
    yield exporter
    tracing.use(None)


def finished(exporter: InMemorySpanExporter, requests: int = 1) -> list[ReadableSpan]:
    """All spans, once so many requests have ended, which is just after their answers."""
    end = time.monotonic() + 20
    while sum(one.kind is trace.SpanKind.SERVER for one in exporter.get_finished_spans()) < requests:
        assert time.monotonic() < end
        time.sleep(0.01)
    return list(exporter.get_finished_spans())


def ask(url: str, **more: Any) -> httpx.Response:
    reply = httpx.post(f"{url}/chat/completions", json={**CHAT, **more}, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply


def said(one: ReadableSpan) -> str:
    return one.to_json()


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_is_a_tree_of_all_its_steps(served: str, spans: InMemorySpanExporter, stream: bool) -> None:
    ask(served, stream=stream)
    found = finished(spans)
    by_id = {one.context.span_id: one for one in found if one.context}
    parents = sorted(
        (one.name, by_id[one.parent.span_id].name if one.parent and one.parent.span_id in by_id else "-")
        for one in found
    )
    request = "POST /v1/chat/completions"
    assert parents == sorted(
        [
            (request, "-"),
            ("rewrite", request),
            ("generate", "rewrite"),
            ("search", request),
            ("embed", "search"),
            ("vectors", "search"),
            ("words", "search"),
            ("fuse", "search"),
            ("prompt", request),
            ("generate", request),
            ("verify", request),
        ]
    )
    assert len({one.context.trace_id for one in found if one.context}) == 1
    answered = next(one for one in found if one.name == "generate" and one.attributes)
    assert answered.attributes is not None
    assert answered.attributes["gen_ai.request.model"] == "smollm2-135m"
    assert int(str(answered.attributes["gen_ai.usage.input_tokens"])) > 10
    assert all(one.end_time and one.start_time and one.end_time >= one.start_time for one in found)


def test_no_span_has_a_word_of_questions_documents_paths_or_errors(served: str, spans: InMemorySpanExporter) -> None:
    ask(served)
    httpx.post(f"{served}/search", json={"query": PLANTED})
    httpx.post(f"{served}/search", json={"query": "hotel", "collection": PLANTED})
    httpx.get(f"{served}/models/{PLANTED}?{PLANTED}={PLANTED}", headers={"tracestate": f"{PLANTED}=1"})
    httpx.post(f"{served}/embeddings", json={"model": PLANTED, "input": PLANTED})
    httpx.request(PLANTED.upper(), f"{served}/{PLANTED}", headers={"traceparent": PARENT, "baggage": f"a={PLANTED}"})
    found = finished(spans, 6)
    assert len(found) > 20
    assert not [one.name for one in found if PLANTED in said(one).lower() or "green safe" in said(one)]
    failed = next(one for one in found if one.name == "search" and not one.status.is_ok)
    assert failed.attributes is not None and failed.attributes["error.type"] == "NotFound" and not failed.events


def test_words_under_an_unknown_name_are_left_out(spans: InMemorySpanExporter) -> None:
    with tracing.span("search", {"graft.question": PLANTED, "graft.hits": 3, "gen_ai.request.model": "m"}):
        pass
    (one,) = spans.get_finished_spans()
    assert dict(one.attributes or {}) == {"graft.hits": 3, "gen_ai.request.model": "m"}


def test_a_generator_that_is_given_up_leaves_no_step_open(spans: InMemorySpanExporter) -> None:
    def pieces() -> Iterator[int]:
        with tracing.span("generate", holds=False):
            yield 1
            yield 2

    going = pieces()
    next(going)
    with tracing.span("beside"):
        going.close()  # type: ignore[attr-defined]
    generated, beside = spans.get_finished_spans()
    assert generated.attributes == {"graft.given_up": True} and generated.status.is_unset
    assert beside.parent is None, "what the caller does between two pieces is no part of the step"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ([PARENT], True),
        (["nonsense"], False),
        ([PARENT.replace("b7ad6b7169203331", "0" * 16)], False),
        ([PARENT + "-" + "x" * 600], False),
        ([PARENT, PARENT], False),
        ([], False),
    ],
)
def test_a_clients_traceparent_is_the_parent_if_it_is_well_formed(
    served: str, spans: InMemorySpanExporter, given: list[str], taken: bool
) -> None:
    headers = [("traceparent", value) for value in given]
    assert httpx.get(f"{served}/models", headers=headers).status_code == 200
    (one,) = finished(spans)
    assert one.context is not None
    assert (f"{one.context.trace_id:032x}" == PARENT.split("-")[1]) is taken
    assert (one.parent is not None and f"{one.parent.span_id:016x}" == PARENT.split("-")[2]) is taken


def test_a_step_that_nobody_wants_to_know_of_costs_nothing_that_could_be_measured_in_a_search() -> None:
    def steps_of_a_search() -> None:
        for _ in range(5):
            with tracing.span("step", {"gen_ai.operation.name": "embeddings", "graft.k": 3}) as step:
                step.set({"graft.hits": 3})

    best = min(timeit.repeat(steps_of_a_search, number=1000, repeat=5)) / 1000
    assert best < 20e-6, f"{best * 1e6:.1f} microseconds"


def test_nothing_of_opentelemetry_is_imported_where_nothing_is_traced() -> None:
    program = "import sys, graft.answering, graft.tracing as t\nwith t.span('x'): pass\n"
    program += "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


class Collector(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


def test_a_collector_receives_the_spans_under_the_services_name(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_address[1]}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "our-documents")
        with spans_exported() as sent:
            assert sent
            ask(served)
            time.sleep(0.3)  # the request's own span ends just after its answer
        collector.shutdown()
    received = collector.received
    names, services = set(), set()
    assert received and {path for path, _ in received} == {"/v1/traces"}
    for _, body in received:
        assert PLANTED.encode() not in body.lower()
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            services |= {a.value.string_value for a in of_resource.resource.attributes if a.key == "service.name"}
            names |= {one.name for scope in of_resource.scope_spans for one in scope.spans}
    assert services == {"our-documents"}
    assert names >= {"POST /v1/chat/completions", "rewrite", "embed", "search", "prompt", "generate", "verify"}


def test_a_collector_that_is_silent_does_not_keep_the_server_from_ending(
    served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with spans_exported():
            assert httpx.get(f"{served}/models").status_code == 200
            began = time.monotonic()
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("variables", "failure"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "no HTTP address"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, "no HTTP address"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'grpc'"),
    ],
)
def test_variables_that_cannot_work_are_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], failure: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=failure) as caught, spans_exported():
        pass
    assert caught.value.fix.startswith("export ")


def test_nothing_is_sent_where_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with spans_exported() as sent:
        assert not sent
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with spans_exported() as sent:
        assert not sent


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(GraftError, match="not installed") as caught, spans_exported():
        pass
    assert "[tracing]" in caught.value.fix


def test_the_frameworks_own_telemetry_stays_off_even_where_the_process_has_a_provider(tmp_path: Path) -> None:
    """It would tell paths and queries, and of errors the words."""
    program = f"""
import httpx, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
with Workspace({str(tmp_path / "home")!r}) as workspace:
    with in_background(workspace, ServingSettings(port=0)) as (url, _):
        assert httpx.get(url + "/zanzibar?q=zanzibar").status_code == 404
assert not exporter.get_finished_spans(), exporter.get_finished_spans()[0].to_json()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
