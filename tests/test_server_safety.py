"""What must not happen through HTTP: other names, other sites, no key, hostile bodies, documents in logs."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graft.errors import GraftError, UsageError
from graft.server import connections, create_app, in_background, listen
from graft.server.answers import chat_model
from graft.server.authorising import authorised
from graft.settings import ServingSettings
from graft.workspace import Workspace

KEY = "graft-test-0123456789abcdef"
SECRET = "The zanzibar ledger is kept in the green safe."
OPEN = ("/health", "/ready", "/openapi.json", "/auth/login", "/auth/callback", "/auth/key", "/auth/logout")
V1_ROUTES = 69


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    folder = tmp_path_factory.mktemp("safety")
    (folder / "note.md").write_text(f"# Ledger\n\n{SECRET}\n")
    with Workspace(folder / "home") as workspace:
        workspace.add([str(folder / "note.md")])
    return folder / "home"


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[tuple[str, FastAPI]]:
    with (
        Workspace(home) as workspace,
        in_background(workspace, ServingSettings(port=0, max_body_mb=1), api_key=KEY) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def url(served: tuple[str, FastAPI]) -> str:
    return served[0]


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = body["error"]
    return error


def depends_on(dependant: Dependant, function: object) -> bool:
    return dependant.call is function or any(depends_on(inner, function) for inner in dependant.dependencies)


def test_every_route_of_v1_passes_through_the_one_authorisation(served: tuple[str, FastAPI]) -> None:
    walked = 0
    for route in iter_route_contexts(served[1].routes):
        path = route.path
        if path.startswith("/v1"):
            walked += 1
            assert depends_on(route.dependant, authorised), f"{path} is open"
        elif path in ("/metrics", "/mcp", "/auth/me"):
            assert depends_on(route.dependant, authorised)
        else:
            assert path in OPEN, f"{path} is neither under /v1 nor known to be open"
    assert walked == V1_ROUTES


def test_every_route_of_v1_asks_for_the_key(served: tuple[str, FastAPI]) -> None:
    url, app = served
    root, asked = url.removesuffix("/v1"), 0
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
                body = {"model": "x", "messages": [{"role": "user", "content": "x"}], "input": "x", "query": "x"}
                given = {k: v for k, v in body.items() if k in WANTED.get(path, ())}
                response = httpx.request(
                    method, root + path, headers=headers, json=given if method == "post" else None
                )
                if path.startswith("/v1"):
                    asked += 1
                    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
                    assert error_of(response)["code"] == "invalid_api_key" and KEY not in response.text
                else:
                    assert response.status_code == BESIDE.get(path, 200), path
    assert asked == 3 * V1_ROUTES


BESIDE = {
    "/metrics": 401,
    "/auth/me": 401,
    "/auth/login": 404,
    "/auth/callback": 404,
    "/auth/key": 400,
    "/auth/logout": 204,
}
"""What is answered to who is nobody, where no provider is configured."""

WANTED = {
    "/v1/chat/completions": ("model", "messages"),
    "/v1/embeddings": ("model", "input"),
    "/v1/search": ("query",),
}


def test_the_right_key_opens_and_the_clients_own_error_is_raised_for_a_wrong_one(url: str) -> None:
    assert list(openai.OpenAI(base_url=url, api_key=KEY).models.list())
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0).models.list()


@pytest.mark.parametrize("key", ["", "with space", "with\nline", "schlüssel"])
def test_a_key_that_cannot_work_is_refused_at_the_start(home: Path, key: str) -> None:
    with Workspace(home) as workspace, pytest.raises(UsageError, match="GRAFT_API_KEY"):
        create_app(workspace, api_key=key)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1", "localhost:1", "", "[::1]"])
def test_another_host_name_is_refused_so_that_rebinding_gains_nothing(
    http: httpx.Client, url: str, host: str
) -> None:
    response = http.post(f"{url}/search", json={"query": "ledger"}, headers={"Host": host})
    assert response.status_code == 403 and error_of(response)["code"] == "host_not_allowed"
    assert "zanzibar" not in response.text


def test_the_names_of_loopback_with_the_port_are_served(http: httpx.Client, url: str) -> None:
    port = urlsplit(url).port
    for host in (f"localhost:{port}", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert http.get(f"{url}/models", headers={"Host": host}).status_code == 200


def test_pages_of_other_sites_can_neither_read_nor_ask(http: httpx.Client, url: str) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        response = http.post(f"{url}/search", json={"query": "ledger"}, headers={"Origin": origin})
        assert response.status_code == 403 and "access-control-allow-origin" not in response.headers
        preflight = http.options(f"{url}/search", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        assert preflight.status_code == 403 and "access-control-allow-origin" not in preflight.headers
    own = url.removesuffix("/v1")
    assert http.post(f"{url}/search", json={"query": "ledger"}, headers={"Origin": own}).status_code == 200


def test_a_body_that_a_form_can_send_is_not_taken_for_json(http: httpx.Client, url: str) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        response = http.post(f"{url}/search", content=b'{"query": "ledger"}', headers={"Content-Type": kind})
        assert response.status_code == 400 and "application/json" in error_of(response)["message"]


def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not(http: httpx.Client, url: str) -> None:
    body = b'{"query": "' + b"x" * 3_000_000 + b'"}'

    def in_parts() -> Iterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    for _ in range(5):
        for content in (body, in_parts()):
            response = http.post(f"{url}/search", content=content, headers={"Content-Type": "application/json"})
            assert response.status_code == 413 and error_of(response)["code"] == "body_too_large"
            assert "1,000,000 bytes" in response.text and "max_body_mb" in response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"query": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"query": ' + b"9" * 10_000 + b"}",
        b'{"query": NaN}',
        b'{"query": "\\ud800"}',
        b'{"query": "a", "k": 1e400}',
        b'{"query": "a", "k": true}',
        b'{"query": "a", "k": -1}',
        b'{"query": "a", "k": 99999999999999999999}',
        b'{"query": "a", "collection": "\\u0000"}',
        b'{"query": "a", "__proto__": {}}',
    ],
)
def test_a_hostile_body_is_a_clear_refusal(http: httpx.Client, url: str, body: bytes) -> None:
    response = http.post(f"{url}/search", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 404), response.text
    assert error_of(response)["message"]


@pytest.mark.parametrize(
    "query", ["\0", "\0 \n\0", '"', 'a AND (b OR "', "field:x", "*", "\u202e\ufeff", "a" * 200_000]
)
def test_a_hostile_query_is_only_words(http: httpx.Client, url: str, query: str) -> None:
    assert http.post(f"{url}/search", json={"query": query}).status_code in (200, 400)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
PARAMETERS = [
    *("model", "messages", "stream", "stop", "seed", "graft", "response_format", "temperature", "n", "tools"),
    *("input", "encoding_format", "dimensions", "query", "k", "collection"),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["chat/completions", "embeddings", "search"]),
    changes=st.dictionaries(st.sampled_from(PARAMETERS), JSON, max_size=3),
    message=st.none() | JSON,
)
def test_no_parameters_make_the_server_fail(
    http: httpx.Client, url: str, path: str, changes: dict[str, Any], message: Any
) -> None:
    good = {"model": "no-such-model", "messages": [{"role": "user", "content": "x"}], "input": "x", "query": "x"}
    body = {key: value for key, value in good.items() if key in WANTED[f"/v1/{path}"]} | changes
    if message is not None and path == "chat/completions":
        body["messages"] = [message, {"role": "user", "content": message}]
    response = http.post(f"{url}/{path}", json=body)
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        error_of(response)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "string", "pattern": "^((((a*)*)*)*)*$"},
        {"type": "string", "pattern": "^(a{1000}){1000}$"},
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"type": "nonsense"},
        {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]},
    ],
)
def test_a_hostile_schema_harms_nobody(http: httpx.Client, url: str, schema: dict[str, Any]) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": "x"}],
        "response_format": wanted,
        "max_tokens": 4,
        "graft": {"retrieval": False},
    }
    response = http.post(f"{url}/chat/completions", json=body)
    assert response.status_code in (200, 400, 502), response.text
    assert http.get(url.replace("/v1", "/health")).status_code == 200


def test_an_unknown_path_or_method_is_an_error_in_the_same_shape(http: httpx.Client, url: str) -> None:
    assert error_of(http.get(f"{url}/nothing/here"))["code"] == "unknown_url"
    assert error_of(http.get(f"{url}/search"))["code"] == "method_not_allowed"
    assert http.get(url.replace("/v1", "/docs")).status_code == 404


def test_the_log_names_routes_and_never_what_documents_or_questions_say(
    http: httpx.Client, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        answers = [
            http.post(f"{url}/search", json={"query": "zanzibar ledger"}),
            http.get(f"{url}/models/zanzibar"),
            http.get(f"{url}/zanzibar?zanzibar=1"),
            http.post(f"{url}/embeddings", json={"model": "zanzibar", "input": "zanzibar"}),
        ]

        def told() -> list[list[str]]:  # a line comes after its answer; lines are told apart by their ids
            ours = [record.getMessage() for record in caplog.records if record.name == "graft.server"]
            return [[line for line in ours if answer.headers["x-request-id"] in line] for answer in answers]

        end = time.monotonic() + 10
        while not all(told()) and time.monotonic() < end:
            time.sleep(0.01)
        lines = told()
    assert [len(found) for found in lines] == [1] * 4
    assert "method=POST route=/v1/search status=200" in lines[0][0]
    said = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    assert not [line for line in said if "zanzibar" in line.lower() or KEY in line]


def test_an_unexpected_failure_is_logged_without_its_words_and_told_without_details(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Workspace(home) as workspace, in_background(workspace, ServingSettings(port=0)) as (url, _):
        workspace.store.close()
        vars(workspace)["store"] = None  # what no caller should do: it makes the library fail in an unforeseen way
        with caplog.at_level(logging.DEBUG, logger="graft.server"):
            response = httpx.post(f"{url}/search", json={"query": "zanzibar"})
        vars(workspace).pop("store")
    assert response.status_code == 500 and error_of(response)["code"] == "server_error"
    assert "unexpected=AttributeError at=" in caplog.text and "NoneType" not in caplog.text
    assert "NoneType" not in response.text and response.headers["x-request-id"] in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_an_address_that_others_reach_is_refused_with_the_reason(host: str) -> None:
    with pytest.raises(UsageError, match=r"no administrator's key|is no IP address") as caught:
        listen(ServingSettings(host=host))
    assert "127.0.0.1" in caught.value.fix


def test_a_taken_port_names_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GraftError, match=f"port {port} of 127.0.0.1 is taken") as caught:
            listen(ServingSettings(port=port))
    assert "--port" in caught.value.fix
    with pytest.raises(UsageError, match="70000"):
        listen(ServingSettings(port=70_000))


def test_raw_bytes_that_are_not_http_do_not_stop_the_server(url: str, http: httpx.Client) -> None:
    where = urlsplit(url)
    for raw in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/search HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"):
        with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
            connection.sendall(raw)
            connection.settimeout(10)
            assert connection.recv(100).startswith(b"HTTP/1.1 4")
    assert http.get(f"{url}/models").status_code == 200
    assert json.loads(http.get(url.replace("/v1", "/ready")).content)["ready"]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/search HTTP/1.1\r\nHost: x",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
    ],
    ids=["silent", "half a head", "half a body", "half of the next head"],
)
def test_a_request_that_does_not_come_whole_in_time_loses_its_connection(
    url: str, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.5)
    where = urlsplit(url)
    sent = sent.replace(b"localhost", where.netloc.encode())
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        while connection.recv(10_000):  # until it is closed, or ten seconds without a byte
            pass
        assert 0.3 < time.monotonic() - began < 4  # below uvicorn's own five seconds after an answer
    assert http.get(f"{url}/models").status_code == 200


def test_an_answer_may_take_longer_than_its_request(
    served: tuple[str, FastAPI], http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, app = served
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.2)
    begun, serving = threading.Event(), app.state.serving

    def slow(_: object) -> None:
        begun.set()
        time.sleep(1.0)

    for _ in range(ServingSettings().lookups):
        serving.lookups._threads.submit(slow, None)
    assert begun.wait(10)
    with httpx.Client(headers=http.headers, timeout=30) as fresh:
        began = time.monotonic()
        assert fresh.post(f"{url}/search", json={"query": "ledger"}).status_code == 200
        assert time.monotonic() - began > 0.5


def test_two_first_requests_for_a_model_load_it_once(home: Path) -> None:
    with Workspace(home) as workspace, ThreadPoolExecutor(4) as threads:
        together = threading.Barrier(4)

        def opened(_: int) -> int:
            together.wait()
            return id(chat_model(workspace, "smollm2-135m"))

        assert len(set(threads.map(opened, range(4)))) == 1
