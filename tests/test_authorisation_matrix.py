"""Every route, by every kind of caller, for what is theirs, another's and nobody's.

The routes are walked, so that a new one fails here until it has a line in BODIES or takes no body. Whatever another
owns must be answered as if it did not exist: same status, same words, same headers. A word planted in everything
that ana owns must never reach anybody else.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from graft.errors import AccessDenied, NotFound
from graft.models.specs import ModelSpec
from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace

MODEL = "smollm2-135m"
SECRET = "zanzibar"
"""Stands in every name, text and metadata of ana's."""

MISSING = "0" * 24
TURNS = [{"role": "user", "content": "Where is the ledger?"}]
RANGE = {"version": 1, "start": 0, "end": 5}

ASKED = {"model": MODEL, "messages": TURNS}
OWN: dict[str, Any] = {"name": "mine"}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/chat/completions"): {"model": MODEL, "messages": TURNS, "max_tokens": 4},
    ("POST", "/v1/responses"): {"model": MODEL, "input": "Where is the ledger?", "max_output_tokens": 16},
    ("POST", "/v1/responses/{response_id}/cancel"): {},
    ("POST", "/v1/conversations"): {},
    ("POST", "/v1/conversations/{conversation_id}"): {"metadata": {"a": "b"}},
    ("POST", "/v1/conversations/{conversation_id}/items"): {"items": [{"role": "user", "content": "x"}]},
    ("POST", "/v1/embeddings"): {"model": "all-minilm-l6-v2", "input": "ledger"},
    ("POST", "/v1/search"): {"query": "ledger"},
    ("POST", "/v1/files"): None,  # a form: refused before anything is looked up
    ("POST", "/v1/vector_stores"): OWN,
    ("POST", "/v1/vector_stores/{vector_store_id}"): OWN,
    ("POST", "/v1/vector_stores/{vector_store_id}/search"): {"query": "ledger"},
    ("POST", "/v1/vector_stores/{vector_store_id}/files"): {"file_id": "file-" + MISSING},
    ("POST", "/v1/vector_stores/{vector_store_id}/files/{file_id}"): {"attributes": {"a": 1}},
    ("POST", "/v1/vector_stores/{vector_store_id}/file_batches"): {"file_ids": ["file-" + MISSING]},
    ("POST", "/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel"): {},
    ("POST", "/v1/fine_tuning/jobs"): {"model": MODEL, "training_file": "file-" + MISSING},
    **{
        ("POST", f"/v1/{jobs}/{{job_id}}/{verb}"): {}
        for jobs in ("jobs", "fine_tuning/jobs")
        for verb in ("cancel", "pause", "resume")
    },
    ("POST", "/v1/comparisons"): {"questions": "file-" + MISSING, "arms": ["base"]},
    ("POST", "/v1/advice"): {},
    ("POST", "/v1/users"): {"name": "taken", "role": "nobody"},
    ("POST", "/v1/users/{name}"): {"role": "nobody"},
    ("POST", "/v1/keys"): {"name": "taken", "role": "nobody"},
    ("POST", "/v1/collections/{name}/share"): {"readers": ["group:service"]},
    ("POST", "/v1/citations/resolve"): {"document_id": "doc_" + MISSING, **RANGE},
    ("POST", "/v1/citations/page"): {"document_id": "doc_" + MISSING, **RANGE},
}
"""What each route is sent; what it names does not exist."""

NAMED_IN_BODIES: tuple[tuple[str, str, str, Any], ...] = (
    # kind of the object that is named, method, path, body with the id as @
    ("vector_store", "POST", "/v1/chat/completions", {**ASKED, "graft": {"collection": "@"}}),
    ("collection", "POST", "/v1/chat/completions", {**ASKED, "graft": {"collection": "@"}}),
    ("model", "POST", "/v1/chat/completions", {"model": "@", "messages": TURNS, "graft": {"retrieval": False}}),
    ("vector_store", "POST", "/v1/search", {"query": "ledger", "collection": "@"}),
    ("collection", "POST", "/v1/search", {"query": "ledger", "collection": "@"}),
    (
        *("vector_store", "POST", "/v1/responses"),
        {"model": MODEL, "input": "x", "tools": [{"type": "file_search", "vector_store_ids": ["@"]}]},
    ),
    ("response", "POST", "/v1/responses", {"model": MODEL, "input": "x", "previous_response_id": "@"}),
    ("conversation", "POST", "/v1/responses", {"model": MODEL, "input": "x", "conversation": "@"}),
    ("model", "POST", "/v1/responses", {"model": "@", "input": "x"}),
    ("file", "POST", "/v1/vector_stores", {"file_ids": ["@"]}),
    ("file", "POST", "/v1/vector_stores/{mine}/files", {"file_id": "@"}),
    ("file", "POST", "/v1/vector_stores/{mine}/file_batches", {"file_ids": ["@"]}),
    ("file", "POST", "/v1/fine_tuning/jobs", {"model": MODEL, "training_file": "@"}),
    ("model", "POST", "/v1/fine_tuning/jobs", {"model": "@", "training_file": "file-" + MISSING}),
    ("file", "POST", "/v1/comparisons", {"questions": "@", "arms": ["base"]}),
    ("comparison", "POST", "/v1/advice", {"comparison": "@"}),
    ("document", "POST", "/v1/citations/resolve", {"document_id": "@", **RANGE}),
    ("document", "POST", "/v1/citations/page", {"document_id": "@", **RANGE}),
)

