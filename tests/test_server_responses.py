"""OpenAI's file search by its unchanged client: a response, its stream, what it goes on from, who may see it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.event_loops import run_aside

MODEL = "smollm2-135m"
TRAVEL = b"# Travel\n\nA hotel may cost at most 140 EUR a night. Breakfast is paid in addition.\n"
QUESTION = "What may a hotel cost at most?"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, str, str]]:
    """The address, and the keys of two users."""
    with Workspace(tmp_path_factory.mktemp("responses") / "home") as workspace:
        for name in ("ana", "ben"):
            workspace.identities.create_user(name, role="editor")
        keys = [workspace.identities.create_key(name, user=name)[1] for name in ("ana", "ben")]
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            yield url, keys[0], keys[1]


@pytest.fixture(scope="module")
def client(served: tuple[str, str, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served[0], api_key=served[1], max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def tools(client: openai.OpenAI) -> Any:
    """As in OpenAI's guide to file search: a file, a vector store, a tool."""
    store = client.vector_stores.create(name="knowledge")
    client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("travel.md", TRAVEL), poll_interval_ms=50
    )
    return [{"type": "file_search", "vector_store_ids": [store.id]}]


def test_file_search_answers_with_file_citations(client: openai.OpenAI, tools: Any) -> None:
    made = client.responses.create(
        model=MODEL, input=QUESTION, tools=tools, include=["file_search_call.results"], metadata={"a": "b"}
    )
    assert made.status == "completed" and "140" in made.output_text and made.metadata == {"a": "b"}
    search, message = made.output
    assert search.type == "file_search_call" and search.queries == [QUESTION] and search.results
    assert search.results[0].filename == "travel.md" and "140 EUR" in (search.results[0].text or "")
    assert message.type == "message" and message.content[0].type == "output_text"
    (citation,) = message.content[0].annotations
    assert citation.type == "file_citation" and citation.filename == "travel.md"
    assert citation.file_id == search.results[0].file_id and 0 < citation.index <= len(made.output_text)
    assert made.usage is not None and made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    kept = client.responses.retrieve(made.id)
    assert kept.output_text == made.output_text
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_stream_tells_its_steps_in_order_and_ends_with_the_whole(client: openai.OpenAI, tools: Any) -> None:
    with client.responses.stream(model=MODEL, input=QUESTION, tools=tools) as stream:
        events = list(stream)
        final = stream.get_final_response()
    types = [event.type for event in events]
    steps = list(dict.fromkeys(types))
    wanted = [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.file_search_call.in_progress", "response.file_search_call.searching",
        "response.file_search_call.completed", "response.output_item.done", "response.content_part.added",
        "response.output_text.delta", "response.output_text.annotation.added", "response.output_text.done",
        "response.content_part.done", "response.completed",
    ]  # fmt: skip
    assert steps == wanted
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text and "140" in text


def test_a_conversation_goes_on_from_a_response(client: openai.OpenAI, tools: Any) -> None:
    first = client.responses.create(model=MODEL, input=QUESTION, tools=tools)
    alone = client.responses.create(model=MODEL, input="And then?", max_output_tokens=4)
    second = client.responses.create(
        model=MODEL, input="And then?", previous_response_id=first.id, max_output_tokens=4
    )
    assert second.previous_response_id == first.id and second.usage is not None and alone.usage is not None
    added = second.usage.input_tokens - alone.usage.input_tokens  # the question and the answer before it
    assert added > len(f"{QUESTION} {first.output_text}".split())
    third = client.responses.create(
        model=MODEL, input="And then?", previous_response_id=second.id, max_output_tokens=4
    )
    assert third.usage is not None and third.usage.input_tokens > second.usage.input_tokens
    unkept = client.responses.create(model=MODEL, input=QUESTION, tools=tools, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, input="And then?", previous_response_id=unkept.id)


def test_without_a_tool_the_model_answers_alone(client: openai.OpenAI) -> None:
    turns: Any = [{"role": "user", "content": [{"type": "input_text", "text": "Say hello."}]}]
    made = client.responses.create(model=MODEL, input=turns, instructions="Be brief.", max_output_tokens=8)
    assert made.output_text and [one.type for one in made.output] == ["message"]
    assert made.status in ("completed", "incomplete")
    if made.status == "incomplete":
        assert made.incomplete_details is not None and made.incomplete_details.reason == "max_output_tokens"
    events = list(client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8, stream=True))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert deltas.strip() == events[-1].response.output_text.strip() != ""


async def _asynchronous(url: str, key: str, tools: Any) -> str:
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        made = await client.responses.create(model=MODEL, input=QUESTION, tools=tools)
        return made.output_text


def test_the_asynchronous_client_works_too(served: tuple[str, str, str], tools: Any) -> None:
    assert "140" in run_aside(lambda: _asynchronous(served[0], served[1], tools))


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"background": True, "stream": True}, "background"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": "resp_x", "conversation": "conv_x"}, "previous_response_id"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"metadata": {"a": "b" * 513}}, "metadata"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        ({"input": ""}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client: openai.OpenAI, given: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": MODEL, "input": QUESTION, **given})
    assert (caught.value.param or "").startswith(param)


