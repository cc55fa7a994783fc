"""A Model Context Protocol client, over standard input and over HTTP, as whoever it calls."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.event_loops import run_aside

SECRET = "The zanzibar ledger is kept in the green safe."
PAY = "# Pay\n\nThe managing director is paid 912,000 EUR a year.\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, dict[str, str], Workspace]]:
    """The address of the tools, and keys: ana may add, rob may read, ben has documents of his own."""
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "pay.md").write_text(PAY)
    with Workspace(folder / "home") as workspace:
        people = workspace.identities
        for name, role in (("ana", "editor"), ("ben", "editor"), ("rob", "reader")):
            people.create_user(name, role=role)
        keys = {name: people.create_key(name, user=name)[1] for name in ("ana", "ben", "rob")}
        keys["spent"] = people.create_key("spent", user="ana", tokens_per_day=1)[1]
        ben = workspace.acting_as(["user:ben"])
        ben.add([str(folder / "pay.md")], collection="pay")
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            yield url.replace("/v1", "/mcp"), keys, workspace


@asynccontextmanager
async def over_http(url: str, key: str, **options: Any) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), **options) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(home: Path, models: Path, *words: str) -> AsyncIterator[Client]:
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "graft", "mcp", "--home", str(home), *words],
        env={**os.environ, "GRAFT_MODELS": str(models)},
    )
    async with Client(stdio_client(command)) as client:
        yield client


def asked(scenario: Callable[[Client], Awaitable[Any]], url: str, key: str, **options: Any) -> Any:
    async def run() -> Any:
        async with over_http(url, key, **options) as client:
            return await scenario(client)

    return run_aside(run)


def text_of(result: Any) -> str:
    return "\n".join(part.text for part in result.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_of_either_protocol_adds_finds_asks_and_lists(
    served: tuple[str, dict[str, str], Workspace], mode: str
) -> None:
    url, keys, _ = served

    async def scenario(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools.keys() == {"search", "ask", "list", "add"}
        assert tools["search"].annotations is not None and tools["search"].annotations.read_only_hint
        assert tools["add"].annotations is not None and not tools["add"].annotations.read_only_hint
        added = await client.call_tool("add", {"text": SECRET, "name": "ledger.md", "collection": "safe"})
        assert added.structured_content is not None and added.structured_content["added"] == 1, added
        found = (await client.call_tool("search", {"query": "Where is the ledger?", "limit": 3})).structured_content
        assert found is not None and found["passages"][0]["text"] == SECRET
        reply = (await client.call_tool("ask", {"question": "Where is the ledger kept?"})).structured_content
        assert reply is not None and reply["answered"] and "green safe" in reply["answer"]
        assert reply["citations"][0]["verdict"] == "supported" and reply["citations"][0]["quote"] in SECRET
        listed = (await client.call_tool("list", {"collection": "safe", "limit": 1})).structured_content
        assert listed is not None and listed["documents"][0]["document"] == "ledger.md"

    asked(scenario, url, keys["ana"], mode=mode)


def test_the_documents_of_another_do_not_exist(served: tuple[str, dict[str, str], Workspace]) -> None:
    url, keys, _ = served

    async def scenario(client: Client) -> list[str]:
        calls = (
            ("search", {"query": "What is the managing director paid?"}),
            ("search", {"query": "What is the managing director paid?", "collection": "pay"}),
            ("ask", {"question": "What is the managing director paid?"}),
            ("list", {}),
            ("add", {"text": "Mine now", "name": "a.md", "collection": "pay"}),
        )
        return [text_of(await client.call_tool(name, given)) for name, given in calls]

    foreign = asked(scenario, url, keys["ana"])
    assert not any("912" in one or "pay.md" in one for one in foreign)
    assert "no collection named 'pay'" in foreign[1]
    assert "912,000" in asked(scenario, url, keys["ben"])[0]


def test_a_reader_may_not_add_and_a_spent_key_may_not_ask(served: tuple[str, dict[str, str], Workspace]) -> None:
    url, keys, workspace = served
    before = len(workspace.objects.all("file"))

    async def add(client: Client) -> Any:
        return await client.call_tool("add", {"text": "x", "name": "x.md"})

    refused = asked(add, url, keys["rob"])
    assert refused.is_error and "rob is reader; this needs editor" in text_of(refused)
    assert len(workspace.objects.all("file")) == before

    async def ask(client: Client) -> Any:
        first = await client.call_tool("ask", {"question": "Where is the ledger?"})
        return first, await client.call_tool("ask", {"question": "Where is the ledger?"})

    first, second = asked(ask, url, keys["spent"])
    assert not first.is_error and second.is_error and "tokens a day" in text_of(second)


def test_no_location_leads_into_the_machine_or_its_network(served: tuple[str, dict[str, str], Workspace]) -> None:
    url, keys, workspace = served
    files = len(workspace.objects.all("file"))
    locations = ("/etc/passwd", "../../etc/passwd", "file:///etc/passwd", str(workspace.home), "~/.ssh/id_rsa")
    addresses = ("http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://0/")

    async def scenario(client: Client) -> None:
        for location in locations:
            refused = await client.call_tool("add", {"location": location, "collection": "tried"})
            assert refused.is_error and "no folder that may be read" in text_of(refused), location
        for address in addresses:
            result = await client.call_tool("add", {"location": address, "collection": "tried"})
            assert result.structured_content is not None and result.structured_content["added"] == 0, address
            assert result.structured_content["failed"], address
        for wrong in (
            {},
            {"text": "a", "location": "https://example.org"},
            {"text": "a", "name": ".."},
            {"text": ""},
        ):
            assert (await client.call_tool("add", wrong)).is_error, wrong
        named = await client.call_tool("add", {"text": "Climbing", "name": "../../up.md", "collection": "tried"})
        assert named.structured_content is not None and named.structured_content["added"] == 1

    asked(scenario, url, keys["ana"])
    assert not list(workspace.home.parent.glob("**/../up.md")) and len(workspace.objects.all("file")) == files + 1
    for kept in workspace.home.rglob("up.md"):
        assert workspace.home / "files" in kept.parents


def test_wrong_calls_are_answered_in_words_and_nothing_breaks(served: tuple[str, dict[str, str], Workspace]) -> None:
    url, keys, _ = served
    calls = (
        ("search", {"query": ""}, "query"),
        ("search", {"query": "x", "limit": 1000}, "limit"),
        ("ask", {"question": "x" * 10_001}, "question"),
        ("ask", {"question": "x", "model": "/etc/passwd"}, "no model named"),
        ("list", {"after": "doc_nope"}, "to begin at"),
        ("nope", {}, "nope"),
    )

    async def scenario(client: Client) -> None:
        for name, given, words in calls:
            result = await client.call_tool(name, given)
            assert result.is_error and words in text_of(result) and "Traceback" not in text_of(result), name
        assert not (await client.call_tool("list", {})).is_error

    asked(scenario, url, keys["ana"])


def test_over_http_every_message_needs_its_key_and_no_other_sites_page_may_ask(
    served: tuple[str, dict[str, str], Workspace],
) -> None:
    url, keys, _ = served
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"Accept": "application/json, text/event-stream"}
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.post(url, json=body, headers={**accept, **headers}).status_code == 401
    mine = {**accept, "Authorization": f"Bearer {keys['ana']}"}
    assert httpx.post(url, json=body, headers={**mine, "Origin": "https://evil.example"}).status_code == 403
    assert httpx.get(url, headers=mine).status_code == 405
    for content in (b"", b"{", b"[]", b"\xff", b'{"jsonrpc": "2.0"}', b"[" * 10_000):
        reply = httpx.post(url, content=content, headers={**mine, "Content-Type": "application/json"})
        assert 400 <= reply.status_code < 500, content[:20]


def test_a_program_gets_the_tools_over_standard_input_and_reads_only_the_folder_it_was_given(
    tmp_path: Path, models: Path
) -> None:
    given, other = tmp_path / "given", tmp_path / "other"
    for folder in (given, other):
        folder.mkdir()
        (folder / "ledger.md").write_text(SECRET)
    (given / "out.md").symlink_to(other / "ledger.md")

    async def scenario() -> None:
        async with over_stdio(tmp_path / "home", models, "--folder", str(given)) as client:
            done = await client.call_tool("add", {"location": str(given / "ledger.md")})
            assert done.structured_content is not None and done.structured_content["added"] == 1
            for outside in (str(other / "ledger.md"), "../other/ledger.md", "out.md"):
                refused = await client.call_tool("add", {"location": outside})
                assert refused.is_error and "lies in no folder" in text_of(refused), outside
            found = (await client.call_tool("search", {"query": "ledger"})).structured_content
            assert found is not None and len(found["passages"]) == 1
        async with over_stdio(tmp_path / "home", models, "--read-only") as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"search", "ask", "list"}

    run_aside(scenario)
