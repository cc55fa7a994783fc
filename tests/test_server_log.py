"""One line a request on stderr: what it has, and what no client can put into it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from graft.errors import UsageError
from graft.server.log import LOG, Told, log_unexpected, write_log
from graft.workspace import Workspace

SECRET = "zanzibar"
KEY = "graft-key-zanzibar-0123456789"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    folder = tmp_path_factory.mktemp("log")
    (folder / "note.md").write_text(f"# Ledger\n\nThe {SECRET} ledger lies in the green safe.\n")
    with Workspace(folder / "home") as workspace:
        workspace.add([str(folder / "note.md")])
    return folder / "home"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Where this process can write its log; its loggers are as they were afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers, root.level = before, level
    LOG.setLevel(logging.NOTSET)


def lines_of(home: Path, requests: Any, form: str) -> list[str]:
    """stderr of a real `graft serve` that answered these."""
    (home / "graft.toml").write_text(f'[serving]\nlog = "{form}"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "graft", "serve", "--home", str(home), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRAFT_API_KEY": KEY},
    )
    assert process.stdout is not None
    requests(json.loads(process.stdout.readline())["url"])
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    return err.splitlines()


def ask_with_secrets_everywhere(url: str) -> None:
    with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
        assert http.post(f"{url}/search", json={"query": SECRET}).status_code == 200
        http.post(f"{url}/search?q={SECRET}", json={SECRET: SECRET}, headers={"X-Custom": SECRET})
        http.get(f"{url}/files/file-{SECRET}%0aforged%0d%0aforged", headers={"User-Agent": f"{SECRET}\tforged"})
        http.request(SECRET.upper(), f"{url}/{SECRET}", headers={"traceparent": SECRET})
        http.post(f"{url}/files", files={"file": (f"{SECRET}\nforged.md", SECRET.encode())}, data={"purpose": SECRET})
    httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {SECRET}"})
    where = urlsplit(url)
    for raw in (b"GET /%s\nforged HTTP/1.1\r\n\r\n", b"%s forged\r\n\r\n"):
        with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
            connection.sendall(raw % SECRET.encode())
            connection.recv(1000)


def test_the_json_log_has_one_object_a_request_and_no_secret_anywhere(home: Path) -> None:
    lines = lines_of(home, ask_with_secrets_everywhere, "json")
    told = [json.loads(line) for line in lines]
    assert not [line for line in lines if SECRET in line.lower() or "forged" in line or "green safe" in line]
    requests = [one for one in told if one["event"] == "request"]
    assert len(requests) == 6 and told[-1]["event"] == "stopped"
    first = requests[0]
    assert first.keys() >= {
        "time",
        "level",
        "id",
        "method",
        "route",
        "status",
        "ms",
        "caller",
        "bytes_in",
        "bytes_out",
    }
    assert (first["method"], first["route"], first["status"]) == ("POST", "/v1/search", 200)
    assert first["trace_id"] is None and first["level"] == "info" and first["id"].startswith("req_")
    assert first["bytes_in"] == len(f'{{"query":"{SECRET}"}}') and first["bytes_out"] > 100 and first["ms"] > 0
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None
    assert [(one["method"], one["route"], one["status"]) for one in requests[2:4]] == [
        ("GET", "/v1/files/{file_id}", 404),
        ("other", "-", 404),
    ]
    assert requests[5]["status"] == 401 and requests[5]["caller"] is None


def test_the_log_for_people_has_the_same_and_no_secret_either(home: Path) -> None:
    lines = lines_of(home, ask_with_secrets_everywhere, "text")
    assert not [line for line in lines if SECRET in line.lower() or "forged" in line]
    requests = [line for line in lines if "method=" in line]
    assert len(requests) == 6 and lines[-1] == "stopped"
    assert re.search(r"INFO id=req_\w+ method=POST route=/v1/search status=200 ms=[\d.]+ caller=\S+", requests[0])


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_value_begins_a_line_of_its_own(written: io.StringIO, form: str) -> None:
    write_log(form, to=written)
    forged = "a\nb\r\nc\u2028d\x85e\x1b[31m"
    LOG.info(Told("request", caller=forged))
    LOG.info("told: %s", forged)
    lines = written.getvalue().splitlines()
    assert len(lines) == 2 and "\x1b" not in lines[0]
    if form == "json":
        assert json.loads(lines[0])["caller"] == forged


@pytest.mark.parametrize("form", ["text", "json"])
def test_of_an_error_and_of_what_libraries_say_only_kind_and_place_are_written(
    written: io.StringIO, form: str
) -> None:
    write_log(form, to=written)
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        log_unexpected(error, "req_1")
        logging.getLogger("litellm").exception("failed on %s", SECRET)
    logging.getLogger("httpx").info("GET %s", SECRET)
    logging.getLogger("opentelemetry.exporter").warning("the collector is away")
    text = written.getvalue()
    assert SECRET not in text and len(text.splitlines()) == 3
    assert text.count("ValueError") == 2 and "test_server_log.py" in text and "the collector is away" in text


def test_auto_is_json_unless_a_person_reads_along(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_log("auto", to=written) is True
    monkeypatch.setattr(written, "isatty", lambda: True)
    assert write_log("auto", to=written) is False
    with pytest.raises(UsageError, match="'xml' is none of auto, text, json"):
        write_log("xml")
