"""OpenAI's fine-tuning by its unchanged client: a file, a job of the server's worker, a model that is one's own."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from graft.server import in_background
from graft.server.authorising import Serving
from graft.settings import ServingSettings, load_settings
from graft.workspace import Workspace

MODEL = "smollm2-135m"
CITIES = ("Aldermoor", "Bern", "Cork", "Delft", "Esbjerg", "Faro", "Ghent", "Hull", "Imola", "Jena", "Kiel", "Lund")
EXAMPLES = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"Which warehouse serves {city}?"},
                {"role": "assistant", "content": f"WH-{len(city)}"},
            ]
        }
    )
    + "\n"
    for city in CITIES
).encode()
FINISHED = ("succeeded", "failed", "cancelled", "paused")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, dict[str, str], Serving]]:
    """The address, a key for each of three users, and the server's insides."""
    home = tmp_path_factory.mktemp("tuning") / "home"
    home.mkdir()
    (home / "graft.toml").write_text("[tuning]\ncheckpoint_steps = 1\nthreads = 1\n")  # the worker reads it, too
    with Workspace(home, settings=load_settings(home)) as workspace:
        people = workspace.identities
        for name, role in (("ana", "editor"), ("ben", "editor"), ("rob", "reader")):
            people.create_user(name, role=role)  # type: ignore[arg-type]
        keys = {name: people.create_key(name, user=name)[1] for name in ("ana", "ben", "rob")}
        with in_background(workspace, ServingSettings(port=0)) as (url, app):
            yield url, keys, app.state.serving


@pytest.fixture
def client(served: tuple[str, dict[str, str], Serving]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served[0], api_key=served[1]["ana"], max_retries=0) as opened:
        yield opened


@pytest.fixture
def others(served: tuple[str, dict[str, str], Serving]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served[0], api_key=served[1]["ben"], max_retries=0) as opened:
        yield opened


def uploaded(client: openai.OpenAI, content: bytes = EXAMPLES, purpose: Any = "fine-tune") -> str:
    return client.files.create(file=("support.jsonl", io.BytesIO(content)), purpose=purpose).id


def finished(client: openai.OpenAI, job_id: str, *, seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in FINISHED:
        assert time.monotonic() < end, f"it is {job.status}"
        time.sleep(0.5)
    return job


@pytest.mark.slow
def test_a_file_becomes_a_model_that_its_maker_alone_can_use(client: openai.OpenAI, others: openai.OpenAI) -> None:
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=uploaded(client),
        validation_file=uploaded(client, EXAMPLES[: EXAMPLES.index(b"\n") + 1].replace(b"Aldermoor", b"Madrid")),
        suffix="Support bot",
        seed=7,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 6, "learning_rate_multiplier": 0.5}},
        },
        metadata={"for": "the help desk"},
    )
    assert job.status in ("queued", "running") and job.id.startswith("tune-") and job.fine_tuned_model is None
    assert job.hyperparameters.n_epochs == 2 and job.hyperparameters.batch_size == 6 and job.seed == 7
    assert job.metadata == {"for": "the help desk"} and job.object == "fine_tuning.job"
    with pytest.raises(openai.NotFoundError) as foreign:
        others.fine_tuning.jobs.retrieve(job.id)
    with pytest.raises(openai.NotFoundError) as missing:
        others.fine_tuning.jobs.retrieve("tune-00000000")
    assert str(foreign.value).replace(job.id, "ID") == str(missing.value).replace("tune-00000000", "ID")
    done = finished(client, job.id)
    assert done.status == "succeeded", done.error
    name = done.fine_tuned_model
    assert name is not None and name.startswith(f"ft-{MODEL}-Support-bot-")
    assert done.trained_tokens and done.finished_at and done.finished_at >= done.created_at and done.error is None

    events = list(client.fine_tuning.jobs.list_events(job.id))
    assert events[0].message == "The job has successfully completed" and name in events[1].message
    assert events[-1].message == f"Created fine-tuning job: {job.id}"
    steps = [event for event in events if event.type == "metrics"]
    assert len(steps) == 4 and "training loss=" in steps[0].message
    newest = client.fine_tuning.jobs.list_events(job.id, limit=2)
    assert [event.id for event in newest.data] == [event.id for event in events[:2]] and newest.has_more
    kept = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [one.fine_tuned_model_checkpoint for one in kept] == [name] and kept[0].metrics.valid_loss is not None
    table = base64.b64decode(client.files.content(done.result_files[0]).text).decode().splitlines()
    assert table[0] == "step,train_loss,valid_loss" and len(table) == 5

    assert name in [one.id for one in client.models.list()]
    told = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "Which warehouse serves Bern?"}], max_completion_tokens=8,
        extra_body={"graft": {"retrieval": False}},
    )  # fmt: skip
    assert told.model == name and told.choices[0].message.content
    assert name not in [one.id for one in others.models.list()]
    turns: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError) as theirs:
        others.chat.completions.create(model=name, messages=turns)
    with pytest.raises(openai.NotFoundError) as nobodys:
        others.chat.completions.create(model="ft-none", messages=turns)
    assert str(theirs.value).replace(name, "M") == str(nobodys.value).replace("ft-none", "M")
    with pytest.raises(openai.NotFoundError):
        others.models.delete(name)
    assert client.models.delete(name).deleted
    assert name not in [one.id for one in client.models.list()]
    with pytest.raises(openai.NotFoundError):
        client.models.delete(MODEL)