CALLERS = ("ben", "rob", "adm", "service")
"""Another tenant's editor, a reader, an administrator, a service: none of them may see what is ana's."""

SEEN_BY_ADMINISTRATORS = ("/v1/jobs", "/v1/fine_tuning/jobs", "/v1/models", "/v1/users", "/v1/keys")
"""Who operates the server must be able to end a job, to remove a model, and to put somebody out. Not to read what a
comparison made."""


@dataclass
class World:
    """One server with everything that ana owns in it."""

    app: FastAPI
    root: str
    keys: dict[str, str]
    owned: dict[str, str] = field(default_factory=dict)
    mine: dict[str, str] = field(default_factory=dict)

    def ask(self, who: str | None, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {} if who is None else {"Authorization": f"Bearer {self.keys.get(who, who)}"}
        return httpx.request(method, self.root + path, headers=headers, json=body, timeout=60)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("matrix")
    (folder / f"{SECRET}.md").write_text(f"# {SECRET}\n\nThe {SECRET} ledger is kept in the green safe.\n")
    with Workspace(folder / "home") as workspace:
        people = workspace.identities
        for name, role in (("ana", "editor"), ("ben", "editor"), ("rob", "reader"), ("adm", "admin")):
            people.create_user(name, role=role)
        keys = {name: people.create_key(name, user=name, role="admin")[1] for name in ("ana", "ben", "rob", "adm")}
        keys["service"] = people.create_key("service", acts_as=["group:service"], role="editor")[1]
        ana = workspace.acting_as(["user:ana"])
        ana.add([str(folder / f"{SECRET}.md")], collection=SECRET)
        weights = next(models.rglob("*.gguf"))
        tuned = ModelSpec(name=f"{SECRET}-model", kind="file", target=str(weights), owners=("user:ana",))
        workspace.store.put_model(tuned.name, dataclasses.asdict(tuned))
        with in_background(workspace, ServingSettings(port=0, worker=False)) as (url, app):
            made = World(app, url.removesuffix("/v1"), keys)
            fill(made, url, ana)
            yield made


def fill(world: World, url: str, ana: Workspace) -> None:
    """Give ana one of everything, and every other caller a vector store of their own."""
    rows = [{"messages": [*TURNS, {"role": "assistant", "content": f"In {SECRET} {n}."}]} for n in range(12)]
    examples = "\n".join(json.dumps(row) for row in rows).encode()
    with openai.OpenAI(base_url=url, api_key=world.keys["ana"], max_retries=0) as client:
        file = client.files.create(
            file=(f"{SECRET}.md", io.BytesIO(b"The ledger, " + SECRET.encode())), purpose="evals"
        )
        store = client.vector_stores.create(name=SECRET, metadata={"of": SECRET})
        batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[file.id])
        tuning = client.files.create(file=(f"{SECRET}.jsonl", io.BytesIO(examples)), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model=MODEL, training_file=tuning.id, suffix=SECRET)
        answer = client.responses.create(
            model=MODEL, input=f"Say {SECRET}.", max_output_tokens=16, metadata={"of": SECRET}
        )
        said: Any = {"type": "message", "role": "user", "content": SECRET}
        conversation = client.conversations.create(metadata={"of": SECRET}, items=[said])
        item = client.conversations.items.list(conversation.id).data[0]
    questions = json.dumps({"question": f"Where is {SECRET}?", "answers": ["safe"]}).encode()
    upload = httpx.post(
        f"{url}/files",
        headers={"Authorization": f"Bearer {world.keys['ana']}"},
        data={"purpose": "evals"},
        files={"file": (f"{SECRET}-questions.jsonl", questions)},
    ).json()["id"]
    compared = world.ask("ana", "POST", "/v1/comparisons", {"questions": upload, "arms": ["base"]}).json()
    for who in ("ana", *CALLERS):
        if who != "rob":
            world.mine[who] = world.ask(who, "POST", "/v1/vector_stores", {"name": "own"}).json()["id"]
    world.owned.update(
        file=file.id,
        vector_store=store.id,
        batch=batch.id,
        response=answer.id,
        conversation=conversation.id,
        item=str(item.id),
        fine_tuning_job=job.id,
        job=compared["id"],
        comparison=compared["id"],
        collection=SECRET,
        user=f"{SECRET}-user",
        document=ana.documents(SECRET)[0].id,
        model=f"{SECRET}-model",
    )


