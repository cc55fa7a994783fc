"""Operating a server: limits of keys and users, figures for Prometheus, who changed what."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from graft.errors import QuotaExceeded, UsageError
from graft.identity import Identities
from graft.server import in_background
from graft.settings import ServingSettings
from graft.spending import Spending
from graft.store.database import Database
from graft.workspace import Workspace

MODEL = "smollm2-135m"
TURNS: Any = [{"role": "user", "content": "What may a hotel cost?"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[Workspace, str]]:
    folder = tmp_path_factory.mktemp("operation")
    (folder / "travel.md").write_text("# Travel\n\nA hotel may cost at most 140 EUR a night.\n")
    with Workspace(folder / "home") as workspace:
        workspace.add([str(folder / "travel.md")])
        with in_background(workspace, ServingSettings(port=0), api_key="the-owner") as (url, _):
            yield workspace, url


def client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def figures(url: str, key: str = "the-owner") -> dict[str, float]:
    reply = httpx.get(url.replace("/v1", "/metrics"), headers={"Authorization": f"Bearer {key}"})
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/plain")
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def test_a_key_asks_so_often_a_minute_and_is_told_when_to_come_again(served: tuple[Workspace, str]) -> None:
    workspace, url = served
    workspace.identities.create_user("often", role="reader")
    keys = [workspace.identities.create_key(f"often-{n}", user="often", requests_per_minute=3)[1] for n in range(2)]
    with client(url, keys[0]) as first, client(url, keys[1]) as second:
        for _ in range(3):
            first.models.list()
        with pytest.raises(openai.RateLimitError) as caught:
            first.models.list()
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        assert "3 times a minute" in str(caught.value) and caught.value.code == "rate_limit_exceeded"
        assert second.models.list().data, "one key's limit is not another's"


def test_tokens_of_a_day_and_dollars_of_a_month_end_the_answers(served: tuple[Workspace, str]) -> None:
    workspace, url = served
    workspace.identities.create_user("much", role="reader", budget_usd=0.5)
    key = workspace.identities.create_key("much-1", user="much", tokens_per_day=60)[1]
    with client(url, key) as asking:
        said = asking.chat.completions.create(
            model=MODEL, messages=TURNS, max_completion_tokens=16, extra_body={"graft": {"retrieval": False}}
        )
        assert said.usage is not None
        used = workspace.spending.spent("key:much-1")
        assert (used.answers, used.tokens) == (1, said.usage.total_tokens)
        assert workspace.spending.spent("user:much").tokens == used.tokens
        caller = workspace.identities.caller(key)
        assert caller is not None
        workspace.spending.spend(caller, tokens=60, cost_usd=0.0)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="60 tokens a day") as caught:
                asking.chat.completions.create(model=MODEL, messages=TURNS, stream=stream)  # type: ignore[call-overload]
            assert caught.value.code == "insufficient_quota"
        with pytest.raises(openai.RateLimitError, match="60 tokens a day"):
            asking.responses.create(model=MODEL, input="Hello")
        assert asking.models.list().data, "only answers cost tokens"
    other = workspace.identities.create_key("much-2", user="much")[1]
    caller = workspace.identities.caller(other)
    assert caller is not None
    workspace.spending.spend(caller, tokens=1, cost_usd=0.5)
    with client(url, other) as asking, pytest.raises(openai.RateLimitError, match=r"\$0.50 of \$0.50 this month"):
        asking.chat.completions.create(model=MODEL, messages=TURNS)
    workspace.identities.change_user("much", budget_usd=float("inf"))
    caller = workspace.identities.caller(other)
    assert caller is not None and caller.budget_usd is None
    workspace.spending.require_quota(caller)


def test_a_stream_that_is_left_is_counted_as_far_as_it_came(served: tuple[Workspace, str]) -> None:
    workspace, url = served
    workspace.identities.create_user("leaves", role="reader")
    key = workspace.identities.create_key("leaves-1", user="leaves")[1]
    turns: Any = [{"role": "user", "content": "Write a very long story about a lighthouse, with many chapters."}]
    with client(url, key) as asking:
        stream = asking.chat.completions.create(
            model=MODEL, messages=turns, stream=True, max_tokens=2_000, extra_body={"graft": {"retrieval": False}}
        )
        for _, _chunk in zip(range(5), stream, strict=False):
            pass
        stream.close()
    until(lambda: workspace.spending.spent("key:leaves-1").tokens > 0)
    assert workspace.spending.spent("key:leaves-1").tokens >= 4


def test_days_and_months_are_kept_apart_and_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database("", home=tmp_path)
    people, spending = Identities(database), Spending(database)
    people.create_user("ana", role="reader", budget_usd=2.0)
    caller = people.caller(people.create_key("ana-1", user="ana", tokens_per_day=100)[1])
    assert caller is not None
    sequence = database.current_sequence()
    monkeypatch.setattr("graft.spending._day", lambda: "2026-01-31")
    spending.spend(caller, tokens=100, cost_usd=1.0)
    with pytest.raises(QuotaExceeded, match="100 of its 100 tokens"):
        spending.require_quota(caller)
    monkeypatch.setattr("graft.spending._day", lambda: "2026-02-01")
    spending.require_quota(caller)
    assert spending.spent("user:ana").cost_usd == 0 and spending.spent("user:ana", "2026-01").cost_usd == 1.0
    assert database.current_sequence() == sequence, "what is spent is nothing that others have to read again"
    for wrong in ({"requests_per_minute": 0}, {"tokens_per_day": -1}):
        with pytest.raises(UsageError, match="from 1 to"):
            people.create_key("x", user="ana", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no sum of dollars"):
        people.create_user("ben", budget_usd=float("nan"))
    people.close()


def test_prometheus_reads_requests_answers_lines_and_jobs(served: tuple[Workspace, str]) -> None:
    workspace, url = served
    before = figures(url)
    with client(url, "the-owner") as asking:
        asking.models.list()
        with pytest.raises(openai.NotFoundError):
            asking.files.retrieve("file-secret-name")
        asking.chat.completions.create(model=MODEL, messages=TURNS, max_completion_tokens=8)
    httpx.get(f"{url}/no/such/path")
    nowhere = 'graft_requests_total{"method": "GET", "route": "-", "status": "404"}'
    until(lambda: figures(url).get(nowhere, 0) > before.get(nowhere, 0))  # counted once the answer has been sent
    after = figures(url)

    def grown(name: str, **labels: str) -> float:
        key = f"{name}{json.dumps(labels, sort_keys=True)}"
        return after[key] - before.get(key, 0.0)

    assert grown("graft_requests_total", method="GET", route="/v1/models", status="200") == 1
    assert grown("graft_requests_total", method="GET", route="/v1/files/{file_id}", status="404") == 1
    assert grown("graft_requests_total", method="GET", route="-", status="404") == 1
    assert grown("graft_request_seconds_count", route="/v1/chat/completions") == 1
    assert grown("graft_answers_total", model=MODEL) == 1
    assert grown("graft_tokens_total", model=MODEL, kind="prompt") > 10
    assert after["graft_answers_under_way{}"] == 0
    assert not [key for key in after if "secret-name" in key or "no/such" in key]
    workspace.queue_add(["/nowhere"])
    assert figures(url)['graft_jobs{"status": "queued"}'] == 1
    readers = workspace.identities.create_key("watcher", role="editor")[1]
    refused = httpx.get(url.replace("/v1", "/metrics"), headers={"Authorization": f"Bearer {readers}"})
    assert refused.status_code == 403
    assert httpx.get(url.replace("/v1", "/metrics")).status_code == 401


def test_changes_are_written_down_with_who_made_them_and_nothing_they_held(served: tuple[Workspace, str]) -> None:
    workspace, url = served
    workspace.identities.create_user("ana", role="editor")
    key = workspace.identities.create_key("ana-laptop", user="ana")[1]
    with client(url, key) as asking:
        file = asking.files.create(file=("salaries.md", io.BytesIO(b"Ana earns 90,000.")), purpose="assistants")
        asking.models.list()
        asking.files.delete(file.id)
    httpx.delete(f"{url}/files/{file.id}")
    until(lambda: len(workspace.audit.last(3)) == 3 and workspace.audit.last(1)[0]["caller"] == "nobody")
    told = workspace.audit.last(3)
    assert [(one["caller"], one["what"], one["status"]) for one in told] == [
        ("ana/ana-laptop", "POST /v1/files", 200),
        ("ana/ana-laptop", "DELETE /v1/files/{file_id}", 200),
        ("nobody", "DELETE /v1/files/{file_id}", 401),
    ]
    assert told[1]["file_id"] == file.id and told[0]["at"] <= told[1]["at"] and told[0]["request"].startswith("req_")
    text = (workspace.home / "audit.jsonl").read_text()
    assert "salaries" not in text and "90,000" not in text and key not in text
    assert (workspace.home / "audit.jsonl").stat().st_mode & 0o077 == 0
