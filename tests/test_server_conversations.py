"""Conversations by OpenAI's unchanged client: made, filled, gone on from, added to at once, nobody else's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.event_loops import run_aside

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, str, str]]:
    """The address, and the keys of an administrator and of a reader."""
    with Workspace(tmp_path_factory.mktemp("conversations") / "home") as workspace:
        keys = []
        for name, role in (("ana", "admin"), ("rob", "reader")):
            workspace.identities.create_user(name, role=role)
            keys.append(workspace.identities.create_key(name, user=name)[1])
        with in_background(workspace, ServingSettings(port=0, waiting=64)) as (url, _):
            yield url, keys[0], keys[1]


@pytest.fixture
def client(served: tuple[str, str, str]) -> Iterator[openai.OpenAI]:
    """The reader's: conversations need no more than to be asked for."""
    with openai.OpenAI(base_url=served[0], api_key=served[2], max_retries=0) as opened:
        yield opened


def said(role: str, text: str) -> Any:
    return {"type": "message", "role": role, "content": text}


def texts(client: openai.OpenAI, id: str) -> list[tuple[str, str]]:
    """Oldest first, over as many pages as there are."""
    items: list[Any] = list(client.conversations.items.list(id, order="asc", limit=7))
    return [(one.role, one.content[0].text) for one in items]


