"""Comparing: which questions may be asked, what is kept, what follows from the figures."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from graft.comparing.arms import Contestant, FromQuestion, shared_system
from graft.comparing.asked import screened
from graft.comparing.citations import cited, with_evidence
from graft.comparing.measuring import arm_of, judged_pairs, pairs_of, records_of, sample_words
from graft.comparing.request import CompareRequest, arms_of
from graft.comparing.running import GIVE_UP, ArmEstimate, Metered, ahead, ask_all, require_budget
from graft.comparing.values import SCORE, Arm, ArmReply, Comparison, Record, ShownCitation
from graft.comparing.verdict import verdict_of
from graft.dataset import Example
from graft.errors import ModelError, UsageError
from graft.evaluation.questions import Question
from graft.evaluation.recording import KeptLines
from graft.evaluation.scoring import Scores
from graft.evaluation.sql import SqlRunner
from graft.evaluation.statistics import compare, holm, percentiles, permutation_test
from graft.models import Message, Usage
from graft.testing.scripted import ScriptedModel

RUNS = 2_000


def question(number: int, answer: str = "8 days", **given: object) -> Question:
    text = f"What is the rule about {'abcdefghijklmnopqrstuvwxyz'[number % 26] * 9} number {number}?"
    values = {"messages": (Message("user", text),), "answers": (answer,), "kind": "short", "extra": {}, **given}
    return Question(id=f"q{number}", **values)  # type: ignore[arg-type]


def contestant(name: str, replies: Callable[[Question], ArmReply], **given: object) -> Contestant:
    return Contestant(name=name, model=name, about="", configuration=name, replies=replies, **given)  # type: ignore[arg-type]


def says(text: str, cost: float | None = None) -> Callable[[Question], ArmReply]:
    return lambda _: ArmReply(reply=text, mode="model", total_ms=1.0, cost_usd=cost)


def fails(_: Question) -> ArmReply:
    raise ModelError("it is away", fix="wait")


def cited_range(document: str, quote: str, *, opposed: bool = False) -> ShownCitation:
    return ShownCitation(
        claim=quote,
        verdict="supported",
        document=document,
        start=0,
        end=1,
        page=None,
        quote=quote,
        opposed=opposed,
        evidence=None,
    )


def kept(folder: Path) -> KeptLines:
    return KeptLines(folder / "replies.jsonl", field="reply")


def experiment(arms: Sequence[Contestant], n: int, folder: Path) -> tuple[list[Arm], tuple[Record, ...]]:
    questions = [question(i) for i in range(n)]
    records = records_of(questions, ask_all(arms, questions, kept(folder)).rows, Scores())
    return [arm_of(one, records) for one in arms], records


def test_duplicates_leaks_and_questions_without_answers_are_left_out_by_name() -> None:
    long = "Until which day of the next year may unused holidays be carried over, and how many of them at most?"
    leaked, nearly = question(1), question(2, messages=(Message("user", long),))
    plain = "".join(turn.content for turn in leaked.messages)
    close = long.replace("at most", "at the most")
    train = [
        Example(id="t1", messages=(Message("user", plain.upper()), Message("assistant", "x"))),
        Example(id="t2", messages=(Message("user", close), Message("assistant", "x"))),
    ]
    again = replace(question(0), id="again")
    given = [question(0), again, leaked, nearly, question(3, answer=" "), question(4)]
    found = screened(given, {"train.jsonl": train}, near_duplicate=0.8)
    assert [one.id for one in found.questions] == ["q0", "q4"]
    told = "\n".join(found.warnings)
    assert "again (as q0)" in told and "q3: without an answer" in told
    assert "q1 (as t1), q2 (as t2): learnt from train.jsonl" in told
    with pytest.raises(UsageError, match="q1"):
        screened([leaked], {"train.jsonl": train}, near_duplicate=0.8)


def test_a_follow_up_in_the_same_words_is_another_question() -> None:
    turns = (Message("user", "And abroad?"),)
    first = question(0, messages=(Message("user", "Leave?"), Message("assistant", "8"), *turns))
    other = question(1, messages=(Message("user", "Notice?"), Message("assistant", "4 weeks"), *turns))
    assert len(screened([first, other], {}, near_duplicate=0.8).questions) == 2


def test_a_failed_question_is_a_result_and_a_failing_arm_does_not_stop_the_others(tmp_path: Path) -> None:
    calls = []

    def away(asked: Question) -> ArmReply:
        calls.append(asked.id)
        return fails(asked)

    (broken, right), records = experiment(
        [contestant("broken", away), contestant("right", says("8 days"))], 30, tmp_path
    )
    assert broken.failed == 30 and broken.error and "it is away" in broken.error
    assert len(calls) == GIVE_UP
    assert broken.metrics[SCORE].mean == 0 and right.metrics[SCORE].mean == 1
    assert len(records) == 30
    pairs = pairs_of([broken, right], records)
    assert verdict_of([broken, right], pairs).startswith("right is the only arm")


def test_an_arm_that_fails_at_times_is_asked_on(tmp_path: Path) -> None:
    def at_times(asked: Question) -> ArmReply:
        return fails(asked) if int(asked.id[1:]) % 2 else says("8 days")(asked)

    (arm,), _ = experiment([contestant("at times", at_times)], 30, tmp_path)
    assert arm.failed == 15 and arm.metrics[SCORE].mean == 0.5 and arm.error is None


def test_what_was_kept_is_not_asked_again_and_gives_the_same_records(tmp_path: Path) -> None:
    calls = []

    def count(asked: Question) -> ArmReply:
        calls.append(asked.id)
        return replace(says("8 days")(asked), total_ms=float(len(calls)))

    arms = [contestant("one", count), contestant("two", says("9 days"))]
    questions = [question(i) for i in range(6)]
    whole = ask_all(arms, questions, kept(tmp_path / "whole")).rows
    calls.clear()
    ask_all(arms, questions[:3], kept(tmp_path / "cut"))
    file = tmp_path / "cut" / "replies.jsonl"
    file.write_bytes(file.read_bytes()[:-20])  # killed while writing
    again = ask_all(arms, questions, kept(tmp_path / "cut")).rows
    assert calls == ["q0", "q1", "q2", "q3", "q4", "q5"]
    assert again == whole
    changed = [replace(arms[0], configuration="another model"), arms[1]]
    ask_all(changed, questions, kept(tmp_path / "cut"))
    assert len(calls) == 12


def test_a_budget_stops_between_questions_and_never_overdraws(tmp_path: Path) -> None:
    arms = [contestant("paid", says("8 days", 0.25)), contestant("free", says("8 days", 0.0))]
    questions = [question(i) for i in range(8)]
    found = ask_all(arms, questions, kept(tmp_path), budget_usd=1.0, first_question_usd=0.25)
    assert found.spent_usd == 1.0 and len(found.rows) == 4
    assert found.partial and "after 4 of 8" in found.partial
    more = ask_all(arms, questions, kept(tmp_path), budget_usd=9.0, first_question_usd=0.25)
    assert more.partial is None and more.spent_usd == 2.0


def test_a_budget_of_zero_with_a_paid_model_and_an_unknown_price_are_refused(tmp_path: Path) -> None:
    dear = contestant(
        "dear", says("x"), prompt_tokens=lambda q: 10, reply_tokens=5, price=lambda t: t.input_tokens * 1e-3
    )
    local = contestant("local", says("x"))
    estimates = ahead([dear, local], [question(i) for i in range(7)], kept(tmp_path))
    assert [one.cost_usd for one in estimates] == [pytest.approx(0.07), 0.0]
    require_budget(estimates, None)
    require_budget(estimates, 1.0)
    require_budget(estimates[1:], 0.0)
    with pytest.raises(UsageError, match="budget is 0 and the arm 'dear'"):
        require_budget(estimates, 0.0)
    with pytest.raises(UsageError, match="price of the arm 'dear' is unknown"):
        require_budget([replace(estimates[0], cost_usd=None)], 5.0)


def test_a_judge_stops_at_its_budget() -> None:
    class Paid(ScriptedModel):
        def stream(self, messages, options):  # type: ignore[no-untyped-def]
            reply = yield from super().stream(messages, options)
            return replace(reply, cost_usd=0.6)

    from graft.models import complete

    judge = Metered(Paid(["yes"] * 9), 1.0)
    for _ in range(2):
        complete(judge, [Message("user", "?")])
    with pytest.raises(ModelError, match="budget"):
        complete(judge, [Message("user", "?")])


def test_a_clear_difference_is_named_and_equal_arms_differ_in_nothing(tmp_path: Path) -> None:
    arms, records = experiment(
        [contestant("good", says("8 days")), contestant("same", says("8 days")), contestant("bad", says("no idea"))],
        30,
        tmp_path,
    )
    pairs = pairs_of(arms, records)
    verdicts = {(p.a, p.b): p.verdict for p in pairs if p.metric == SCORE}
    assert verdicts == {
        ("good", "same"): "no significant difference",
        ("good", "bad"): "better",
        ("same", "bad"): "better",
    }
    assert verdict_of(arms, pairs) == (
        "Not decided between good and same, which lead. good is better than bad by 100.0 points. Between good and "
        "same there is no significant difference."
    )
    assert sample_words(arms, records).startswith("with 30 questions you can see")
    assert all(-1 <= p.low <= p.difference <= p.high <= 1 for p in pairs)


def test_the_verdict_says_what_a_better_arm_takes_and_which_of_equals_is_lightest(tmp_path: Path) -> None:
    def timed(text: str, ms: float, cost: float | None) -> Callable[[Question], ArmReply]:
        return lambda _: ArmReply(reply=text, mode="model", total_ms=ms, cost_usd=cost)

    def verdict(*given: tuple[str, str, float, float | None]) -> str:
        ways = [contestant(name, timed(text, ms, cost)) for name, text, ms, cost in given]
        arms, records = experiment(ways, 30, tmp_path / given[0][0] / given[1][0])
        return verdict_of(arms, pairs_of(arms, records))

    assert verdict(("slow", "8 days", 6000.0, 0.004), ("quick", "9 weeks", 1000.0, 0.001)) == (
        "Use slow. slow is better than quick by 100.0 points ($4.00 instead of $1.00 for 1,000 questions and 6.0 s "
        "instead of 1.0 s a question)."
    )
    assert verdict(("a", "8 days", 6000.0, None), ("b", "8 days", 900.0, None)).endswith(
        "difference, and b is the fastest of them (900 ms for half of the questions against 6.0 s of a)."
    )
    assert verdict(("c", "8 days", 900.0, 0.004), ("d", "8 days", 6000.0, 0.001)).endswith(
        "and d is the cheapest of them ($1.00 for 1,000 questions against $4.00 of c)."
    )


def test_an_arm_is_not_praised_for_what_needs_no_model(tmp_path: Path) -> None:
    control = contestant("best-sentence", says("8 days"), control=True)
    other = contestant("always-first", says("8 days"), control=True)
    arms, records = experiment([contestant("rag", says("8 days")), control, other], 10, tmp_path)
    pairs = pairs_of(arms, records)
    assert {(p.a, p.b) for p in pairs} == {("rag", "best-sentence"), ("rag", "always-first")}
    told = verdict_of(arms, pairs)
    assert told.startswith("Use no model yet: none is shown to be better than best-sentence, which needs none.")
    assert "rag is not shown to be better than best-sentence and always-first" in told


def test_more_conflicts_are_worse(tmp_path: Path) -> None:
    def with_claim(opposed: bool) -> Callable[[Question], ArmReply]:
        place = cited_range("a.md", "x", opposed=opposed)
        return lambda _: ArmReply(reply="x", mode="generated", retrieve_ms=1.0, citations=(place,))

    arms, records = experiment(
        [contestant("denies", with_claim(True)), contestant("agrees", with_claim(False))], 12, tmp_path
    )
    (pair,) = [p for p in pairs_of(arms, records) if p.metric == "conflicts"]
    assert pair.difference == 1.0 and pair.verdict == "worse"


def test_citations_are_held_against_the_evidence() -> None:
    evidence = [("a.md", "Up to 8 unused days may be carried over."), ("b.md", "Notice is four weeks.")]
    reply = ArmReply(
        reply="",
        mode="generated",
        retrieve_ms=1.0,
        citations=(
            cited_range("a.md", "8 unused days may be carried over"),
            cited_range("c.md", "Notice is four weeks."),
        ),
    )
    told = with_evidence(reply, evidence)
    assert [one.evidence for one in told.citations] == [True, False]
    figures = cited(told, evidence)
    assert figures["citation_precision"] == 0.5 and figures["citation_recall"] == 0.5
    assert cited(replace(told, retrieve_ms=None), evidence) == {}


def test_a_judge_decides_between_arms_and_one_that_talks_nonsense_is_counted(tmp_path: Path) -> None:
    arms, records = experiment([contestant("a", says("8 days")), contestant("b", says("9 days"))], 3, tmp_path)
    (judged,) = judged_pairs(arms, records, ScriptedModel(["A", "B"] * 3))
    assert judged.preference and judged.preference.mean == 1.0 and judged.agreement and judged.agreement.mean == 1.0
    (nonsense,) = judged_pairs(arms, records, ScriptedModel(["banana"] * 6))
    assert nonsense.preference is None and nonsense.failed == 3


def test_few_shot_shows_the_nearest_examples_within_the_context() -> None:
    train = [
        Example(
            id=str(i), messages=(Message("system", "Label it."), Message("user", text), Message("assistant", label))
        )
        for i, (text, label) in enumerate(
            [("my card is lost", "lost"), ("the weather", "other"), ("card arrival", "card")]
        )
    ]
    assert shared_system(train) == "Label it."
    asked = question(0, messages=(Message("user", "lost my card"),))
    model = ScriptedModel(["lost"] * 3, context_tokens=60)
    FromQuestion(model, system="Label it.", max_tokens=10, examples=train)(asked)
    turns = [(turn.role, turn.content) for turn in model.prompts[0]]
    assert turns[0] == ("system", "Label it.") and turns[-1] == ("user", "lost my card")
    assert turns[-3:-1] == [("user", "my card is lost"), ("assistant", "lost")]  # the nearest stands last
    narrow = ScriptedModel(["lost"], context_tokens=20)
    FromQuestion(narrow, system="Label it.", max_tokens=10, examples=train)(asked)
    assert narrow.count_tokens(narrow.prompts[0]) <= 10


def test_an_arm_without_what_it_needs_is_refused_and_left_out_by_default() -> None:
    request = CompareRequest(questions="q.jsonl", model="m")
    assert arms_of(request, documents=True, questions_to_learn=False)[0] == (
        "base",
        "rag",
        "best-sentence",
        "always-first",
    )
    taken, left_out = arms_of(request, documents=False, questions_to_learn=False)
    assert taken == ("base",) and left_out["rag"] == "graft add FOLDER" and len(left_out) == 10
    trained = replace(request, train="t.jsonl", retrieval_aware="reader")
    assert len(arms_of(trained, documents=True, questions_to_learn=False)[0]) == 11
    with pytest.raises(UsageError, match="'tuned' needs a tuned model"):
        arms_of(replace(request, arms=("base", "tuned")), documents=True, questions_to_learn=False)
    with pytest.raises(UsageError, match="no arm 'ragged'"):
        CompareRequest(questions="q.jsonl", model="m", arms=("ragged",))


def test_an_estimate_counts_only_what_is_not_kept(tmp_path: Path) -> None:
    one = contestant(
        "one", says("x"), prompt_tokens=lambda q: 100, reply_tokens=10, price=lambda t: float(t.output_tokens)
    )
    questions = [question(i) for i in range(10)]
    ask_all([one], questions[:4], kept(tmp_path))
    (found,) = ahead([one], questions, kept(tmp_path))
    assert found == ArmEstimate(arm="one", questions=10, kept=4, prompt_tokens=600, reply_tokens=60, cost_usd=60.0)
    assert one.price is not None and one.price(Usage(1, 2)) == 2.0


def test_intervals_of_a_known_difference_cover_it_in_2000_experiments() -> None:
    """Scores of arms that are alike because some questions are harder; all experiments share their resamples."""
    random, n, resamples, true = np.random.default_rng(11), 60, 2_000, 0.1
    hard = random.normal(0, 0.2, (RUNS, n))
    differences = (0.6 + hard + random.normal(0, 0.15, (RUNS, n))) - (0.5 + hard + random.normal(0, 0.15, (RUNS, n)))
    weights = random.multinomial(n, [1 / n] * n, size=resamples) / n
    means = differences @ weights.T
    ends = [percentiles(row, n) for row in means]
    covered = sum(low <= true <= high for low, high in ends) / RUNS
    assert 0.93 <= covered <= 0.97
    shown = compare(differences[0], np.zeros(n))
    assert (shown.low, shown.high) == pytest.approx(ends[0], abs=0.01)


def test_false_alarms_among_six_equal_arms_stay_under_five_per_cent_in_2000_experiments() -> None:
    random, n, arms, resamples = np.random.default_rng(12), 60, 6, 999
    hard = random.random((RUNS, 1, n))
    scores = (0.5 * hard + 0.5 * random.random((RUNS, arms, n)) > 0.5).astype(float)
    pairs = list(combinations(range(arms), 2))
    differences = np.stack([scores[:, a] - scores[:, b] for a, b in pairs], axis=1)  # (RUNS, pairs, n)
    signs = 1.0 - 2.0 * random.integers(0, 2, (n, resamples))
    sums = np.abs(differences.reshape(-1, n) @ signs)
    observed = np.abs(differences.reshape(-1, n).sum(axis=1))[:, None]
    p = ((1 + (sums >= observed - 1e-9).sum(axis=1)) / (1 + resamples)).reshape(RUNS, len(pairs))
    alarms = sum(min(holm(list(row))) < 0.05 for row in p) / RUNS
    assert alarms < 0.05
    assert (p < 0.05).any(axis=1).mean() > 0.15  # without the correction they would be many
    assert permutation_test(differences[0, 0]) == pytest.approx(p[0, 0], abs=0.05)


def test_a_comparison_survives_its_json(tmp_path: Path) -> None:
    arms, records = experiment([contestant("a", says("8 days")), contestant("b", fails)], 3, tmp_path)
    told = {"version": 1, "created": "now", "settings": {"command": "graft compare"}, "kinds": {"short": 3}}
    words = {"warnings": ("few",), "sample": "", "verdict": "", "partial": None, "cost_usd": None}
    made = Comparison(
        **told, **words, questions=3, arms=tuple(arms), pairs=pairs_of(arms, records), judged=(), records=records
    )
    assert Comparison.from_json(json.loads(json.dumps(made.to_json()))) == made
    with pytest.raises(UsageError, match="version 9"):
        Comparison.from_json({"version": 9})
    with pytest.raises(UsageError, match="no comparison"):
        Comparison.from_json({"version": 1})


def test_sql_counts_as_right_by_the_rows_it_returns(tmp_path: Path) -> None:
    database = tmp_path / "states.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE city (name TEXT, people INT)")
        connection.executemany("INSERT INTO city VALUES (?, ?)", [("Reno", 5), ("Elko", 2)])
        connection.commit()
    asked = [question(0, "SELECT name FROM city ORDER BY people DESC LIMIT 1", kind="sql")]
    said = "SELECT name FROM city WHERE people = (SELECT max(people) FROM city)"
    replied = ask_all([contestant("one", says(said))], asked, kept(tmp_path / "kept"))
    with SqlRunner(database) as runner:
        executed = records_of(asked, replied.rows, Scores(runner=runner))
    assert executed[0].replies["one"].scores[SCORE] == 1.0
    assert records_of(asked, replied.rows, Scores())[0].replies["one"].scores[SCORE] == 0.0
