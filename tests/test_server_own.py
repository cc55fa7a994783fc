"""Graft's own routes: jobs, comparisons, advice, collections, sources, citations; each caller's own."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from reportlab.pdfgen.canvas import Canvas

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace

MODEL = "smollm2-135m"
TRAVEL = b"# Travel\n\nA hotel may cost at most 140 EUR a night. Breakfast is paid in addition.\n"
QUESTIONS = "".join(
    json.dumps({"question": question, "answers": [answer]}) + "\n"
    for question, answer in (
        ("What may a hotel cost at most?", "140 EUR"),
        ("What is paid in addition?", "Breakfast"),
        ("For how long does the hotel price hold?", "a night"),
    )
).encode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The address and a key each; the documents are ana's alone."""
    with Workspace(tmp_path_factory.mktemp("own") / "home") as workspace:
        people = workspace.identities
        for name, role in (("ana", "editor"), ("ben", "editor"), ("rob", "reader")):
            people.create_user(name, role=role)
        people.create_user("poor", role="editor", budget_usd=1.0)
        keys = {name: people.create_key(name, user=name)[1] for name in ("ana", "ben", "rob", "poor")}
        workspace.add_hosted_model("paid", "litellm/openai/gpt-4.1-mini")
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            yield url, keys


@pytest.fixture
def ask(served: tuple[str, dict[str, str]]) -> Iterator[Any]:
    """ask(who, method, path, JSON) -> the response."""
    with httpx.Client(base_url=served[0], timeout=120) as client:
        yield lambda who, method, path, body=None: client.request(
            method, path, json=body, headers={"Authorization": f"Bearer {served[1][who]}"}
        )


def uploaded(served: tuple[str, dict[str, str]], who: str, content: bytes) -> str:
    with openai.OpenAI(base_url=served[0], api_key=served[1][who], max_retries=0) as client:
        return client.files.create(file=("questions.jsonl", io.BytesIO(content)), purpose="evals").id


@pytest.fixture(scope="module")
def store(served: tuple[str, dict[str, str]]) -> str:
    """A vector store of ana's; it is a collection, too."""
    with openai.OpenAI(base_url=served[0], api_key=served[1]["ana"], max_retries=0) as client:
        made = client.vector_stores.create(name="trips")
        client.vector_stores.files.upload_and_poll(
            vector_store_id=made.id, file=("travel.md", io.BytesIO(TRAVEL)), poll_interval_ms=100
        )
    return made.id


@pytest.mark.slow
def test_an_experiment_is_run_read_and_advised_on(
    served: tuple[str, dict[str, str]], ask: Any, store: str, tmp_path: Path
) -> None:
    body = {"questions": uploaded(served, "ana", QUESTIONS), "arms": ["rag", "best-sentence"], "collection": store}
    job = ask("ana", "POST", "/comparisons", body).json()
    assert job["kind"] == "compare" and job["status"] in ("queued", "running")
    early = ask("ana", "GET", f"/comparisons/{job['id']}")
    assert early.status_code in (200, 400)
    end = time.monotonic() + 120
    while (job := ask("ana", "GET", f"/jobs/{job['id']}").json())["status"] in ("queued", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.3)
    assert job["status"] == "done", job
    made = ask("ana", "GET", f"/comparisons/{job['id']}").json()
    assert [arm["name"] for arm in made["arms"]] == ["rag", "best-sentence"] and made["questions"] == 3
    assert made["verdict"]
    report = ask("ana", "GET", f"/comparisons/{job['id']}/report")
    assert report.text.startswith("<!doctype html>") and report.headers["content-security-policy"] == "sandbox"
    advice = ask("ana", "POST", "/advice", {"answers": {"sources": "required"}, "comparison": job["id"]}).json()
    assert advice["basis"] == "measurement" and advice["recommendation"]["arm"] == "rag"
    for path in (f"/jobs/{job['id']}", f"/comparisons/{job['id']}", f"/comparisons/{job['id']}/report"):
        foreign, missing = ask("ben", "GET", path), ask("ben", "GET", path.replace(job["id"], "compare-00000000"))
        assert foreign.status_code == missing.status_code == 404
        assert foreign.text.replace(job["id"], "ID") == missing.text.replace("compare-00000000", "ID")
    assert ask("ben", "POST", "/advice", {"comparison": job["id"]}).status_code == 404
    assert [one["id"] for one in ask("ana", "GET", "/jobs?kind=compare").json()["data"]] == [job["id"]]
    assert ask("ben", "GET", "/jobs").json() == {"object": "list", "data": [], "has_more": False}
    assert ask("ana", "POST", f"/jobs/{job['id']}/cancel").status_code == 400


