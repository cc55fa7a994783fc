"""What others build on OpenAI's API works here by changing the address: LangChain and LlamaIndex."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.event_loops import run_aside

MODEL, EMBEDDER = "smollm2-135m", "all-minilm-l6-v2"
QUESTION = "What may a hotel cost at most?"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[dict[str, Any]]:
    """Address and key, as these clients name them."""
    folder = tmp_path_factory.mktemp("integrations")
    (folder / "travel.md").write_text("# Travel\n\nA hotel may cost at most 140 EUR a night.\n")
    with Workspace(folder / "home") as workspace:
        workspace.add([str(folder / "travel.md")])
        key = workspace.identities.create_key("them", role="editor")[1]
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            yield {"url": url, "key": key, "workspace": workspace}


def test_langchain_asks_streams_and_follows_up(given: dict[str, Any]) -> None:
    model = ChatOpenAI(model=MODEL, base_url=given["url"], api_key=given["key"], max_retries=0)
    reply = model.invoke(QUESTION)
    assert "140 EUR" in reply.text and reply.usage_metadata is not None and reply.usage_metadata["input_tokens"] > 0
    streamed = "".join(chunk.text for chunk in model.stream(QUESTION))
    assert streamed == reply.text
    turns = [HumanMessage(QUESTION), AIMessage(reply.text), HumanMessage("For how long?")]
    assert model.invoke(turns).text

    async def scenario() -> str:
        return (await model.ainvoke(QUESTION)).text

    assert run_aside(scenario) == reply.text


def test_langchain_searches_files_through_the_responses_api(given: dict[str, Any]) -> None:
    workspace = given["workspace"]
    store = workspace.create_vector_store(name="travel")
    with (workspace.home.parent / "travel.md").open("rb") as content:
        file = workspace.put_file("travel.md", content, purpose="assistants", most_bytes=10_000)
    workspace.attach_file(store.id, file.id)
    workspace.index_file(store.id, file.id)
    model = ChatOpenAI(
        model=MODEL, base_url=given["url"], api_key=given["key"], use_responses_api=True, max_retries=0
    ).bind_tools([{"type": "file_search", "vector_store_ids": [store.id]}])
    reply = model.invoke(QUESTION)
    assert "140 EUR" in reply.text
    cited = [one for block in reply.content if isinstance(block, dict) for one in block.get("annotations", ())]
    assert any(one["type"] == "file_citation" and one["filename"] == "travel.md" for one in cited)


def test_langchain_embeds_as_the_library_does(given: dict[str, Any]) -> None:
    embedder = OpenAIEmbeddings(
        model=EMBEDDER, base_url=given["url"], api_key=given["key"], check_embedding_ctx_length=False
    )
    (vector,) = embedder.embed_documents(["A hotel"])
    assert vector == pytest.approx(given["workspace"].embedder.embed(["A hotel"])[0].tolist(), abs=1e-6)
    assert len(embedder.embed_query("A hotel")) == len(vector)


def test_llamaindex_asks_chats_and_streams(given: dict[str, Any]) -> None:
    model = OpenAILike(
        model=MODEL,
        api_base=given["url"],
        api_key=given["key"],
        is_chat_model=True,
        context_window=2048,
        max_retries=0,
    )
    reply = model.complete(QUESTION)
    assert "140 EUR" in reply.text
    assert "140 EUR" in str(model.chat([ChatMessage(role="user", content=QUESTION)]).message.content)
    pieces = list(model.stream_chat([ChatMessage(role="user", content=QUESTION)]))
    assert pieces[-1].message.content == reply.text


def test_llamaindex_embeds_as_the_library_does(given: dict[str, Any]) -> None:
    embedder = OpenAILikeEmbedding(model_name=EMBEDDER, api_base=given["url"], api_key=given["key"])
    vector = embedder.get_text_embedding("A hotel")
    assert vector == pytest.approx(given["workspace"].embedder.embed(["A hotel"])[0].tolist(), abs=1e-6)