KINDS = {
    "file_id": "file",
    "vector_store_id": "vector_store",
    "batch_id": "batch",
    "response_id": "response",
    "conversation_id": "conversation",
    "item_id": "item",
    "model": "model",
}


def kind_of(path: str, parameter: str) -> str:
    if parameter == "name":
        return "collection" if "collections" in path else "user"
    if parameter == "job_id":
        return "fine_tuning_job" if "fine_tuning" in path else "comparison" if "comparisons" in path else "job"
    return KINDS[parameter]


def missing_of(id: str) -> str:
    """An id of the same form that nobody has."""
    hexadecimal = re.search(r"[0-9a-f]{16,}$", id)
    return "nobodys" if hexadecimal is None else id[: hexadecimal.start()] + "0" * len(hexadecimal[0])


def routes(world: World) -> list[tuple[str, str]]:
    document = world.app.openapi()["paths"]
    walked = [(method.upper(), path) for path, methods in document.items() for method in methods]
    return [(method, path) for method, path in walked if path.startswith("/v1")]


def named(world: World, path: str, *, missing: bool) -> str:
    for parameter in re.findall(r"{(\w+)}", path):
        id = world.owned[kind_of(path, parameter)]
        path = path.replace(f"{{{parameter}}}", missing_of(id) if missing else id)
    return path


def untold(world: World, path: str, reply: httpx.Response) -> str:
    """A reply's text without the names that the caller asked for by, which it may say again in quotes."""
    text = reply.text
    for parameter in re.findall(r"{(\w+)}", path):
        text = text.replace(f"'{world.owned[kind_of(path, parameter)]}'", "")
    return text


def told(reply: httpx.Response, *ids: str) -> tuple[int, str, list[str]]:
    """Status, words and headers, without what differs between any two answers."""
    words = reply.text
    for id in sorted(ids, key=len, reverse=True):
        words = words.replace(id, "@")
    return reply.status_code, words, sorted(name for name in reply.headers if name not in ("date", "x-request-id"))


def test_every_route_that_takes_a_body_has_one_here(world: World) -> None:
    walked = [(method, path) for method, path in routes(world) if method == "POST"]
    assert {*walked} == {*BODIES}, {*walked} ^ {*BODIES}


def test_nobody_without_a_key_gets_past_any_route(world: World) -> None:
    for method, path in routes(world):
        for who in (None, "graft-wrong"):
            reply = world.ask(who, method, named(world, path, missing=False), BODIES.get((method, path)))
            assert reply.status_code == 401 and SECRET not in reply.text, (method, path)


def test_the_owner_reaches_what_is_theirs(world: World) -> None:
    for method, path in routes(world):
        if method != "GET" or "{" not in path:
            continue
        reply = world.ask("ana", method, named(world, path, missing=False))
        if path.startswith(("/v1/users", "/v1/keys")):
            continue
        if path.startswith("/v1/comparisons"):  # it waits
            assert reply.status_code == 400 and "queued" in reply.text, (path, reply.text)
        else:
            assert reply.status_code == 200, (path, reply.text)


@pytest.mark.parametrize("who", CALLERS)
def test_what_is_anothers_is_answered_as_what_is_nobodys(world: World, who: str) -> None:
    for method, path in routes(world):
        if who == "adm" and path.startswith(SEEN_BY_ADMINISTRATORS):
            continue
        foreign, missing = named(world, path, missing=False), named(world, path, missing=True)
        body = BODIES.get((method, path))
        replies = [world.ask(who, method, one, body) for one in (foreign, missing)]
        for reply in replies:
            assert SECRET not in untold(world, path, reply), (who, method, path, reply.text)
            assert SECRET not in str(reply.headers), (who, method, path)
            assert reply.status_code < 500, (who, method, path, reply.text)
        if "{" in path:
            ids = [*world.owned.values(), *map(missing_of, world.owned.values())]
            assert told(replies[0], *ids) == told(replies[1], *ids), (who, method, path)
            assert replies[0].status_code in (403, 404), (who, method, path, replies[0].text)


