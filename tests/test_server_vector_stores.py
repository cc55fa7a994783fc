"""What vector stores do beyond being filled and searched: batches, chunk sizes, filters over pages, rewriting."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace

LONG = "# Rules\n\n" + "\n\n".join(
    f"Rule {n}: a guest of rank {n} may have {n * 7} keys and no more." for n in range(80)
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, Workspace]]:
    with (
        Workspace(tmp_path_factory.mktemp("stores") / "home") as workspace,
        in_background(workspace, ServingSettings(port=0), api_key="the-owner") as (url, _),
    ):
        yield url, workspace


@pytest.fixture
def client(served: tuple[str, Workspace]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served[0], api_key="the-owner", max_retries=0) as made:
        yield made


def upload(client: openai.OpenAI, name: str, text: str, purpose: str = "assistants") -> str:
    return client.files.create(file=(name, io.BytesIO(text.encode())), purpose=purpose).id  # type: ignore[arg-type]


def test_a_file_is_cut_as_it_was_asked_for_and_says_how(client: openai.OpenAI, served: tuple[str, Workspace]) -> None:
    file, passages = upload(client, "rules.md", LONG), {}
    for size in (100, 4096):
        store = client.vector_stores.create()
        strategy = {"type": "static", "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": 50}}
        member = client.vector_stores.files.create_and_poll(
            file,
            vector_store_id=store.id,
            chunking_strategy=strategy,  # type: ignore[arg-type]
        )
        assert member.status == "completed" and member.chunking_strategy is not None
        told = member.chunking_strategy.static  # type: ignore[union-attr]
        assert told.max_chunk_size_tokens == min(size, 192) and told.chunk_overlap_tokens == 50
        (found,) = (one for one in served[1].collections() if one.name == store.id)
        passages[size] = found.chunks
    assert passages[100] > 1.5 * passages[4096]
    for size, overlap in ((99, 0), (100, 51)):
        sizes: Any = {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}
        with pytest.raises(openai.BadRequestError):
            client.vector_stores.create(chunking_strategy={"type": "static", "static": sizes})


def test_what_was_read_of_a_file_can_be_had(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file = upload(client, "rules.md", LONG)
    client.vector_stores.files.create_and_poll(file, vector_store_id=store.id)
    assert [part.text for part in client.vector_stores.files.content(file, vector_store_id=store.id)] == [LONG]
    broken = upload(client, "broken.pdf", "%PDF-1.7 and nothing more")
    client.vector_stores.files.create_and_poll(broken, vector_store_id=store.id)
    with pytest.raises(openai.BadRequestError, match="failed"):
        client.vector_stores.files.content(broken, vector_store_id=store.id)
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.files.content("file-none", vector_store_id=store.id)


def test_a_batch_gives_each_file_its_own_attributes(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    first, second = (upload(client, f"{n}.md", f"# Note {n}\n\nThe code of door {n} is {n}{n}{n}.") for n in (1, 2))
    batch = client.vector_stores.file_batches.create(
        store.id,
        files=[{"file_id": first, "attributes": {"door": 1}}, {"file_id": second, "attributes": {"door": 2}}],
    )
    batch = client.vector_stores.file_batches.poll(batch.id, vector_store_id=store.id)
    assert batch.status == "completed" and batch.file_counts.completed == 2
    hits = client.vector_stores.search(
        store.id, query="code of the door", filters={"type": "eq", "key": "door", "value": 2}
    ).data
    assert {hit.file_id for hit in hits} == {second}
    with pytest.raises(openai.BadRequestError, match="one of them"):
        client.vector_stores.file_batches.create(store.id, files=[{"file_id": first}], file_ids=[second])


def test_a_cancelled_batch_reads_no_more_and_keeps_what_it_read(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    files = [upload(client, f"{n}.md", LONG.replace("guest", f"visitor{n}")) for n in range(12)]
    batch = client.vector_stores.file_batches.create(store.id, file_ids=files)
    cancelled = client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
    assert cancelled.status == "cancelled" and cancelled.file_counts.cancelled >= 6
    time.sleep(1)
    after = client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)
    assert after.file_counts == cancelled.file_counts
    left = list(client.vector_stores.files.list(store.id, filter="cancelled"))
    assert len(left) == after.file_counts.cancelled
    sought = client.vector_stores.search(store.id, query="keys of a guest", max_num_results=50).data
    assert not {hit.file_id for hit in sought} & {one.id for one in left}
    again = client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
    assert again.file_counts == cancelled.file_counts


def test_a_filtered_list_is_whole_however_long_its_pages_are(client: openai.OpenAI) -> None:
    results = {upload(client, f"{n}.jsonl", "{}", purpose="evals") for n in range(3)}
    for n in range(5):
        upload(client, f"{n}.md", "Others between them.")
    assert {one.id for one in client.files.list(purpose="evals", limit=1)} == results


def test_a_query_is_rewritten_on_wish_and_never_to_something_else(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file = upload(client, "rules.md", LONG)
    client.vector_stores.files.create_and_poll(file, vector_store_id=store.id)
    asked = "Hello there! Could you please tell me how many keys a guest of rank 12 may have? Thank you!"
    plain = client.vector_stores.search(store.id, query=asked)
    rewritten = client.vector_stores.search(store.id, query=asked, rewrite_query=True)
    (sought,) = rewritten.search_query  # type: ignore[attr-defined]
    assert plain.search_query == [asked]  # type: ignore[attr-defined]
    assert len(sought) <= len(asked) and "12" in sought
    assert set(sought.lower().split()) <= set(asked.lower().replace("?", " ?").split()) | set(asked.lower().split())
    assert "Rule 12" in rewritten.data[0].content[0].text


def test_a_batch_takes_attributes_and_chunking_beside_its_ids(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file = upload(client, "rules.md", LONG)
    batch = client.vector_stores.file_batches.create_and_poll(
        store.id, file_ids=[file], attributes={"small": 5e-08, "yes": True}, chunking_strategy={"type": "auto"}
    )
    assert batch.file_counts.completed == 1
    (member,) = client.vector_stores.files.list(store.id)
    assert member.attributes == {"small": 5e-08, "yes": True}
