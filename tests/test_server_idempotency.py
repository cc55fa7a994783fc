"""A request sent twice with one Idempotency-Key is carried out once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from graft.objects import Objects
from graft.server import idempotency, in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, dict[str, str], Workspace]]:
    with Workspace(tmp_path_factory.mktemp("once") / "home") as workspace:
        for name in ("ana", "ben"):
            workspace.identities.create_user(name, role="editor")
        keys = {name: workspace.identities.create_key(name, user=name)[1] for name in ("ana", "ben")}
        keys["slow"] = workspace.identities.create_key("slow", user="ana", requests_per_minute=5)[1]
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            yield url, keys, workspace


def post(served: tuple[str, dict[str, str], Workspace], key: str, path: str, who: str = "ana", **given: Any) -> Any:
    headers = {"Authorization": f"Bearer {served[1][who]}", "Idempotency-Key": key}
    return httpx.post(served[0] + path, headers=headers, timeout=60, **given)


def test_the_second_gets_the_firsts_answer_and_nothing_is_made_twice(
    served: tuple[str, dict[str, str], Workspace],
) -> None:
    key = str(uuid.uuid4())
    with openai.OpenAI(base_url=served[0], api_key=served[1]["ana"]) as client:
        made = [client.vector_stores.create(name="once", extra_headers={"Idempotency-Key": key}) for _ in range(3)]
        assert len({one.id for one in made}) == 1
        assert sum(one.name == "once" for one in client.vector_stores.list()) == 1
        assert client.vector_stores.create(name="once").id != made[0].id


def test_uploads_too(served: tuple[str, dict[str, str], Workspace]) -> None:
    key, content = str(uuid.uuid4()), b"Words of a file."
    first, second = (
        post(served, key, "/files", data={"purpose": "assistants"}, files={"file": ("a.md", content)})
        for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"] and second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers


def test_what_is_shown_once_is_not_kept_to_be_shown_again(served: tuple[str, dict[str, str], Workspace]) -> None:
    served[1]["eva"] = served[2].identities.create_key("eva", role="admin")[1]
    key, body = str(uuid.uuid4()), {"name": "shown-once", "user": "ana"}
    first, second = (post(served, key, "/keys", who="eva", json=body) for _ in range(2))
    assert first.json()["key"].startswith("graft-")
    assert second.status_code == 400 and "there is a key 'shown-once' already" in second.text
    kept = b"".join(path.read_bytes() for path in served[2].home.glob("*.db*"))
    assert first.json()["key"].encode() not in kept


def test_a_key_is_its_callers_own_and_of_one_request(served: tuple[str, dict[str, str], Workspace]) -> None:
    key = str(uuid.uuid4())
    mine = post(served, key, "/vector_stores", json={"name": "mine"}).json()["id"]
    theirs = post(served, key, "/vector_stores", who="ben", json={"name": "mine"})
    assert theirs.status_code == 200 and theirs.json()["id"] != mine
    other = post(served, key, "/vector_stores", json={"name": "another"})
    assert other.status_code == 400 and other.json()["error"]["code"] == "idempotency_key_reused"
    for wrong in ("", "x" * 256):
        refused = post(served, wrong, "/vector_stores", json={"name": "mine"})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "idempotency-key"


def test_a_refusal_is_kept_and_a_request_for_nobody_is_not(served: tuple[str, dict[str, str], Workspace]) -> None:
    key = str(uuid.uuid4())
    for replayed in (None, "true"):
        refused = post(served, key, "/vector_stores", json={"name": 7})
        assert refused.status_code == 400 and refused.headers.get("idempotency-replayed") == replayed
    headers = {"Authorization": "Bearer wrong", "Idempotency-Key": key}
    assert httpx.post(served[0] + "/vector_stores", headers=headers, json={"name": 7}).status_code == 401


def test_of_many_at_once_one_is_carried_out(served: tuple[str, dict[str, str], Workspace]) -> None:
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: post(served, key, "/vector_stores", json={"name": "raced"}), range(8)))
    assert {reply.status_code for reply in replies} <= {200, 409}
    assert len({reply.json()["id"] for reply in replies if reply.status_code == 200}) == 1
    assert sum(one.body["name"] == "raced" for one in served[2].objects.all("vector_store")) == 1


def test_what_a_killed_server_had_begun_is_carried_out_anew(
    served: tuple[str, dict[str, str], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, workspace = str(uuid.uuid4()), served[2]
    first = post(served, key, "/vector_stores", json={"name": "begun"}).json()["id"]
    (claim,) = (one for one in workspace.objects.all("idempotency") if first in str(one.body))
    begun = {**claim.body, "answer": None}
    workspace.objects.change("idempotency", claim.id, begun, principals=claim.principals)
    assert post(served, key, "/vector_stores", json={"name": "begun"}).status_code == 409
    monkeypatch.setattr(idempotency, "_THIS_RUN", "the run after it")
    assert post(served, key, "/vector_stores", json={"name": "begun"}).json()["id"] != first


def test_keys_are_forgotten_after_a_day(
    served: tuple[str, dict[str, str], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    objects: Objects = served[2].objects
    post(served, str(uuid.uuid4()), "/vector_stores", json={"name": "old"})
    idempotency.forget_old(objects)
    assert objects.all("idempotency")
    monkeypatch.setattr(idempotency, "KEPT_S", -10)
    idempotency.forget_old(objects)
    assert not objects.all("idempotency")


def test_a_limited_key_reads_what_is_left_of_its_minute(served: tuple[str, dict[str, str], Workspace]) -> None:
    headers = {"Authorization": f"Bearer {served[1]['slow']}"}
    first, second = (httpx.get(served[0] + "/files", headers=headers).headers for _ in range(2))
    assert first["x-ratelimit-limit-requests"] == "5"
    assert [one["x-ratelimit-remaining-requests"] for one in (first, second)] == ["4", "3"]
    assert second["x-ratelimit-reset-requests"].endswith("s")
    free = httpx.get(served[0] + "/files", headers={"Authorization": f"Bearer {served[1]['ana']}"}).headers
    assert "x-ratelimit-limit-requests" not in free