@pytest.mark.parametrize("who", CALLERS)
def test_naming_anothers_in_a_body_is_naming_nobodys(world: World, who: str) -> None:
    for kind, method, path, body in NAMED_IN_BODIES:
        if who == "adm" and kind == "model":
            continue
        id = world.owned[kind]
        mine = path.replace("{mine}", world.mine.get(who, world.mine["ben"]))
        sent = [json.loads(json.dumps(body).replace("@", one)) for one in (id, missing_of(id))]
        foreign, missing = (world.ask(who, method, mine, one) for one in sent)
        assert told(foreign, id, missing_of(id)) == told(missing, id, missing_of(id)), (who, method, path, kind)
        assert foreign.status_code in (400, 403, 404), (who, method, path, kind, foreign.text)


TALK = ("/v1/responses", "/v1/conversations")
"""What somebody was answered is their own, a reader's too."""


def test_a_reader_is_refused_wherever_something_would_change(world: World) -> None:
    reads = ("/search", "/chat/completions", "/embeddings", "/responses", "/advice", "/resolve", "/page")
    for method, path in routes(world):
        changes = method != "GET" and not path.endswith(reads) and not path.startswith(TALK)
        reply = world.ask("rob", method, named(world, path, missing=False), BODIES.get((method, path)))
        assert (reply.status_code == 403) == (changes or path in ("/v1/sources", "/v1/users", "/v1/keys")), (
            method,
            path,
            reply.text,
        )


def test_everything_of_anas_is_still_there_and_unchanged(world: World) -> None:
    for kind in ("file", "vector_store", "response", "job"):
        reply = world.ask("ana", "GET", f"/v1/{kind}s/{world.owned[kind]}")
        assert reply.status_code == 200 and SECRET in reply.text, (kind, reply.text)
    found = world.ask("ana", "POST", "/v1/search", {"query": f"Where is the {SECRET} ledger?"}).json()["hits"]
    assert SECRET in found[0]["text"]
    tuning = world.ask("ana", "GET", f"/v1/fine_tuning/jobs/{world.owned['fine_tuning_job']}").json()
    assert tuning["status"] not in ("cancelled", "paused")


def test_an_administrator_sees_that_a_job_is_there_and_ends_it_but_not_what_it_made(world: World) -> None:
    job = world.owned["comparison"]
    assert world.ask("adm", "GET", f"/v1/jobs/{job}").status_code == 200
    assert world.ask("adm", "GET", f"/v1/comparisons/{job}").status_code == 404
    assert world.ask("adm", "POST", f"/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
    assert world.ask("adm", "GET", f"/v1/models/{world.owned['model']}").status_code == 200


def test_what_is_shared_is_found_and_stays_its_owners(world: World, tmp_path: Path) -> None:
    with Workspace(Path(world.app.state.serving.workspace.home)) as workspace:
        workspace.acting_as(["user:ana"]).share_collection(SECRET, ["group:service"])
    found = world.ask("service", "POST", "/v1/search", {"query": "Where is the ledger?", "collection": SECRET})
    assert SECRET in found.text
    document = {"document_id": world.owned["document"], **RANGE}
    assert world.ask("service", "POST", "/v1/citations/resolve", document).status_code == 200
    assert world.ask("service", "GET", f"/v1/files/{world.owned['file']}").status_code == 404
    assert SECRET not in world.ask("ben", "POST", "/v1/search", {"query": "Where is the ledger?"}).text


def test_a_collection_is_its_makers_and_not_their_groups(tmp_path: Path, models: Path) -> None:
    """Everybody is in group:everyone: a collection that were its too would be everybody's to change."""
    (tmp_path / "plan.md").write_text("# Plan\n\nThe plan is blue.\n")
    with Workspace(tmp_path / "home") as workspace:
        ana, eva = (
            workspace.acting_as([f"user:{name}", "group:everyone", "group:hr"], owns=[f"user:{name}"])
            for name in ("ana", "eva")
        )
        ana.add([str(tmp_path / "plan.md")], collection="plans")
        for share in (False, True):
            if share:
                ana.share_collection("plans", ["group:hr"])
            with pytest.raises(AccessDenied):
                eva.add([str(tmp_path / "plan.md")], collection="plans")
            with pytest.raises((AccessDenied, NotFound)):
                eva.share_collection("plans", ["user:mal"])
            with pytest.raises((AccessDenied, NotFound)):
                eva.remove_collection("plans")
            assert len(eva.documents()) == share
        eva.add([str(tmp_path / "plan.md")], collection="eva")
        assert len(ana.documents()) == 1 and len(eva.documents()) == 2
