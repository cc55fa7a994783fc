"""What stands out in the replies is said in words, and the verdict recommends nothing that is fit for nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from graft.comparing.arms import constant
from graft.comparing.citations import expected_of, recall_of
from graft.comparing.findings import findings_of
from graft.comparing.measuring import arm_of, fitness, pairs_of, records_of
from graft.comparing.report import markdown
from graft.comparing.running import Speed, ahead, ask_all, speed_of
from graft.comparing.values import SCORE, ArmReply, Comparison, Recall
from graft.comparing.verdict import verdict_of
from graft.dataset import Example
from graft.evaluation.metrics import token_f1
from graft.evaluation.questions import Question
from graft.evaluation.recording import KeptLines
from graft.evaluation.scoring import Scores
from graft.models import Message
from graft.retrieval import Hit
from graft.testing.scripted import ScriptedModel
from tests.comparison_example import example
from tests.test_comparing import contestant, experiment, kept, question, says


def hit(text: str, document: str = "a.md") -> Hit:
    return Hit(
        document=document,
        document_id="1",
        version=1,
        collection="default",
        title="",
        start=0,
        end=len(text),
        page=None,
        text=text,
        context="",
        score=1.0,
        similarity=1.0,
    )


def distinct(number: int) -> Question:
    return question(number, answer=f"{number} crates of {chr(97 + number % 26) * 5}")


def findings(replies: Callable[[Question], ArmReply], folder: Path, n: int = 20) -> str:
    questions = [distinct(i) for i in range(n)]
    arms = [contestant("tuned", replies)]
    records = records_of(questions, ask_all(arms, questions, kept(folder)).rows, Scores())
    return "\n".join(findings_of([arm_of(arms[0], records)], records))


def test_a_reply_that_is_always_the_same_is_named(tmp_path: Path) -> None:
    def mostly(asked: Question) -> ArmReply:
        return says("information" if int(asked.id[1:]) % 4 else asked.answers[0])(asked)

    told = findings(mostly, tmp_path / "same")
    assert "tuned said 'information' to 15 of 20 questions, and 6 different replies in all" in told
    assert findings(lambda asked: says(asked.answers[0])(asked), tmp_path / "right") == ""


def test_one_reply_to_all_is_no_finding_where_one_answer_is_due(tmp_path: Path) -> None:
    arms, records = experiment([contestant("right", says("8 days"))], 20, tmp_path)
    assert findings_of(arms, records) == ()


def test_declines_are_counted_and_whether_the_passages_held_the_answer(tmp_path: Path) -> None:
    def declines(asked: Question) -> ArmReply:
        number = int(asked.id[1:])
        there = Recall(expected=expected_of(asked), share=float(number % 2))
        if number < 12:
            return ArmReply(reply="", mode="abstained", total_ms=1.0, retrieve_ms=1.0, recall=there)
        return replace(says(asked.answers[0])(asked), recall=there)

    told = findings(declines, tmp_path)
    assert "tuned declined 12 of 20 questions that have an answer, 6 of them with the evidence among its" in told
    assert "before tuned on 10 of 20 questions where that can be told" in told
    assert "for q0, q2, q4, q6, q8 and 5 more it did not" in told


def test_recall_is_by_evidence_and_without_it_by_a_short_answer() -> None:
    evidence = {
        "evidence": [{"document": "a.md", "quote": "up to 8 unused days"}, {"document": "b.md", "quote": "no"}]
    }
    asked = question(0, extra=evidence)
    seen = recall_of(asked, [hit("Up to 8 unused days may be carried over."), hit("nothing", "b.md")])
    assert seen is not None and seen.share == 0.5
    bare = question(1)
    for text, share in (("It is 8 days.", 1.0), ("It is 18 days.", 0.0)):
        found = recall_of(bare, [hit(text)])
        assert found is not None and found.share == share
    assert recall_of(question(2, kind="label"), [hit("8 days")]) is None
    assert seen.expected != recall_of(question(0), []).expected  # type: ignore[union-attr]


def test_a_question_file_that_changed_is_looked_up_no_more(tmp_path: Path) -> None:
    stale = replace(says("8 days")(question(0)), recall=Recall(expected="of another file", share=1.0))
    _, records = experiment([contestant("rag", lambda _: stale)], 3, tmp_path)
    reply = records[0].replies["rag"]
    assert reply.recall is None and "context_recall" not in reply.scores


def test_the_constant_reply_is_the_one_that_fits_best() -> None:
    answers = [*(f"{which} information" for which in ("personal", "contact", "tax", "billing")), "name"]
    train = [
        Example(id=f"t{i}", messages=(Message("user", "?"), Message("assistant", answer)))
        for i, answer in enumerate(answers)
    ]
    assert constant(train, token_f1)(question(0)).reply == "information"


def test_what_is_right_less_than_half_of_the_time_is_not_recommended(tmp_path: Path) -> None:
    def at_times(asked: Question) -> ArmReply:
        return says("8 days" if int(asked.id[1:]) % 5 == 0 else "no idea at all")(asked)

    arms, records = experiment([contestant("tuned", at_times), contestant("base", says("hm"))], 60, tmp_path)
    told = verdict_of(arms, pairs_of(arms, records), fitness("tuned", records))
    assert told.startswith(
        "None of these is fit for use as it is: the best, tuned, answers 20% of the questions right."
    )
    assert "tuned is better than base by 20.0 points" in told


def test_a_right_answer_in_many_words_counts_as_right(tmp_path: Path) -> None:
    wordy = says("As far as the handbook goes, and it goes far, the days that may be carried over are 8 days.")
    (arm,), records = experiment([contestant("wordy", wordy)], 30, tmp_path)
    fit = fitness("wordy", records)
    assert arm.metrics[SCORE].mean < 0.5 and fit is not None and fit.mean == 1.0


def test_an_undecided_pair_says_how_many_questions_would_decide(tmp_path: Path) -> None:
    def every(n: int) -> Callable[[Question], ArmReply]:
        return lambda asked: says("8 days" if int(asked.id[1:]) % n else "none")(asked)

    arms, records = experiment([contestant("a", every(6)), contestant("b", every(4))], 40, tmp_path)
    told = verdict_of(arms, pairs_of(arms, records))
    assert told.startswith("Not decided: no arm is shown to be better than the others.")
    assert "points between a and b are real, about" in told and "questions would show it." in told


def test_replies_of_another_experiment_are_taken_over(tmp_path: Path) -> None:
    calls: list[str] = []

    def count(asked: Question) -> ArmReply:
        calls.append(asked.id)
        return says("8 days")(asked)

    questions = [question(i) for i in range(4)]
    arms = [contestant("one", count)]
    ask_all(arms, questions, kept(tmp_path / "first"))
    path = tmp_path / "first" / "replies.jsonl"
    path.write_bytes(path.read_bytes() + b'{"key": "being writ')
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no JSON\n")
    beside = KeptLines(tmp_path / "second" / "replies.jsonl", field="reply", beside=[broken, path])
    assert [one.kept for one in ahead(arms, questions, beside)] == [4]
    assert len(ask_all(arms, questions, beside).rows) == 4 and len(calls) == 4
    assert path.read_bytes().endswith(b"being writ"), "another experiment's file was changed"


def test_time_is_told_by_the_replies_that_are_kept_else_by_the_model_s_speed(tmp_path: Path) -> None:
    questions = [question(i) for i in range(20)]
    arm = contestant("one", says("8 days"), prompt_tokens=lambda asked: 100, reply_tokens=10)
    (unknown,) = ahead([arm], questions, kept(tmp_path))
    (timed,) = ahead([arm], questions, kept(tmp_path), speeds={"one": Speed(prompt_ms=2.0, reply_ms=30.0)})
    assert unknown.seconds is None and timed.seconds == 20 * (100 * 2.0 + 10 * 30.0) / 1000
    ask_all([arm], questions[:10], kept(tmp_path))
    (half,) = ahead([arm], questions, kept(tmp_path))
    assert half.seconds == 10 * 1.0 / 1000
    speed = speed_of(ScriptedModel(["A harbour has a lighthouse."]))
    assert speed.prompt_ms >= 0 and speed.reply_ms >= 0


def test_a_comparison_without_the_newer_fields_is_still_read() -> None:
    made = example(questions=12)
    plain = made.to_json()
    del plain["findings"]
    for arm in plain["arms"]:
        del arm["declined"]
    assert Comparison.from_json(plain).arms[0].declined == 0
    assert "What stands out" in markdown(replace(made, findings=("tuned said the same to all",)))


def test_what_another_experiment_paid_is_no_part_of_this_budget(tmp_path: Path) -> None:
    questions = [question(i) for i in range(4)]
    arms = [contestant("paid", says("8 days", 0.25))]
    ask_all(arms, questions[:3], kept(tmp_path / "first"))
    beside = KeptLines(
        tmp_path / "second" / "replies.jsonl", field="reply", beside=[tmp_path / "first" / "replies.jsonl"]
    )
    found = ask_all(arms, questions, beside, budget_usd=0.25, first_question_usd=0.25)
    assert found.partial is None and found.spent_usd == 0.25