def test_an_experiment_asks_nothing_that_its_caller_may_not(
    served: tuple[str, dict[str, str]], ask: Any, store: str
) -> None:
    questions = uploaded(served, "ana", QUESTIONS)
    theirs = uploaded(served, "ben", QUESTIONS)
    assert ask("ben", "POST", "/comparisons", {"questions": questions}).status_code == 404
    assert ask("rob", "POST", "/comparisons", {}).status_code == 403
    refused = ask("ana", "POST", "/comparisons", {"questions": questions, "model": "/etc/passwd"})
    assert refused.status_code == 404 and refused.json()["error"]["code"] == "model_not_found"
    refused = ask("ana", "POST", "/comparisons", {"questions": questions, "arms": ["none"]})
    assert refused.status_code == 400 and "no arm 'none'" in refused.text
    poor = ask("poor", "POST", "/comparisons", {"questions": uploaded(served, "poor", QUESTIONS), "model": "paid"})
    assert poor.status_code == 403 and "not counted against a budget" in poor.text
    job = ask("ben", "POST", "/comparisons", {"questions": theirs, "collection": store}).json()
    end = time.monotonic() + 60
    while (job := ask("ben", "GET", f"/jobs/{job['id']}").json())["status"] in ("queued", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.3)
    assert job["status"] == "failed" and "no collection" in job["error"], "ana's documents do not exist for ben"


def test_advice_without_a_measurement_goes_by_rules(ask: Any) -> None:
    given = ask("rob", "POST", "/advice", {"answers": {"knowledge": "daily", "sources": "required"}}).json()
    assert given["basis"] == "rules" and given["recommendation"]["approach"] == "retrieval"
    wrong = ask("rob", "POST", "/advice", {"answers": {"knowlege": "daily"}})
    assert wrong.status_code == 400 and "did you mean 'knowledge'" in wrong.text


def test_collections_sources_and_citations_are_the_caller_s(ask: Any, store: str) -> None:
    found = ask("ana", "GET", "/collections").json()["data"]
    assert [(one["name"], one["documents"]) for one in found if one["documents"]] == [(store, 1)]
    assert not any(one["documents"] for one in ask("ben", "GET", "/collections").json()["data"])
    sources = ask("ana", "GET", "/sources").json()["data"]
    assert [one["collection"] for one in sources] == [store]
    assert ask("ben", "GET", "/sources").json()["data"] == [] and ask("rob", "GET", "/sources").status_code == 403
    hit = ask("ana", "POST", "/search", {"query": "hotel", "collection": store}).json()["hits"][0]
    place = {name: hit[name] for name in ("document_id", "version", "start", "end")}
    quote = ask("ana", "POST", "/citations/resolve", place).json()
    assert quote["text"] == hit["text"] and quote["state"] == "current"
    foreign = ask("ben", "POST", "/citations/resolve", place)
    missing = ask("ben", "POST", "/citations/resolve", {**place, "document_id": "doc_0000000000000000"})
    assert foreign.status_code == missing.status_code == 404
    assert foreign.text.replace(place["document_id"], "ID") == missing.text.replace("doc_0000000000000000", "ID")
    assert ask("ana", "POST", "/citations/resolve", {**place, "end": 10**9}).status_code == 400


def test_a_citation_of_a_pdf_tells_where_it_stands_and_shows_the_page(
    served: tuple[str, dict[str, str]], ask: Any, tmp_path: Path
) -> None:
    canvas = Canvas(str(tmp_path / "meals.pdf"))
    canvas.drawString(72, 700, "Lunch for a guest may cost at most 31 EUR.")
    canvas.save()
    with openai.OpenAI(base_url=served[0], api_key=served[1]["ana"], max_retries=0) as client:
        store = client.vector_stores.create(name="meals")
        client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=tmp_path / "meals.pdf")
    (hit,) = ask("ana", "POST", f"/vector_stores/{store.id}/search", {"query": "lunch"}).json()["data"]
    place = {name: hit["graft"][name] for name in ("document_id", "version", "start", "end")}
    (on,) = ask("ana", "POST", "/citations/resolve", place).json()["places"]
    assert on["page"] == 1 and len(on["boxes"]) == 1 and on["boxes"][0][0] == pytest.approx(72, abs=2)
    shown = ask("ana", "POST", "/citations/page", place)
    assert shown.headers["content-type"] == "image/png" and shown.content.startswith(b"\x89PNG")
    foreign = ask("ben", "POST", "/citations/page", place)
    missing = ask("ben", "POST", "/citations/page", {**place, "document_id": "doc_0000000000000000"})
    assert foreign.status_code == missing.status_code == 404
    assert foreign.text.replace(place["document_id"], "doc_0000000000000000") == missing.text
