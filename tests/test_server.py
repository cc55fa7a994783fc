"""The unchanged OpenAI client works: against a real server on loopback, real documents and a real model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.event_loops import run_aside

MODEL = "smollm2-135m"
CLOSED = {"graft": {"retrieval": False}}
QUESTION = "What may a hotel cost at most?"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "travel.md").write_text(
        "# Travel\n\nA hotel may cost at most 140 EUR a night. Breakfast is paid in addition.\n\n"
        "# Bicycles\n\nA bicycle is lent for three weeks without a deposit.\n"
    )
    with Workspace(folder / "home") as workspace:
        workspace.add([str(folder / "travel.md")])
        yield workspace


@pytest.fixture(scope="module")
def url(served: Workspace) -> Iterator[str]:
    with in_background(served, ServingSettings(port=0)) as (where, _):
        yield where


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as opened:
        yield opened


def ask(client: openai.OpenAI, question: str = QUESTION, **options: Any) -> Any:
    options.setdefault("max_completion_tokens", 24)
    messages = options.pop("messages", [{"role": "user", "content": question}])
    return client.chat.completions.create(model=options.pop("model", MODEL), messages=messages, **options)


def test_a_grounded_answer_carries_its_citations_twice(client: openai.OpenAI) -> None:
    completion: ChatCompletion = ask(client)
    choice = completion.choices[0]
    assert choice.message.content is not None and "140" in choice.message.content
    assert completion.usage is not None and completion.usage.prompt_tokens > 20
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    graft = completion.model_extra["graft"] if completion.model_extra else {}
    assert graft["mode"] in ("generated", "quoted") and graft["latency_ms"]["total"] > 0 and graft["hits"]
    citation = graft["citations"][0]
    assert citation.keys() >= {"claim", "document", "version", "start", "end", "page", "quote", "verdict", "support"}
    assert citation["verdict"] == "supported" and "140 EUR" in citation["quote"]
    assert choice.message.annotations is not None
    annotation = choice.message.annotations[0]
    assert annotation.type == "url_citation" and annotation.url_citation.title == "travel.md"
    said = choice.message.content[annotation.url_citation.start_index : annotation.url_citation.end_index]
    assert said == citation["claim"]
    assert annotation.url_citation.url == f"graft:{citation['document_id']}/1#{citation['start']}-{citation['end']}"


def test_the_server_says_what_the_library_says(client: openai.OpenAI, served: Workspace) -> None:
    answering = dataclasses.replace(served.settings.answering, answer_tokens=24)
    with Workspace(served.home, settings=dataclasses.replace(served.settings, answering=answering)) as beside:
        answer = beside.ask(QUESTION)
    completion = ask(client)
    assert completion.choices[0].message.content == answer.text
    assert completion.usage.completion_tokens == answer.usage.output_tokens
    assert completion.graft["draft"] == answer.draft


def test_a_stream_shows_only_checked_text_then_the_proof_and_the_usage(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks: list[ChatCompletionChunk] = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    *parts, finish, usage = chunks
    assert all(chunk.usage is None for chunk in (*parts, finish)) and usage.choices == []
    assert usage.usage == whole.usage
    assert finish.choices[0].finish_reason == whole.choices[0].finish_reason
    assert finish.model_extra is not None and finish.model_extra["graft"]["citations"] == whole.graft["citations"]
    annotations = [c.choices[0].delta.model_extra for c in parts if c.choices[0].delta.model_extra]
    expected = [annotation.model_dump() for annotation in whole.choices[0].message.annotations]
    assert annotations == [{"annotations": expected}]


def test_a_stream_without_usage_wanted_has_none(client: openai.OpenAI) -> None:
    assert all(chunk.usage is None and chunk.choices for chunk in ask(client, stream=True))


def test_the_draft_is_sent_beside_the_text_where_it_is_wanted(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True, extra_body={"graft": {"draft": True}}))
    pieces = [chunk.model_extra["graft"]["draft"] for chunk in chunks[:-1] if chunk.model_extra]
    assert len(pieces) > 3 and "".join(pieces) == chunks[-1].model_extra["graft"]["draft"]
    assert all(chunk.choices[0].delta.content is None for chunk in chunks[1:4]), "a draft is never content"


def test_abstaining_is_an_answer(client: openai.OpenAI) -> None:
    completion = ask(client, "Who composed the opera about a flying ship?")
    assert completion.choices[0].message.content == "Not in your documents."
    assert completion.graft["mode"] == "abstained" and completion.graft["reason"]
    assert completion.choices[0].message.annotations == [] and completion.choices[0].finish_reason == "stop"


def test_a_follow_up_is_understood_from_the_turns_before(client: openai.OpenAI) -> None:
    first = ask(client)
    turns = [
        {"role": "user", "content": QUESTION},
        first.choices[0].message.model_dump(),  # as clients send it back, annotations and all
        {"role": "user", "content": "Is breakfast paid too?"},
    ]
    followed = ask(client, messages=turns)
    assert "hotel" in followed.graft["question"].lower()


def test_a_system_message_of_a_grounded_question_is_said_to_have_no_part(client: openai.OpenAI) -> None:
    turns = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [TEXT_PART]}]
    assert ask(client, messages=turns).graft["notes"] == [
        "messages[0]: a grounded answer follows Graft's own instructions"
    ]


TEXT_PART = {"type": "text", "text": QUESTION}


def test_without_retrieval_the_model_gets_the_conversation_as_it_is(client: openai.OpenAI, served: Workspace) -> None:
    from graft.models import GenerateOptions, Message, complete

    turns = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "Is snow white?"}]
    completion = ask(client, messages=turns, extra_body=CLOSED, max_completion_tokens=8)
    messages = [Message("system", "Answer in one word."), Message("user", "Is snow white?")]
    reply = complete(served.model(MODEL), messages, GenerateOptions(max_tokens=8))
    assert completion.choices[0].message.content == reply.text
    assert completion.choices[0].finish_reason == reply.finish_reason
    assert completion.usage.prompt_tokens == reply.usage.input_tokens
    assert completion.graft["mode"] == "closed_book" and completion.graft["hits"] == []
    streamed = ask(client, messages=turns, extra_body=CLOSED, max_completion_tokens=8, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == reply.text


def test_limits_stops_seeds_and_schemas_are_honoured(client: openai.OpenAI) -> None:
    counting = "Count from one to twenty in digits."
    short = ask(client, counting, extra_body=CLOSED, max_completion_tokens=5)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 5
    stopped = ask(client, counting, extra_body=CLOSED, stop=["3"], max_tokens=40, max_completion_tokens=40)
    assert "3" not in stopped.choices[0].message.content and stopped.choices[0].finish_reason == "stop"
    drawn = [
        ask(client, "Invent a name.", extra_body=CLOSED, temperature=1.5, seed=seed, max_completion_tokens=12)
        for seed in (7, 7, 8)
    ]
    said = [completion.choices[0].message.content for completion in drawn]
    assert said[0] == said[1] != said[2]
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}}
    reply = ask(client, "Which colour has the sky?", extra_body=CLOSED, response_format=wanted)
    assert json.loads(reply.choices[0].message.content)["colour"] in ("red", "blue")


def test_strict_and_collection_reach_the_workspace(client: openai.OpenAI) -> None:
    assert ask(client, extra_body={"graft": {"strict": True}}).graft["mode"] in ("generated", "quoted")
    with pytest.raises(openai.NotFoundError, match="nowhere"):
        ask(client, extra_body={"graft": {"collection": "nowhere"}})


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FORMAT = {"type": "json_object"}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_p": 0.5}, "top_p"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"extra_body": {"min_p": 0.1}}, "min_p"),
        ({"extra_body": {"graft": {"retrieve": True}}}, "graft.retrieve"),
        ({"extra_body": {"graft": {"retrieval": False, "strict": True}}}, "graft.strict"),
        ({"extra_body": {"graft": {"draft": True}}}, "graft.draft"),
        ({"extra_body": {"temperature": "hot"}}, "temperature"),
        ({"temperature": 3.0}, "temperature"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"stop": ["x"]}, "stop"),
        ({"seed": 3, "temperature": 1.0}, "seed"),
        ({"response_format": FORMAT}, "response_format.type"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [TOOL]}]}, "messages[0].tool_calls[0].function.arguments"),
        ({"tool_choice": "required", "extra_body": {"graft": {"retrieval": False}}}, "tool_choice"),
        ({"top_logprobs": 2, "extra_body": {"graft": {"retrieval": False}}}, "top_logprobs"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **options)
    assert caught.value.param == param and caught.value.type == "invalid_request_error"
    assert caught.value.message and caught.value.request_id and caught.value.request_id.startswith("req_")


def test_neutral_values_that_clients_send_are_taken(client: openai.OpenAI) -> None:
    ask(
        client,
        "Who composed the opera about a flying ship?",
        n=1,
        top_p=1,
        presence_penalty=0,
        tools=[],
        logprobs=False,
        user="ana",
        metadata={"a": "b"},
        stream=False,
        seed=5,
        extra_body={"stop": None, "logit_bias": None},
    )


def test_a_name_is_never_a_path_or_an_address(client: openai.OpenAI, models: Path) -> None:
    weights = next(models.rglob("*.gguf"))
    names = [str(weights), "../x.gguf", "litellm/openai/http://169.254.169.254/x", "litellm/", "x" * 200]
    for name in names:
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client, model=name)
        assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_a_prompt_over_the_context_is_refused_and_not_cut(client: openai.OpenAI) -> None:
    for stream in (False, True):
        for body in (None, CLOSED):
            with pytest.raises(openai.BadRequestError) as caught:
                ask(client, f"{QUESTION} " * 600, stream=stream, extra_body=body)
            assert caught.value.code == "context_length_exceeded"


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert listed.keys() >= {MODEL, "all-minilm-l6-v2"}
    assert client.models.retrieve(MODEL) == listed[MODEL] and listed[MODEL].object == "model"
    assert client.models.retrieve("litellm/openai/gpt-4o").owned_by == "openai"
    with pytest.raises(openai.NotFoundError, match="no model named 'nope'"):
        client.models.retrieve("nope")


def test_embeddings_are_the_embedders_own(client: openai.OpenAI, served: Workspace) -> None:
    texts = ["A hotel.", "Three bicycles in a row"]
    expected = served.embedder.embed(texts)
    packed = client.embeddings.create(model="all-minilm-l6-v2", input=texts)  # base64, which the client unpacks
    plain = client.embeddings.create(model="all-minilm-l6-v2", input=texts, encoding_format="float")
    for reply in (packed, plain):
        assert [row.index for row in reply.data] == [0, 1]
        assert np.allclose([row.embedding for row in reply.data], expected, atol=1e-6)
    assert packed.usage.prompt_tokens == sum(len(served.embedder.token_offsets(text)) for text in texts)
    alone = client.embeddings.create(model="all-minilm-l6-v2", input=texts[0], dimensions=expected.shape[1])
    assert np.allclose(alone.data[0].embedding, served.embedder.embed(texts[:1])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"input": "word " * 400}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [[1, 2]]}, "input[0]"),
        ({"input": "x", "dimensions": 7}, "dimensions"),
    ],
)
def test_texts_that_would_be_cut_or_changed_are_refused(
    client: openai.OpenAI, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="all-minilm-l6-v2", **options)
    assert caught.value.param == param


def test_another_embedder_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="have all-minilm-l6-v2"):
        client.embeddings.create(model="text-embedding-3-small", input="x")


def test_search_answers_what_the_command_line_prints(url: str, served: Workspace) -> None:
    reply = httpx.post(f"{url}/search", json={"query": QUESTION, "k": 1})
    expected = [dataclasses.asdict(hit) for hit in served.search(QUESTION, k=1).hits]
    assert reply.json()["hits"] == expected and len(expected) == 1
    assert reply.json()["latency_ms"].keys() == {"embed", "search", "rerank", "total"}
    assert httpx.post(f"{url}/search", json={"query": QUESTION, "k": 0}).status_code == 400
    assert httpx.post(f"{url}/search", json={"query": "  "}).json()["error"]["message"].startswith("the question is")
    assert httpx.post(f"{url}/search", json={"query": "x", "collection": "no"}).status_code == 404


def test_the_asynchronous_client_works_too(url: str) -> None:
    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            question: Any = [{"role": "user", "content": QUESTION}]
            whole = await client.chat.completions.create(model=MODEL, messages=question, max_completion_tokens=24)
            stream = await client.chat.completions.create(
                model=MODEL, messages=question, max_completion_tokens=24, stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        return whole.choices[0].message.content or "", text

    whole, streamed = run_aside(both)
    assert whole == streamed and "140" in whole


def test_the_openapi_document_describes_every_route_with_its_failures(url: str) -> None:
    document = httpx.get(url.replace("/v1", "/openapi.json")).json()
    routes = {path: operations for path, operations in document["paths"].items() if path.startswith("/v1/")}
    conversation = "/v1/conversations/{conversation_id}"
    stores, batches = "/v1/vector_stores/{vector_store_id}", "file_batches/{batch_id}"
    assert routes.keys() == {
        "/v1/chat/completions",
        "/v1/responses",
        *(f"/v1/responses/{{response_id}}{rest}" for rest in ("", "/cancel", "/input_items")),
        *("/v1/conversations", conversation, f"{conversation}/items", f"{conversation}/items/{{item_id}}"),
        "/v1/models",
        "/v1/models/{model}",
        "/v1/embeddings",
        "/v1/search",
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/files/{file_id}/content",
        "/v1/vector_stores",
        *("/v1/users", "/v1/users/{name}", "/v1/keys", "/v1/keys/{name}", "/v1/collections/{name}/share"),
        stores,
        f"{stores}/search",
        f"{stores}/files",
        f"{stores}/files/{{file_id}}",
        f"{stores}/file_batches",
        f"{stores}/{batches}",
        f"{stores}/{batches}/files",
        f"{stores}/{batches}/cancel",
        f"{stores}/files/{{file_id}}/content",
        *(f"/v1/fine_tuning/jobs{rest}" for rest in ("", "/{job_id}", "/{job_id}/events", "/{job_id}/checkpoints")),
        *(f"/v1/fine_tuning/jobs/{{job_id}}/{verb}" for verb in ("cancel", "pause", "resume")),
        *("/v1/jobs", "/v1/jobs/{job_id}"),
        *(f"/v1/jobs/{{job_id}}/{verb}" for verb in ("cancel", "pause", "resume")),
        *("/v1/comparisons", "/v1/comparisons/{job_id}", "/v1/comparisons/{job_id}/report", "/v1/advice"),
        *("/v1/collections", "/v1/sources", "/v1/citations/resolve", "/v1/citations/page"),
    }
    for operations in routes.values():
        for operation in operations.values():
            assert operation["responses"].keys() >= {"200", "400", "401", "413", "429", "500", "502"}
            assert "422" not in operation["responses"] and operation["security"] and operation["description"]
    assert "text/event-stream" in routes["/v1/chat/completions"]["post"]["responses"]["200"]["content"]


def test_health_and_readiness_are_told(url: str) -> None:
    assert httpx.get(url.replace("/v1", "/health")).json() == {"status": "ok"}
    assert httpx.get(url.replace("/v1", "/ready")).json() == {"ready": True, "problems": []}