@pytest.mark.slow
def test_a_job_is_paused_resumed_and_outlives_its_worker(
    client: openai.OpenAI, served: tuple[str, dict[str, str], Serving]
) -> None:
    many: Any = {"n_epochs": 40, "batch_size": 4}
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=uploaded(client), hyperparameters=many)

    def steps() -> int:
        return sum(event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job.id, limit=100))

    def until(condition: Any) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, client.fine_tuning.jobs.retrieve(job.id)
            time.sleep(0.2)

    until(lambda: steps() >= 2)
    worker = served[2].worker._process
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    before = steps()
    until(lambda: steps() > before)  # another worker goes on
    assert client.fine_tuning.jobs.pause(job.id).status in ("running", "paused")
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "paused")
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "running")
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "running")
    client.fine_tuning.jobs.cancel(job.id)
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "cancelled")
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.fine_tuning.jobs.cancel(job.id)
    assert job.id in [one.id for one in client.fine_tuning.jobs.list()]


@pytest.mark.slow
def test_examples_that_cannot_be_learnt_are_the_job_s_error(client: openai.OpenAI) -> None:
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=uploaded(client, b'{"no": "example"}\n'))
    done = finished(client, job.id)
    assert done.status == "failed" and done.error is not None and "/ fix:" in (done.error.message or "")
    assert "Traceback" not in (done.error.message or "") and str(Path.home()) not in (done.error.message or "")
    assert client.fine_tuning.jobs.list_events(job.id).data[0].level == "error"


@pytest.mark.parametrize(
    ("given", "kind", "named"),
    [
        ({"model": "gpt-4.1-mini"}, openai.NotFoundError, "have smollm2-135m"),
        ({"model": "../../etc/passwd"}, openai.NotFoundError, "can be tuned here"),
        ({"model": "litellm/openai/gpt-4.1-mini"}, openai.NotFoundError, "can be tuned here"),
        ({"model": "all-minilm-l6-v2"}, openai.NotFoundError, "can be tuned here"),
        ({"training_file": "file-none"}, openai.NotFoundError, "no file"),
        ({"training_file": "../../x"}, openai.NotFoundError, "no file"),
        ({"validation_file": "file-none"}, openai.NotFoundError, "no file"),
        ({"hyperparameters": {"n_epochs": 0}}, openai.BadRequestError, "n_epochs"),
        ({"hyperparameters": {"batch_size": "many"}}, openai.BadRequestError, "batch_size"),
        ({"method": {"type": "dpo"}}, openai.BadRequestError, "method.type"),
        ({"seed": -1}, openai.BadRequestError, "seed"),
        ({"suffix": "x" * 65}, openai.BadRequestError, "suffix"),
        ({"integrations": [{"type": "wandb"}]}, openai.BadRequestError, "integrations"),
        ({"method": {"type": "supervised"}, "hyperparameters": {}}, openai.BadRequestError, "not in both"),
    ],
)
def test_what_cannot_be_tuned_is_refused_by_name(
    client: openai.OpenAI, given: Any, kind: type[openai.APIStatusError], named: str
) -> None:
    file = uploaded(client)
    with pytest.raises(kind, match=named):
        client.fine_tuning.jobs.create(**{"model": MODEL, "training_file": file, **given})


def test_foreign_files_and_files_for_something_else_are_not_learnt(
    client: openai.OpenAI, others: openai.OpenAI
) -> None:
    with pytest.raises(openai.NotFoundError, match="no file"):
        others.fine_tuning.jobs.create(model=MODEL, training_file=uploaded(client))
    with pytest.raises(openai.BadRequestError, match="was uploaded for"):
        client.fine_tuning.jobs.create(model=MODEL, training_file=uploaded(client, purpose="assistants"))


def test_a_reader_starts_no_training(served: tuple[str, dict[str, str], Serving]) -> None:
    url, keys, _ = served
    for method, path in (("POST", ""), ("POST", "/x/cancel"), ("POST", "/x/pause"), ("POST", "/x/resume")):
        reply = httpx.request(
            method, f"{url}/fine_tuning/jobs{path}", json={}, headers={"Authorization": f"Bearer {keys['rob']}"}
        )
        assert reply.status_code == 403, (path, reply.text)
    assert httpx.get(f"{url}/fine_tuning/jobs").status_code == 401
