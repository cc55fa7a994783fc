"""Files and vector stores by the unchanged OpenAI client: uploaded, read, searched, filtered, shared, removed."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace

TRAVEL = b"# Travel\n\nA hotel may cost at most 140 EUR a night. Breakfast is paid in addition.\n"
BICYCLES = b"# Bicycles\n\nA bicycle is lent for three weeks without a deposit.\n"
QUESTION = "What may a hotel cost at most?"


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, models: Path, secrets: dict[str, str]
) -> Iterator[tuple[Workspace, str]]:
    with Workspace(tmp_path_factory.mktemp("files") / "home") as workspace:
        people = workspace.identities
        people.create_user("ana", role="editor", groups=["hr"])
        people.create_user("ben", role="editor", groups=["hr"])
        people.create_user("rob", role="reader")
        for name in ("ana", "ben", "rob"):
            secrets[name] = people.create_key(name, user=name, role="admin")[1]
        with in_background(workspace, ServingSettings(port=0, max_file_mb=2)) as (url, _):
            yield workspace, url


@pytest.fixture
def client(served: tuple[Workspace, str], secrets: dict[str, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served[1], api_key=secrets["ana"], max_retries=0) as opened:
        yield opened


def as_user(served: tuple[Workspace, str], key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=served[1], api_key=key, max_retries=0)


def upload(client: openai.OpenAI, name: str = "travel.md", content: bytes = TRAVEL, **more: Any) -> Any:
    return client.files.create(file=(name, content), purpose="assistants", **more)


def filled(client: openai.OpenAI, name: str = "rules") -> tuple[Any, Any, Any]:
    """A vector store with two files that have been read."""
    travel, bicycles = upload(client), upload(client, "bicycles.md", BICYCLES)
    store = client.vector_stores.create(name=name, metadata={"team": "it"})
    for file, year in ((travel, 2024), (bicycles, 2021)):
        read = client.vector_stores.files.create_and_poll(
            file.id, vector_store_id=store.id, attributes={"year": year, "kind": "policy"}, poll_interval_ms=50
        )
        assert read.status == "completed" and read.last_error is None and read.usage_bytes > 0
    return store, travel, bicycles


def test_a_file_comes_back_as_it_was_sent(client: openai.OpenAI) -> None:
    made = upload(client, "C:\\docs\\travel.md")
    assert made.filename == "travel.md" and made.bytes == len(TRAVEL) and made.purpose == "assistants"
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == TRAVEL
    assert made.id in {one.id for one in client.files.list()}
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_pages_of_files_join_to_all_of_them(client: openai.OpenAI) -> None:
    made = [upload(client, f"{number}.md").id for number in range(5)]
    found = [one.id for one in client.files.list(limit=2)]  # the client follows the pages by itself
    assert found[:5] == made[::-1] and len(found) == len(set(found))
    assert next(iter(client.files.list(limit=1, order="asc"))).created_at <= client.files.retrieve(made[0]).created_at
    with pytest.raises(openai.BadRequestError):
        client.files.list(limit=101)
    with pytest.raises(openai.NotFoundError):
        client.files.list(after="file-none")


def test_a_vector_store_finds_what_its_files_say(client: openai.OpenAI) -> None:
    store, travel, _ = filled(client)
    seen = client.vector_stores.retrieve(store.id)
    assert (seen.name, seen.metadata, seen.status) == ("rules", {"team": "it"}, "completed")
    assert seen.file_counts.completed == seen.file_counts.total == 2
    found = client.vector_stores.search(store.id, query=QUESTION, max_num_results=3).data
    assert found[0].file_id == travel.id and found[0].filename == "travel.md" and 0 < found[0].score <= 1
    assert "140 EUR" in found[0].content[0].text and found[0].attributes == {"year": 2024, "kind": "policy"}
    both = client.vector_stores.search(store.id, query=[QUESTION, "How long is a bicycle lent?"]).data
    assert {one.filename for one in both} == {"travel.md", "bicycles.md"}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"type": "eq", "key": "year", "value": 2021}, {"bicycles.md"}),
        ({"type": "gte", "key": "year", "value": 2021}, {"bicycles.md", "travel.md"}),
        ({"type": "lt", "key": "year", "value": 2021}, set()),
        ({"type": "in", "key": "year", "value": [2024, 2025]}, {"travel.md"}),
        ({"type": "ne", "key": "none", "value": "x"}, {"bicycles.md", "travel.md"}),
        (
            {
                "type": "and",
                "filters": [
                    {"type": "eq", "key": "kind", "value": "policy"},
                    {
                        "type": "or",
                        "filters": [
                            {"type": "gt", "key": "year", "value": 2023},
                            {"type": "gt", "key": "kind", "value": 3},
                        ],
                    },
                ],
            },
            {"travel.md"},
        ),
    ],
)
def test_a_filter_keeps_what_its_attributes_say(
    client: openai.OpenAI, request: pytest.FixtureRequest, filters: Any, names: set[str]
) -> None:
    store = request.config.stash.get(STORE, None) or filled(client)[0]
    request.config.stash[STORE] = store
    found = client.vector_stores.search(store.id, query="hotel or bicycle", filters=filters).data
    assert {one.filename for one in found} == names


STORE = pytest.StashKey[Any]()


def test_changed_attributes_are_seen_at_once_and_a_file_taken_out_is_gone_at_once(client: openai.OpenAI) -> None:
    store, travel, bicycles = filled(client)
    client.vector_stores.files.update(travel.id, vector_store_id=store.id, attributes={"year": 1999})
    only = {"type": "eq", "key": "year", "value": 1999}
    found = client.vector_stores.search(store.id, query=QUESTION, filters=only).data  # type: ignore[arg-type]
    assert [one.filename for one in found] == ["travel.md"]
    client.vector_stores.files.delete(travel.id, vector_store_id=store.id)
    assert {one.filename for one in client.vector_stores.search(store.id, query=QUESTION)} == {"bicycles.md"}
    client.files.delete(bicycles.id)
    assert not client.vector_stores.search(store.id, query=QUESTION).data
    assert client.vector_stores.retrieve(store.id).file_counts.total == 0


def test_files_put_in_together_are_one_batch(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="batch")
    files = [upload(client).id, upload(client, "bicycles.md", BICYCLES).id]
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=files, poll_interval_ms=50)
    assert batch.status == "completed" and batch.file_counts.completed == 2
    listed = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
    assert {one.id for one in listed} == set(files)
    changed = client.vector_stores.update(
        store.id, name="other", expires_after={"anchor": "last_active_at", "days": 3}
    )
    assert changed.name == "other" and changed.expires_at is not None
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(store.id)
    assert client.files.retrieve(files[0]).id == files[0]


def test_a_file_that_cannot_be_read_says_why_and_harms_no_other(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="bad")
    broken = upload(client, "broken.pdf", b"%PDF-1.7 and nothing more")
    told = client.vector_stores.files.create_and_poll(broken.id, vector_store_id=store.id, poll_interval_ms=50)
    assert told.status == "failed" and told.last_error is not None and "fix:" in told.last_error.message
    good = client.vector_stores.files.create_and_poll(upload(client).id, vector_store_id=store.id)
    assert good.status == "completed"
    counts = client.vector_stores.retrieve(store.id).file_counts
    assert (counts.failed, counts.completed) == (1, 1)
    failed = client.vector_stores.files.list(store.id, filter="failed")
    assert [one.id for one in failed] == [broken.id]
    with pytest.raises(openai.BadRequestError, match="already"):
        client.vector_stores.files.create(store.id, file_id=broken.id)


def test_others_files_and_stores_do_not_exist(
    client: openai.OpenAI, served: tuple[Workspace, str], secrets: dict[str, str]
) -> None:
    store, travel, _ = filled(client)
    with as_user(served, secrets["ben"]) as ben:  # of the same group as ana
        assert travel.id not in {one.id for one in ben.files.list()}
        assert store.id not in {one.id for one in ben.vector_stores.list()}
        tries: list[Any] = [
            lambda id: ben.files.retrieve(id),
            lambda id: ben.files.content(id),
            lambda id: ben.files.delete(id),
        ]
        for attempt in tries:
            told = [refusal(attempt, travel.id), refusal(attempt, "file-" + "0" * 24)]
            assert told[0].replace(travel.id, "X") == told[1].replace("file-" + "0" * 24, "X")
        mine = ben.vector_stores.create(name="ben's")
        tries = [
            lambda id: ben.vector_stores.retrieve(id),
            lambda id: ben.vector_stores.search(id, query=QUESTION),
            lambda id: ben.vector_stores.update(id, name="x"),
            lambda id: ben.vector_stores.delete(id),
            lambda id: ben.vector_stores.files.list(id),
        ]
        for attempt in tries:
            told = [refusal(attempt, store.id), refusal(attempt, "vs_" + "0" * 24)]
            assert told[0].replace(store.id, "X") == told[1].replace("vs_" + "0" * 24, "X")
        refusal(lambda id: ben.vector_stores.files.create(mine.id, file_id=id), travel.id)
    found = httpx.post(
        f"{served[1]}/search",
        json={"query": "hotel breakfast"},
        headers={"Authorization": f"Bearer {secrets['ben']}"},
        timeout=60,
    ).json()["hits"]
    assert not found
    with as_user(served, secrets["rob"]) as rob, pytest.raises(openai.PermissionDeniedError, match="needs editor"):
        upload(rob)


READS = (
    "search",
    "chat/completions",
    "embeddings",
    "responses",
    "{response_id}",
    "advice",
    "resolve",
    "citations/page",
)
THEIR_OWN = ("{response_id}/cancel", "conversations", "{conversation_id}", "{conversation_id}/items", "{item_id}")


def test_a_reader_changes_nothing_by_any_route(served: tuple[Workspace, str], secrets: dict[str, str]) -> None:
    headers, tried = {"Authorization": f"Bearer {secrets['rob']}"}, 0
    root = served[1].removesuffix("/v1")
    for path, operations in httpx.get(f"{root}/openapi.json").json()["paths"].items():
        for method in operations:
            if method == "get" or path.startswith("/auth") or path.endswith((*READS, *THEIR_OWN)):
                continue
            tried += 1
            body = {"name": "x", "file_id": "file-x", "file_ids": ["file-x"], "attributes": {}}
            asked = httpx.request(method, root + path, headers=headers, json=None if method == "delete" else body)
            assert asked.status_code == 403, (method, path, asked.text)
            assert asked.json()["error"]["code"] == "permission_denied"
    assert tried == 25


def refusal(attempt: Any, id: str) -> str:
    with pytest.raises(openai.NotFoundError) as caught:
        attempt(id)
    return str(caught.value)


def test_an_upload_without_a_key_or_over_the_limit_leaves_nothing(
    client: openai.OpenAI, served: tuple[Workspace, str], secrets: dict[str, str]
) -> None:
    workspace, url = served
    before = sorted(path.name for path in (workspace.home / "files").iterdir())
    form = {"purpose": "assistants"}
    assert httpx.post(f"{url}/files", data=form, files={"file": ("a.md", TRAVEL)}).status_code == 401
    with pytest.raises(openai.BadRequestError, match="over the limit"):
        upload(client, "large.txt", b"x" * 2_500_000)
    with pytest.raises(openai.APIStatusError) as caught:
        upload(client, "huge.txt", b"x" * 4_000_000)
    assert caught.value.status_code == 413
    for name, content, purpose in (("a.md", b"", "assistants"), ("a.md", TRAVEL, "none"), ("..", TRAVEL, "batch")):
        with pytest.raises(openai.BadRequestError):
            client.files.create(file=(name, io.BytesIO(content)), purpose=purpose)  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {secrets['ana']}"}
    lacking = httpx.post(f"{url}/files", data=form, headers=headers)
    assert lacking.status_code == 400 and lacking.json()["error"]["param"] == "file"
    assert sorted(path.name for path in (workspace.home / "files").iterdir()) == before


def test_a_name_that_climbs_stays_in_its_folder(client: openai.OpenAI, served: tuple[Workspace, str]) -> None:
    made = upload(client, "../../../../etc/passwd.md")
    assert made.filename == "passwd.md"
    assert (served[0].home / "files" / made.id / "passwd.md").read_bytes() == TRAVEL
    shown = httpx.get(
        f"{served[1]}/files/{made.id}/content", headers={"Authorization": f"Bearer {client.api_key}"}, timeout=60
    )
    assert shown.headers["content-type"] == "application/octet-stream"
    assert shown.headers["content-disposition"].startswith("attachment")


def test_what_was_not_read_when_the_server_stopped_is_read_by_the_next(tmp_path: Path, models: Path) -> None:
    with Workspace(tmp_path / "home") as workspace:
        file = workspace.put_file("travel.md", io.BytesIO(TRAVEL), purpose="assistants", most_bytes=1_000_000)
        store = workspace.create_vector_store(name="late")
        workspace.attach_file(store.id, file.id)
        gone = workspace.put_file(
            "old.md", io.BytesIO(BICYCLES), purpose="assistants", most_bytes=1_000_000, expires_after=0
        )
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            deadline = time.monotonic() + 60
            while workspace.attached_file(store.id, file.id).body["status"] == "in_progress":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
                assert client.vector_stores.search(store.id, query=QUESTION).data[0].filename == "travel.md"
                while gone.id in {one.id for one in client.files.list()}:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        assert not (workspace.home / "files" / gone.id).exists()
