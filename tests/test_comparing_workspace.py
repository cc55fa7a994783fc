"""Comparing with real models on the sample handbook: the command, killed and resumed, as a job, with training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graft.advising import Needs, advise, read_report
from graft.comparing.report_figures import headline
from graft.comparing.request import CompareRequest
from graft.comparing.values import Comparison
from graft.errors import NotFound
from graft.models import GenerateOptions, Message, complete
from graft.settings import Settings, TuningSettings
from graft.workspace import Workspace
from tests.conftest import HANDBOOK, SAMPLES

MODEL = "smollm2-135m"
POLICY = HANDBOOK / "policies" / "annual-leave.md"


@pytest.fixture
def leave(workspace: Workspace) -> Workspace:
    workspace.add([str(POLICY)])
    return workspace


def ask(tmp_path: Path, n: int = 3) -> Path:
    path = tmp_path / "questions.jsonl"
    lines = (SAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()[:n]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def graft(*words: str, home: Path) -> list[str]:
    return [sys.executable, "-m", "graft", "--home", str(home), *words]


@pytest.mark.slow
def test_three_questions_are_compared_with_a_warning_and_written(leave: Workspace, tmp_path: Path) -> None:
    request = CompareRequest(questions=str(ask(tmp_path)), model=MODEL)
    expected = leave.estimate_comparison(request)
    assert expected.questions == 3 and expected.cost_usd == 0.0 and expected.training == ()
    made = leave.compare(request)
    assert [arm.name for arm in made.arms] == ["base", "rag", "best-sentence", "always-first"]
    assert any("3 questions show only large differences" in words for words in made.warnings)
    assert "you can see" in made.sample
    folder = leave.comparison_folder(request)
    assert Comparison.from_json(json.loads((folder / "compare.json").read_text())) == made
    assert (folder / "report.html").is_file() and headline(made) in (folder / "report.md").read_text()
    rag = made.arm("rag")
    assert (
        rag.latency_ms.retrieve_p50
        and rag.latency_ms.total_p50
        and rag.tokens.prompt > made.arm("base").tokens.prompt
    )
    assert made.arm("base").latency_ms.retrieve_p50 is None and made.arm("base").one_time_cost_usd == 0.0
    advice = advise(Needs(), read_report(folder / "compare.json"))
    assert advice.basis == "measurement" and {one.arm for one in advice.evidence} == {arm.name for arm in made.arms}
    assert rag.cost_usd_per_1000 is None and made.arm("best-sentence").cost_usd_per_1000 == 0.0
    follow_up = made.records[1]
    assert (
        follow_up.question == "And in Port Lindley?" and follow_up.replies["always-first"].scores["contained"] == 1.0
    )
    again = leave.compare(request)
    assert again == made


@pytest.mark.slow
def test_the_base_arm_is_the_model_alone_and_rag_has_its_reader(leave: Workspace, tmp_path: Path) -> None:
    made = leave.compare(CompareRequest(questions=str(ask(tmp_path, 1)), model=MODEL, arms=("base", "rag")))
    options = GenerateOptions(max_tokens=leave.settings.answering.answer_tokens, cache_prompt=False)
    alone = complete(leave.model(MODEL), [Message("user", made.records[0].question)], options)
    assert made.records[0].replies["base"].reply == alone.text.strip()
    assert "reading adapter" in made.arm("rag").about and "reading adapter" not in made.arm("base").about


def test_a_model_or_collection_that_is_not_there_is_named_before_anything_is_asked(
    leave: Workspace, tmp_path: Path
) -> None:
    path = str(ask(tmp_path))
    with pytest.raises(NotFound, match="no model named 'gone'"):
        leave.compare(CompareRequest(questions=path, model="gone"))
    with pytest.raises(NotFound, match="no collection 'none'"):
        leave.compare(CompareRequest(questions=path, model=MODEL, collection="none"))


@pytest.mark.slow
def test_killed_and_resumed_it_gives_the_same_report(leave: Workspace, tmp_path: Path) -> None:
    home, into = leave.home, tmp_path / "out"
    words = ["compare", "--questions", str(ask(tmp_path)), "--model", MODEL, "--arms", "base,rag,always-first"]
    line = graft(*words, "--into", str(into), "--json", home=home)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    replies = into / "replies.jsonl"
    while not (replies.is_file() and replies.read_bytes().count(b"\n") >= 2) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = [line for line in replies.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 2 <= len(kept) < 9 and not (into / "compare.json").exists()
    first = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
    assert replies.read_bytes().splitlines(keepends=True)[: len(kept)] == kept
    page = (into / "report.html").read_bytes()
    second = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
    assert first == second and (into / "report.html").read_bytes() == page
    assert first["questions"] == 3 and first["recommendation"] == first["verdict"]


@pytest.mark.slow
def test_a_queued_comparison_is_done_by_a_worker(leave: Workspace, tmp_path: Path) -> None:
    request = CompareRequest(
        questions=str(ask(tmp_path, 2)), model=MODEL, arms=("always-first", "best-sentence", "base")
    )
    job = leave.queue_compare(request)
    assert job.kind == "compare" and job.status == "queued"
    done = leave.jobs.run(job.id)
    assert done.status == "done", done.error
    folder = Path(str(done.outcome()["folder"]))
    assert Comparison.from_json(json.loads((folder / "compare.json").read_text())).questions == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tuned_arms_are_trained_inside_and_not_trained_again(tmp_path: Path, models: Path) -> None:
    rows = [("lost", f"my card is lost since {day}") for day in ("monday", "tuesday", "friday", "easter", "june")]
    rows += [("late", f"the transfer to my {who} is late") for who in ("aunt", "bank", "landlord", "brother", "shop")]
    train, asked = tmp_path / "train.jsonl", tmp_path / "asked.jsonl"
    lines = [{"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": a}]} for a, t in rows]
    train.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    questions = [("lost", "i cannot find my card"), ("late", "where is the money i sent"), rows[0]]
    given = [{"question": t, "answers": [a], "kind": "label"} for a, t in questions]
    asked.write_text("".join(json.dumps(line) + "\n" for line in given), encoding="utf-8")
    settings = Settings(tuning=TuningSettings(epochs=1.0, threads=1, evaluate_steps=0))
    request = CompareRequest(
        questions=str(asked),
        train=str(train),
        model=MODEL,
        arms=("base", "tuned", "few-shot", "nearest-vote"),
        seeds=2,
    )
    with Workspace(tmp_path / "home", settings=settings) as workspace:
        made = workspace.compare(request)
        assert [arm.name for arm in made.arms] == ["base", "tuned", "tuned (seed 1)", "few-shot", "nearest-vote"]
        assert any("3 (as" in words and "learnt from train.jsonl" in words for words in made.warnings)
        tuned = made.arm("tuned")
        assert tuned.seed == 0 and tuned.one_time and tuned.one_time.train_tokens and tuned.one_time.seconds > 0
        assert made.arm("nearest-vote").metrics["score"].mean >= 0.5
        versions = len(workspace.tuned_models())
        again = workspace.compare(request)
        assert again == made and len(workspace.tuned_models()) == versions == 2
