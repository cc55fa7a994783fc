"""From a file of examples to a model that is served, measured and exported: as the documentation tells it."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graft.errors import TrainingError, UsageError
from graft.tuning import TuneRequest
from graft.workspace import Workspace
from tests.conftest import HANDBOOK, SAMPLES

PAGE = Path(__file__).parent.parent / "docs" / "tuning.md"
LABELS = 4


@pytest.fixture
def messages(data: Path, tmp_path: Path) -> Path:
    """Real customers' messages of a few kinds, as a CSV."""
    with (data / "finetune" / "banking77" / "train.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = sorted({row["category"] for row in rows})[:LABELS]
    path = tmp_path / "messages.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "category"])
        writer.writeheader()
        for kind in kinds:
            writer.writerows([row for row in rows if row["category"] == kind][:24])
    return path


def request(messages: Path, **given: object) -> TuneRequest:
    mapping = {"prompt": "text", "answer": "category"}
    values = {"name": "support", "model": "smollm2-135m", "train": str(messages), "mapping": mapping, **given}
    return TuneRequest(**values)  # type: ignore[arg-type]


def commands(section: int) -> list[str]:
    """The page's commands, by section; 0 is what stands before the first heading of the second rank."""
    text = PAGE.read_text(encoding="utf-8").split("\n## ")[section]
    return re.findall(r"^    (graft [^\n]*)", text, re.MULTILINE)


def run(line: str, folder: Path, models: Path, *more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GRAFT_HOME": str(folder / "home"), "GRAFT_MODELS": str(models)}
    words = [sys.executable, "-m", "graft", *shlex.split(line)[1:], *more]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}: {done.stdout[-2000:]} {done.stderr}"
    return done


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_page_s_commands_do_what_it_says(messages: Path, models: Path) -> None:
    lines = commands(0)
    assert len(lines) >= 10
    short = {
        "tune": ["--set", "epochs=0.5", "--set", "threads=1", "--questions", "3"],
        "evaluate": ["--limit", "3"],
        "regress": ["--limit", "1"],
    }
    folder = messages.parent
    said = {line: run(line, folder, models, *short.get(shlex.split(line)[1], [])) for line in lines}
    (exported,) = (done for line, done in said.items() if line.startswith("graft export"))
    assert re.search(r"\d+ held-out prompts, accuracy", exported.stderr) and "the metric is" in exported.stdout
    assert (folder / "exports" / "support-q8_0.gguf").is_file()
    card = (folder / "home" / "tuned" / "support" / "1" / "card.md").read_text(encoding="utf-8")
    assert "accuracy" in card and "nearest" in card and "graft tune" in card


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_s_commands_make_a_model_that_answers_from_documents(tmp_path: Path, models: Path) -> None:
    shutil.copytree(HANDBOOK / "policies", tmp_path / "handbook" / "policies")
    asked = [
        line for line in (SAMPLES / "questions.jsonl").read_text("utf-8").splitlines() if '"policies/annual' in line
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(asked) + "\n", encoding="utf-8")
    added, ahead, tuned, answered = commands(1)
    assert "9 added" in run(added, tmp_path, models).stdout
    tiny = ["--set", "epochs=0.1", "--set", "batch_size=2", "--set", "threads=1", "--proof", "none"]
    assert f"of {len(asked)} questions are examples" in run(ahead, tmp_path, models, *tiny).stderr
    assert "were made before and are taken up" in run(tuned, tmp_path, models, *tiny).stderr
    answer = json.loads(run(answered, tmp_path, models, "--json").stdout)
    assert answer["model"] == "handbook-reader" and answer["hits"][0]["document"].startswith("policies/")


def test_looking_ahead_trains_nothing_and_shows_what_would_be_learnt(workspace: Workspace, messages: Path) -> None:
    prepared = workspace.prepare_tuning(request(messages))
    shown = prepared.preflight.examples[0]
    learnt = "".join(token.text for token in shown.tokens if token.learnt)
    assert learnt.startswith(prepared.train[0].answer) and learnt.rstrip().endswith("<|im_end|>")
    sides = [{example.id for example in part} for part in (prepared.train, prepared.dev, prepared.held_out)]
    assert all(sides) and not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]
    workspace.prepare_tuning(request(messages, proof="none"))
    assert [path.name for path in (workspace.home / "tuned" / "support").iterdir()] == ["1"]
    again = workspace.prepare_tuning(request(messages))
    assert [e.id for e in again.held_out] == [e.id for e in prepared.held_out]
    assert workspace.tuned_models() == []


def test_a_job_that_was_paused_goes_on_to_the_same_model(workspace: Workspace, messages: Path) -> None:
    overrides = {"epochs": 0.5, "checkpoint_steps": 1, "threads": 1}

    def pause_early(job: object) -> None:
        if getattr(job, "done", 0) >= 1 and getattr(job, "status", "") == "running":
            workspace.jobs.pause(getattr(job, "id"))  # noqa: B009 - the callback's type is an object here

    job = workspace.tune_job(request(messages, proof="none"), overrides=overrides, progress=pause_early)
    assert job.status == "paused"
    workspace.jobs.resume(job.id)
    ended = workspace.jobs.run(job.id)
    assert ended.status == "done", ended.error
    tuned = workspace.tuned_model("support")
    curve = [json.loads(line) for line in (tuned.folder / "run" / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve] == list(range(1, len(curve) + 1))
    assert workspace.tuned_model("support@1") == tuned
    assert {"support", "support@1"} <= {model.name for model in workspace.models()}


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"model": "litellm/anthropic/claude"}, UsageError, "no fine-tuning API"),
        ({"name": "../x"}, UsageError, "cannot name"),
        ({"train": "/nowhere.jsonl"}, Exception, "nowhere"),
    ],
)
def test_what_cannot_be_tuned_is_refused_by_name(
    workspace: Workspace, messages: Path, given: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        workspace.prepare_tuning(request(messages, **given))


def test_a_line_that_is_no_example_stops_it_before_anything_is_trained(workspace: Workspace, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\nnot json\n'
    )
    with pytest.raises(TrainingError, match="line 2"):
        workspace.prepare_tuning(TuneRequest(name="x", model="smollm2-135m", train=str(bad)))