@pytest.fixture(scope="module")
def two_years(client: openai.OpenAI) -> str:
    """A vector store with a file of each year, and the year as attribute."""
    store = client.vector_stores.create(name="years")
    for year, most in ((2023, 140), (2024, 190)):
        text = f"# Travel in {year}\n\nA hotel may cost at most {most} EUR a night.\n".encode()
        file = client.files.create(file=(f"{year}.md", text), purpose="assistants")
        client.vector_stores.files.create_and_poll(
            file.id, vector_store_id=store.id, attributes={"year": year}, poll_interval_ms=50
        )
    return store.id


def test_filters_and_limits_of_file_search_are_honoured(client: openai.OpenAI, two_years: str) -> None:
    def found(**options: Any) -> tuple[str, list[Any]]:
        tool: Any = {"type": "file_search", "vector_store_ids": [two_years], **options}
        made = client.responses.create(
            model=MODEL, input=QUESTION, tools=[tool], include=["file_search_call.results"]
        )
        (search,) = [one for one in made.output if one.type == "file_search_call"]
        return made.output_text, search.results or []

    assert {one.filename for one in found()[1]} == {"2023.md", "2024.md"}
    for year, most in ((2023, "140"), (2024, "190")):
        text, results = found(filters={"type": "eq", "key": "year", "value": year})
        assert most in text and [(one.filename, one.attributes) for one in results] == [
            (f"{year}.md", {"year": year})
        ]
    assert found(filters={"type": "gt", "key": "year", "value": 2024})[1] == []
    assert len(found(max_num_results=1)[1]) == 1
    scores = [one.score for one in found()[1]]
    strict = found(ranking_options={"score_threshold": 0.9})[1]
    assert 0 < len(strict) < len(scores) and all(one.score >= 0.9 for one in strict)


def test_filters_are_refused_where_they_can_mean_nothing(client: openai.OpenAI, tools: Any) -> None:
    deep: Any = {"type": "eq", "key": "year", "value": 1}
    for _ in range(12):
        deep = {"type": "and", "filters": [deep]}
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input=QUESTION, tools=[{**tools[0], "filters": deep}])
    assert caught.value.param == "tools[0].filters"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input=QUESTION, tools=tools, text={"format": {"type": "json_object"}})
    assert caught.value.param == "text.format.type"


def test_a_tool_is_used_unless_the_choice_is_none(client: openai.OpenAI, tools: Any) -> None:
    for choice, used in (("required", True), ({"type": "file_search"}, True), ("none", False)):
        made = client.responses.create(
            model=MODEL, input=QUESTION, tools=tools, tool_choice=choice, max_output_tokens=24
        )
        assert ("file_search_call" in [one.type for one in made.output]) is used


def test_an_answer_is_held_to_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"price": {"type": "integer"}}, "required": ["price"]}
    form: Any = {"format": {"type": "json_schema", "name": "price", "schema": schema, "strict": True}}
    made = client.responses.create(model=MODEL, input=QUESTION, text=form, max_output_tokens=40)
    assert isinstance(json.loads(made.output_text)["price"], int)
    assert made.text is not None and made.text.format is not None and made.text.format.type == "json_schema"


def test_the_input_of_a_kept_response_is_listed_by_pages(client: openai.OpenAI) -> None:
    turns: Any = [
        {"role": role, "content": f"{number}"}
        for number, role in enumerate(("developer", "user", "assistant", "user"))
    ]
    made = client.responses.create(model=MODEL, input=turns, max_output_tokens=4)
    items: list[Any] = list(client.responses.input_items.list(made.id, limit=3))
    assert [(one.role, one.content[0].text) for one in items] == [
        (turn["role"], turn["content"]) for turn in reversed(turns)
    ]
    oldest: list[Any] = list(client.responses.input_items.list(made.id, order="asc", after=items[-1].id))
    assert oldest == items[-2::-1]
    for attempt in (lambda: client.responses.input_items.list("resp_x"),
                    lambda: client.responses.input_items.list(made.id, after="msg_x")):  # fmt: skip
        with pytest.raises(openai.NotFoundError):
            attempt()


def test_a_search_by_a_response_lets_an_expiring_store_live_on(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="short", expires_after={"anchor": "last_active_at", "days": 1})
    time.sleep(1.1)
    tool: Any = {"type": "file_search", "vector_store_ids": [store.id]}
    client.responses.create(model=MODEL, input=QUESTION, tools=[tool])
    assert store.expires_at is not None
    assert (client.vector_stores.retrieve(store.id).expires_at or 0) > store.expires_at


def test_a_kept_response_is_not_streamed(client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=4)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.retrieve(made.id, stream=True)
    assert caught.value.param == "stream"


def test_others_responses_and_stores_do_not_exist(
    client: openai.OpenAI, served: tuple[str, str, str], tools: Any
) -> None:
    mine = client.responses.create(model=MODEL, input=QUESTION, tools=tools)
    with openai.OpenAI(base_url=served[0], api_key=served[2], max_retries=0) as ben:
        attempts: list[Any] = [
            lambda: ben.responses.retrieve(mine.id),
            lambda: ben.responses.delete(mine.id),
            lambda: ben.responses.cancel(mine.id),
            lambda: ben.responses.input_items.list(mine.id),
            lambda: ben.responses.create(model=MODEL, input="And?", previous_response_id=mine.id),
            lambda: ben.responses.create(model=MODEL, input=QUESTION, tools=tools),
        ]
        for attempt in attempts:
            with pytest.raises(openai.NotFoundError):
                attempt()
    assert client.responses.retrieve(mine.id).id == mine.id