def test_a_conversation_is_made_changed_and_removed(client: openai.OpenAI) -> None:
    made = client.conversations.create(metadata={"topic": "travel"}, items=[said("user", "Hello")])
    assert made.object == "conversation" and made.id.startswith("conv_") and made.metadata == {"topic": "travel"}
    assert client.conversations.retrieve(made.id) == made
    changed = client.conversations.update(made.id, metadata={"topic": "bicycles"})
    assert changed.metadata == {"topic": "bicycles"} and client.conversations.retrieve(made.id) == changed
    (item,) = client.conversations.items.list(made.id)
    gone = client.conversations.delete(made.id)
    assert gone.deleted and gone.object == "conversation.deleted" and gone.id == made.id
    for attempt in (
        lambda: client.conversations.retrieve(made.id),
        lambda: client.conversations.items.list(made.id),
        lambda: client.conversations.items.retrieve(str(item.id), conversation_id=made.id),
        lambda: client.responses.create(model=MODEL, input="Hello", conversation=made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    assert client.conversations.create().metadata == {}


def test_items_are_added_listed_by_pages_and_taken_out(client: openai.OpenAI) -> None:
    made = client.conversations.create()
    given = [said("user" if number % 2 == 0 else "assistant", str(number)) for number in range(20)]
    added = client.conversations.items.create(made.id, items=given)
    assert len(added.data) == 20 and (added.first_id, added.last_id) == (added.data[0].id, added.data[-1].id)
    client.conversations.items.create(made.id, items=[said("developer", "20")])
    oldest = texts(client, made.id)
    assert [text for _, text in oldest] == [str(number) for number in range(21)]
    page: Any = client.conversations.items.list(made.id, limit=2)
    assert [one.content[0].text for one in page.data] == ["20", "19"] and page.has_more
    item: Any = client.conversations.items.retrieve(str(added.data[1].id), conversation_id=made.id)
    assert item == added.data[1] and item.role == "assistant" and item.content[0].type == "output_text"
    left = client.conversations.items.delete(str(added.data[1].id), conversation_id=made.id)
    assert left.id == made.id and texts(client, made.id) == [oldest[0], *oldest[2:]]
    other = client.conversations.create()
    for conversation, id in ((made.id, added.data[1].id), (other.id, added.data[0].id)):
        with pytest.raises(openai.NotFoundError):
            client.conversations.items.retrieve(str(id), conversation_id=conversation)
        with pytest.raises(openai.NotFoundError):
            client.conversations.items.delete(str(id), conversation_id=conversation)


def test_a_response_goes_on_from_its_conversation_and_adds_to_it(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "max_output_tokens": 6}
    made = client.conversations.create(items=[said("user", "My name is Ada."), said("assistant", "Hello Ada.")])
    alone = client.responses.create(input="And then?", **asked)
    first = client.responses.create(input="And then?", conversation=made.id, **asked)
    assert first.conversation is not None and first.conversation.id == made.id
    assert first.usage is not None and alone.usage is not None
    assert first.usage.input_tokens - alone.usage.input_tokens >= len("My name is Ada. Hello Ada.".split())
    assert texts(client, made.id)[2:] == [("user", "And then?"), ("assistant", first.output_text)]
    second = client.responses.create(input="Why?", conversation={"id": made.id}, **asked)
    assert second.usage is not None and second.usage.input_tokens > first.usage.input_tokens
    unkept = client.responses.create(input="Nobody keeps this", conversation=made.id, store=False, **asked)
    assert unkept.output_text and len(texts(client, made.id)) == 6
    with client.responses.stream(input="Streamed", conversation=made.id, **asked) as stream:
        streamed = stream.get_final_response()
    assert texts(client, made.id)[6:] == [("user", "Streamed"), ("assistant", streamed.output_text)]
    later = client.responses.create(input="Later", conversation=made.id, background=True, **asked)
    end = time.monotonic() + 60
    while (later := client.responses.retrieve(later.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert texts(client, made.id)[8:] == [("user", "Later"), ("assistant", later.output_text)]
    assert client.responses.retrieve(later.id).conversation == later.conversation is not None


def test_what_was_searched_and_cited_is_part_of_the_conversation(
    client: openai.OpenAI, served: tuple[str, str, str]
) -> None:
    with openai.OpenAI(base_url=served[0], api_key=served[1], max_retries=0) as ana:
        store = ana.vector_stores.create(name="knowledge")
        text = b"# Travel\n\nA hotel may cost at most 140 EUR a night.\n"
        ana.vector_stores.files.upload_and_poll(
            vector_store_id=store.id, file=("travel.md", text), poll_interval_ms=50
        )
        made = ana.conversations.create()
        tools: Any = [{"type": "file_search", "vector_store_ids": [store.id]}]
        answer = ana.responses.create(
            model=MODEL, input="What may a hotel cost at most?", conversation=made.id, tools=tools
        )
        question, search, message = list(ana.conversations.items.list(made.id, order="asc"))
        assert question.type == "message" and [search.id, message.id] == [one.id for one in answer.output]
        assert search.type == "file_search_call" and message.type == "message"
        assert message.content[0].type == "output_text" and message.content[0].annotations
        copied: Any = [one.to_dict() for one in (question, search, message)]
        other = ana.conversations.create(items=copied)
        kept: Any = list(ana.conversations.items.list(other.id, order="asc"))
        assert [one.type for one in kept] == ["message", "file_search_call", "message"]
        assert kept[2].content[0].annotations == message.content[0].annotations
        assert not {one.id for one in kept} & {question.id, search.id, message.id}


def test_those_who_add_at_once_lose_nothing(client: openai.OpenAI) -> None:
    made = client.conversations.create()

    def add(number: int) -> None:
        items = [said("user", f"{number}.{part}") for part in range(5)]
        client.conversations.items.create(made.id, items=items)

    def ask(number: int) -> None:
        client.responses.create(model=MODEL, input=f"{number}.?", conversation=made.id, max_output_tokens=2)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: (add if n % 3 else ask)(n), range(24)))
    found = [text for role, text in texts(client, made.id) if role == "user"]
    wanted = [f"{n}.{part}" for n in range(24) for part in (range(5) if n % 3 else "?")]
    assert sorted(found) == sorted(wanted)
    for number in (n for n in range(24) if n % 3):  # what was added together stands together
        first = found.index(f"{number}.0")
        assert found[first : first + 5] == [f"{number}.{part}" for part in range(5)]


IMAGE: Any = {"type": "message", "role": "user", "content": [{"type": "input_image"}]}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"items": [said("user", "x")] * 21}, "items"),
        ({"items": [{"type": "message", "role": "tool", "content": "x"}]}, "items[0].role"),
        ({"items": [IMAGE]}, "items[0].content[0]"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"x" * 65: "x"}}, "metadata"),
        ({"metadata": {"x": "y" * 513}}, "metadata"),
        ({"extra_body": {"color": "blue"}}, "color"),
    ],
)
def test_what_a_conversation_cannot_hold_is_refused_by_name(client: openai.OpenAI, given: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.conversations.create(**given)
    assert (caught.value.param or "").startswith(param)


def test_others_conversations_do_not_exist_not_even_for_an_administrator(
    client: openai.OpenAI, served: tuple[str, str, str]
) -> None:
    mine = client.conversations.create(items=[said("user", "secret")])
    item = next(iter(client.conversations.items.list(mine.id))).id
    with openai.OpenAI(base_url=served[0], api_key=served[1], max_retries=0) as ana:
        theirs = ana.conversations.create()
        attempts: list[Any] = [
            ana.conversations.retrieve,
            ana.conversations.delete,
            ana.conversations.items.list,
            lambda id: ana.conversations.update(id, metadata={"a": "b"}),
            lambda id: ana.conversations.items.create(id, items=[said("user", "x")]),
            lambda id: ana.conversations.items.retrieve(str(item), conversation_id=id),
            lambda id: ana.conversations.items.delete(str(item), conversation_id=id),
            lambda id: ana.responses.create(model=MODEL, input="Hello", conversation=id),
            lambda id: ana.responses.create(model=MODEL, input="Hello", conversation=id, background=True),
        ]
        for attempt in attempts:
            told = []
            for id in (mine.id, "conv_missing"):
                with pytest.raises(openai.NotFoundError) as caught:
                    attempt(id)
                told.append(str(caught.value).replace(id, "ID"))
            assert told[0] == told[1]
        for id in (item, "msg_missing"):
            with pytest.raises(openai.NotFoundError, match=f"no conversation.item '{id}'"):
                ana.conversations.items.retrieve(str(id), conversation_id=theirs.id)
    assert texts(client, mine.id) == [("user", "secret")]


async def _asynchronous(url: str, key: str) -> list[str]:
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        made = await client.conversations.create()
        stream = await client.responses.create(
            model=MODEL, input="Say hello.", conversation=made.id, max_output_tokens=4, stream=True
        )
        ended = [event.type async for event in stream][-1]
        items: list[Any] = [one async for one in client.conversations.items.list(made.id, order="asc")]
        await client.conversations.delete(made.id)
        return [ended.partition(".")[0], *(one.role for one in items)]


def test_the_asynchronous_client_works_too(served: tuple[str, str, str]) -> None:
    assert run_aside(lambda: _asynchronous(served[0], served[2])) == ["response", "user", "assistant"]
