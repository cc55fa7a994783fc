"""From questions and a collection to a run that learns to answer from what retrieval finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from graft.dataset.retrieval_aware import REFUSAL
from graft.errors import NotFound, TrainingError
from graft.prompting import SYSTEM
from graft.tuning import TuneRequest
from graft.workspace import Workspace
from tests.conftest import HANDBOOK, SAMPLES

pytest.importorskip("torch")


@pytest.fixture
def shelf(workspace: Workspace, tmp_path: Path) -> Workspace:
    """The sample's policies in a collection, their paths as the questions' evidence has them."""
    shutil.copytree(HANDBOOK / "policies", tmp_path / "handbook" / "policies")
    assert not workspace.add([str(tmp_path / "handbook")], collection="handbook").failed
    return workspace


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """The sample's questions about policies, and some that no document answers, as a question file."""
    rows = [json.loads(line) for line in (SAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    first = [row for row in rows if "after" not in row]
    kept = [row for row in first if row["evidence"] and all("policies/" in e["document"] for e in row["evidence"])]
    return written(tmp_path / "questions.jsonl", kept[:28] + [row for row in first if not row["evidence"]][:8])


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def request(questions: Path, **given: object) -> TuneRequest:
    values = {"name": "reader", "model": "smollm2-135m", "train": str(questions), "retrieval_aware": "handbook"}
    return TuneRequest(**{**values, "proof": "none", **given})  # type: ignore[arg-type]


def test_questions_are_made_into_examples_with_the_production_prompt_and_all_are_accounted_for(
    shelf: Workspace, questions: Path
) -> None:
    said: list[str] = []
    prepared = shelf.prepare_tuning(request(questions), tell=said.append)
    made = prepared.grounded
    assert made is not None and made.questions == 36 == sum(made.counts.values()) + sum(made.left_out.values())
    assert made.counts["ranked"] >= 5 and made.counts["removed"] >= 1
    parts = (prepared.train, prepared.dev, prepared.held_out)
    assert sum(map(len, parts)) == sum(made.counts.values()) and prepared.train and prepared.held_out
    for example in (*prepared.train, *prepared.dev, *prepared.held_out):
        assert example.prompt[0].content == SYSTEM and "<source> [1]" in example.prompt[1].content
        assert example.answer == REFUSAL or "[" in example.answer
    read = [{passage["document"] for one in part for passage in one.extra["passages"]} for part in parts]
    assert not read[0] & (read[1] | read[2])
    assert (
        f"{sum(made.counts.values())} of 36 questions are examples on the collection 'handbook'" in prepared.notes[0]
    )
    assert any(line.endswith("36 of 36 questions") for line in said)


def test_a_run_that_goes_on_takes_its_examples_up_even_if_documents_changed(
    shelf: Workspace, questions: Path, tmp_path: Path
) -> None:
    first = shelf.prepare_tuning(request(questions))
    folder = first.run.folder.parent
    kept = {path.name: path.read_bytes() for path in (folder / "retrieval-aware").iterdir()}
    assert set(kept) == {"train.jsonl", "dev.jsonl", "held-out.jsonl", "made.json"}
    for record in shelf.documents("handbook")[:5]:
        shelf.remove(record.id)
    again = shelf.prepare_tuning(request(questions))
    assert again.grounded is not None and again.grounded.taken_up and "taken up" in again.notes[0]
    assert [e.messages for e in again.train] == [e.messages for e in first.train]
    assert kept == {path.name: path.read_bytes() for path in (folder / "retrieval-aware").iterdir()}
    rows = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    written(questions, rows[:30])
    anew = shelf.prepare_tuning(request(questions))
    assert anew.grounded is not None and not anew.grounded.taken_up and anew.grounded.questions == 30
    (folder / "run").mkdir()
    written(questions, rows)
    with pytest.raises(TrainingError, match="begun with examples of other questions"):
        shelf.prepare_tuning(request(questions))


def test_examples_as_dataset_generate_writes_them_and_files_for_each_part_are_read_too(
    shelf: Workspace, questions: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    answered = [row for row in rows if row["answers"]][:12]
    chat = [
        {
            "id": row["id"],
            "messages": [
                {"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answers"][0]},
            ],
            "evidence": row["evidence"],
        }
        for row in answered
    ]  # fmt: skip
    train, dev, held_out = (
        written(tmp_path / f"{part}.jsonl", some)
        for part, some in (("t", chat), ("d", rows[20:26]), ("h", rows[26:34]))
    )
    asked = request(train, dev=str(dev), held_out=str(held_out))
    prepared = shelf.prepare_tuning(asked)
    assert prepared.grounded is not None and prepared.grounded.questions == 26
    sides = [{example.id for example in part} for part in (prepared.train, prepared.dev, prepared.held_out)]
    assert sides[0] <= {row["id"] for row in chat} and sides[1] <= {row["id"] for row in rows[20:26]}
    assert sides[0] and sides[2] and sides[2] <= {row["id"] for row in rows[26:34]}
    assert [file.role for file in prepared.files] == ["training", "dev", "held out"]


def test_a_collection_that_is_not_there_and_one_that_holds_no_answer_are_told_apart(
    shelf: Workspace, questions: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="no collection named 'nowhere'; have handbook"):
        shelf.prepare_tuning(request(questions, retrieval_aware="nowhere"))
    row = {"question": "What is the atomic weight of osmium in this alloy?", "answers": ["190.23"]}
    other = written(tmp_path / "other.jsonl", [row])
    with pytest.raises(TrainingError, match=r"0 of 1 questions.*\(1\)") as caught:
        shelf.prepare_tuning(request(other))
    assert "graft search" in caught.value.fix


@pytest.mark.slow
def test_a_queued_run_makes_its_examples_in_the_worker_and_its_card_tells_of_them(
    shelf: Workspace, questions: Path
) -> None:
    overrides = {"epochs": 0.1, "batch_size": 2, "evaluate_steps": 0, "threads": 1}
    job = shelf.tune_job(request(questions), overrides=overrides, queue=True)
    assert job.status == "queued" and not (shelf.home / "tuned").exists()
    ended = shelf.jobs.run(job.id)
    assert ended.status == "done", ended.error
    tuned = shelf.tuned_model("reader")
    made = json.loads((tuned.folder / "retrieval-aware" / "made.json").read_text(encoding="utf-8"))
    card = tuned.card.read_text(encoding="utf-8").replace("\\", "")
    assert f"{sum(made['counts'].values())} of 36 questions are examples" in card
    assert "--retrieval-aware handbook" in card
