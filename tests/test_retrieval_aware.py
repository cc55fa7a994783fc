"""Questions about the sample handbook -> examples as production would retrieve for them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.answering import _REFUSAL
from graft.citing import split_claims
from graft.dataset import Example, read_examples, write_examples
from graft.dataset.retrieval_aware import REFUSAL, RetrievalAware, Shelf, part_of, retrieval_aware
from graft.dataset.retrieval_aware_evidence import evidence_of, holds_answer
from graft.models import Message
from graft.prompting import SYSTEM, grounded_prompt
from graft.settings import RetrievalAwareSettings
from graft.workspace import Workspace
from runs.reader_sets import ReaderSet, clapnq_rows, clapnq_text, held_out, reader_sets
from tests.conftest import SAMPLES

PLAIN = RetrievalAwareSettings(
    without_evidence=0.0, casual=0.0, one_passage=0.0, two_passages=0.0, prompt_tokens=2048, dev_share=0.0
)


@pytest.fixture(scope="module")
def shelf(handbook: Workspace) -> Shelf:
    return Shelf(
        store=handbook.store,
        embedder=handbook.embedder,
        principals=handbook.principals,
        count_tokens=handbook.model("smollm2-135m").count_tokens,
    )


@pytest.fixture(scope="module")
def questions() -> list[Example]:
    rows = [json.loads(line) for line in (SAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    first_turns = [row for row in rows if row["kind"] in ("short", "unanswerable") and "after" not in row]
    return [_example(row) for row in first_turns[:36] + first_turns[-6:]]


@pytest.fixture(scope="module")
def made(questions: list[Example], shelf: Shelf) -> RetrievalAware:
    settings = RetrievalAwareSettings(without_evidence=0.3, casual=0.3, dev_share=0.2)
    return retrieval_aware(questions, shelf, settings=settings, seed=1)


def _example(row: dict) -> Example:
    return Example(
        id=row["id"],
        messages=(Message("user", row["question"]), Message("assistant", (row["answers"] or ["-"])[0])),
        extra={"kind": row["kind"], "evidence": row["evidence"]},
    )


def _all(made: RetrievalAware) -> list[Example]:
    return [*made.train, *made.dev]


def test_the_refusal_is_the_one_that_the_prompt_asks_for_and_answering_recognises() -> None:
    assert SYSTEM.endswith(f"reply exactly: {REFUSAL}")
    assert _REFUSAL.match(REFUSAL)


def test_the_prompt_is_the_one_that_production_would_send(questions: list[Example], shelf: Shelf) -> None:
    made = retrieval_aware(questions[:8], shelf, settings=PLAIN)
    ranked = [example for example in made.train if example.extra["passages_from"] == "ranked"]
    for example in ranked:
        question = example.prompt[-1].content.rpartition("Question: ")[2]
        prompt = grounded_prompt(
            question,
            shelf.search(question),
            count_tokens=shelf.count_tokens,
            budget=shelf.answering.prompt_tokens,
            passages=shelf.answering.passages,
        )
        assert example.prompt == prompt.messages
    assert len(ranked) >= 4


def test_every_question_becomes_an_example_or_is_counted_with_a_reason(
    made: RetrievalAware, questions: list[Example]
) -> None:
    assert len(_all(made)) + sum(made.dropped.values()) == len(questions)
    assert Counter(e.extra["passages_from"] for e in _all(made)) == made.counts
    assert {"ranked", "removed", "unanswerable"} <= set(made.counts)


def test_an_answer_cites_the_passage_that_holds_its_evidence(made: RetrievalAware) -> None:
    checked = 0
    for example in _all(made):
        if example.answer == REFUSAL:
            continue
        (claim,) = split_claims(example.answer)
        assert claim.markers == (example.extra["position"],)
        cited = example.extra["passages"][example.extra["position"] - 1]
        assert cited["document"] in {evidence.document for evidence in evidence_of(example)}
        assert f"<source> [{example.extra['position']}]" in example.prompt[-1].content
        checked += 1
    assert checked >= 10


def test_where_the_evidence_was_taken_away_no_passage_holds_the_answer(
    made: RetrievalAware, questions: list[Example]
) -> None:
    answers = {question.id: question.answer for question in questions}
    removed = [example for example in _all(made) if example.extra["passages_from"] == "removed"]
    for example in removed:
        assert example.answer == REFUSAL
        sources = example.prompt[-1].content.rpartition("\n\nQuestion: ")[0]
        assert f" {answers[example.id].lower()} " not in sources.lower()
        assert all(" ".join(e.quote.split()) not in " ".join(sources.split()) for e in evidence_of(example))
    assert len(removed) >= 3


def test_the_share_without_evidence_is_the_one_asked_for(questions: list[Example], shelf: Shelf) -> None:
    every = dataclasses.replace(PLAIN, without_evidence=1.0)
    assert {e.answer for e in retrieval_aware(questions[:8], shelf, settings=every).train} == {REFUSAL}
    none = retrieval_aware(questions[:8], shelf, settings=PLAIN)
    assert not none.counts.get("removed")


def test_no_document_stands_on_both_sides_not_even_as_a_distractor(made: RetrievalAware) -> None:
    documents = [
        {passage["document"] for example in part for passage in example.extra["passages"]}
        for part in (made.train, made.dev)
    ]
    assert all(documents) and documents[0].isdisjoint(documents[1])
    assert {e.source for e in made.train}.isdisjoint({e.source for e in made.dev})


def test_the_same_seed_makes_the_same_examples_and_another_others(questions: list[Example], shelf: Shelf) -> None:
    settings = RetrievalAwareSettings(without_evidence=0.5, casual=0.5, dev_share=0.0)
    one, again, other = (retrieval_aware(questions[:8], shelf, settings=settings, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert _all(one) != _all(other)


def test_examples_keep_where_they_are_from_through_a_file(made: RetrievalAware, tmp_path: Path) -> None:
    write_examples(tmp_path / "made.jsonl", made.train)
    for written, read in zip(made.train, read_examples(tmp_path / "made.jsonl").examples, strict=True):
        assert (read.id, read.messages, read.source) == (written.id, written.messages, written.source)
        assert read.extra["passages"] == written.extra["passages"]
        assert read.extra["evidence"] == written.extra["evidence"]


def test_a_question_without_evidence_finds_it_by_its_answer(questions: list[Example], shelf: Shelf) -> None:
    bare = dataclasses.replace(questions[0], extra={})
    (example,) = retrieval_aware([bare], shelf, settings=PLAIN).train
    assert [evidence.document for evidence in evidence_of(example)] == ["policies/annual-leave.md"]
    assert example.source == "policies/annual-leave.md"


def test_an_answer_that_no_passage_supports_is_left_out(questions: list[Example], shelf: Shelf) -> None:
    wrong = dataclasses.replace(
        questions[0], extra={}, messages=(*questions[0].prompt, Message("assistant", "7,321 days"))
    )
    found = retrieval_aware([wrong], shelf, settings=PLAIN)
    assert not _all(found)
    assert found.dropped == {"no passage supports the answer": 1}


def test_evidence_that_retrieval_missed_is_put_in_or_declined(questions: list[Example], shelf: Shelf) -> None:
    """Asked for one thing, with the evidence of another."""
    carried = questions[0]
    document = evidence_of(carried)[0].document
    other = next(q for q in questions if q.extra["evidence"] and document not in str(q.extra["evidence"]))
    crossed = dataclasses.replace(carried, messages=(*other.prompt, Message("assistant", "8 unused days")))
    seen: Counter[str] = Counter()
    for share in (0.0, 1.0):
        settings = dataclasses.replace(PLAIN, insert_missed=share)
        found = retrieval_aware([crossed], shelf, settings=settings)
        seen.update(found.counts)
        seen.update(found.dropped)
    assert seen["missed"] == 1
    assert seen["inserted"] + seen["the passages do not support the answer"] == 1


def test_a_question_as_typed_into_a_search_box_is_searched_as_typed(questions: list[Example], shelf: Shelf) -> None:
    casual = dataclasses.replace(PLAIN, casual=1.0)
    examples = retrieval_aware(questions[:6], shelf, settings=casual).train
    assert len(examples) >= 3
    for example in examples:
        asked = example.prompt[-1].content.rpartition("Question: ")[2]
        assert asked == asked.lower() and not asked.endswith("?")


def test_follow_ups_are_left_out(questions: list[Example], shelf: Shelf) -> None:
    turns = (Message("user", "Who?"), Message("assistant", "She."), *questions[0].messages)
    found = retrieval_aware([dataclasses.replace(questions[0], messages=turns)], shelf, settings=PLAIN)
    assert found.dropped == {"it follows up an earlier question": 1}


@given(st.text(min_size=1), st.integers(0, 5))
def test_a_documents_side_never_changes_while_the_dev_share_grows(document: str, seed: int) -> None:
    sides = [part_of(document, dev_share=share / 10, seed=seed) for share in range(11)]
    assert sides[0] == "train" and sides[-1] == "dev"
    assert sides == sorted(sides, reverse=True)


def test_an_answer_is_found_as_words_not_as_letters(handbook: Workspace) -> None:
    hit = handbook.search("How many unused holiday days can I take over into next year?").hits[0]
    assert holds_answer(dataclasses.replace(hit, text="It is 18 days."), "18 days")
    assert not holds_answer(dataclasses.replace(hit, text="It is 18 days."), "8 days")


@pytest.fixture(scope="module")
def sets(data: Path) -> list[ReaderSet]:
    return list(reader_sets(data / "qa"))


def test_every_answer_the_reader_learns_stands_in_its_evidence_and_that_in_its_document(
    sets: list[ReaderSet],
) -> None:
    answered = 0
    for one in sets:
        for question in one.questions:
            for evidence in evidence_of(question):
                assert evidence.quote in one.documents[evidence.document]
                assert question.answer in evidence.quote
                answered += 1
    assert answered >= 800
    assert len({q.id for one in sets for q in one.questions}) == sum(len(one.questions) for one in sets)


def test_both_kinds_of_question_are_asked_of_the_same_encyclopaedia_passages(sets: list[ReaderSet]) -> None:
    (clapnq,) = (one for one in sets if one.name == "clapnq")
    sources = {
        kind: {q.source for q in clapnq.questions if q.extra["kind"] == kind} for kind in ("short", "unanswerable")
    }
    assert len(sources["short"]) >= 100
    assert sources["short"] <= sources["unanswerable"]


def test_the_reader_learns_nothing_that_is_reported(sets: list[ReaderSet], data: Path) -> None:
    reported = [clapnq_text(row) for row in clapnq_rows(data / "qa") if held_out(row)]
    assert 100 <= len(reported) <= 200
    articles = json.loads((data / "qa" / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    reported += [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    seen = set().union(*(_runs(text) for text in reported))
    for one in sets:
        for text in one.documents.values():
            assert _runs(text).isdisjoint(seen)


def _runs(text: str, words: int = 12) -> set[str]:
    """All runs of so many words."""
    all_words = re.findall(r"\w+", text.lower())
    return {" ".join(all_words[i : i + words]) for i in range(len(all_words) - words + 1)}
