"""What an export is held against: the run's own held-out prompts and the task's metric."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from graft.dataset import Example
from graft.models import Message
from graft.testing.scripted import ScriptedModel
from graft.training.parity import LEAST_PROMPTS, parity
from graft.tuning import TuneRequest, read_check
from graft.tuning.held_out import MOST_PROMPTS, held_out_questions, keep_held_out
from graft.workspace import Workspace

TOPICS = {"card": "My card {} has not arrived.", "rate": "Which rate {} applies?", "pin": "I forgot my pin {}."}


def example(number: int, prompt: str, answer: str, **extra: object) -> Example:
    return Example(id=str(number), messages=(Message("user", prompt), Message("assistant", answer)), extra=extra)


def count_words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def messages(count: int) -> list[Example]:
    topics = list(TOPICS.items())
    return [example(number, topics[number % 3][1].format(number), topics[number % 3][0]) for number in range(count)]


def test_an_export_that_is_worse_at_the_task_fails_with_the_difference_in_figures(tmp_path: Path) -> None:
    given = messages(30)
    keep_held_out(held_out_questions(given, train=given), tmp_path)
    check = read_check(tmp_path, count_words)
    assert len(check.prompts) == 30 and "accuracy" in check.words
    right = [example.answer for example in given]
    worse = ScriptedModel(["card"] * 30)
    report = parity(ScriptedModel(right), worse, check.prompts, check.metric, least_agreement=0.0)
    assert not report.passed and "from 1.000 to 0.333 (-0.667" in report.words
    same = parity(ScriptedModel(right), ScriptedModel(right), check.prompts, check.metric)
    assert same.passed and "the metric is 1.000 and 1.000" in same.words


def test_each_kind_of_question_is_scored_by_a_figure_of_its_own(tmp_path: Path) -> None:
    given = [
        example(1, "How many days?", "8 days [1].", kind="short", passages_from="ranked"),
        example(2, "Who pays?", "Not in the documents.", kind="unanswerable", passages_from="removed"),
        example(3, "As JSON", '{"a": [1]}', kind="json"),
    ]
    keep_held_out(held_out_questions(given, train=()), tmp_path)
    check = read_check(tmp_path, count_words)
    assert check.metric is not None and check.words == "3 held-out prompts, abstained and field_f1 and token_f1"
    assert [check.metric(i, said.answer) for i, said in enumerate(given)] == [1.0, 1.0, 1.0]
    assert check.metric(0, "8 days") == 1.0  # without its citation it is right too
    assert [check.metric(i, "nonsense") for i in range(3)] == [0.0, 0.0, 0.0]


def test_only_as_many_prompts_are_compared_as_a_few_minutes_allow(tmp_path: Path) -> None:
    long = [example(1000, "word " * 3000, "card")]
    given = [*long, *messages(MOST_PROMPTS + 20)]
    keep_held_out(held_out_questions(given, train=given), tmp_path)
    check = read_check(tmp_path, count_words)
    assert len(check.prompts) == MOST_PROMPTS and all(count_words(prompt) < 100 for prompt in check.prompts)
    for kept in ([], long):
        keep_held_out(held_out_questions(kept, train=given), tmp_path)
        check = read_check(tmp_path, count_words)
        assert check.prompts == () and check.metric is None and "general prompts" in check.words


def test_replies_may_be_as_long_as_the_task_s_answers(tmp_path: Path) -> None:
    keep_held_out(held_out_questions([example(1, "Report", '{"a": "' + "long " * 90 + '"}')], train=()), tmp_path)
    assert 90 < read_check(tmp_path, count_words).reply_tokens < 100
    keep_held_out(held_out_questions(messages(3), train=()), tmp_path)
    assert read_check(tmp_path, count_words).reply_tokens == 32


@pytest.mark.slow
def test_a_run_s_held_out_prompts_and_metric_prove_its_export(workspace: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "messages.jsonl"
    lines = [{"prompt": one.prompt[0].content, "completion": one.answer} for one in messages(45)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    request = TuneRequest(name="topics", model="smollm2-135m", train=str(path), proof="none")
    tuned = workspace.tune(request, overrides={"epochs": 0.1, "batch_size": 4, "threads": 1})
    said: list[str] = []
    result = workspace.export("topics", to="adapter", tell=said.append)
    held_out = (tuned.folder / "held-out.jsonl").read_text(encoding="utf-8").splitlines()
    assert result.parity.passed and result.parity.prompts == max(len(held_out), LEAST_PROMPTS) and len(held_out) > 1
    assert result.parity.metric is not None and "the metric is" in result.parity.words
    assert said[0] == f"adapter is to be held against the adapter on {len(held_out)} held-out prompts, accuracy"
