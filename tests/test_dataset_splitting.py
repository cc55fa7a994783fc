"""What is related stays on one side, labels keep their shares, and a split once made is kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.dataset import Example, read_examples, write_examples
from graft.dataset.checking import Against, check
from graft.dataset.dedupe import dedupe
from graft.dataset.near import PERMUTATIONS, components, jaccard, near_links, signatures, stacked
from graft.dataset.splitting import PARTS, load_split, related, split_examples, split_file
from graft.errors import GraftError, UsageError
from graft.evaluation.questions import read_questions
from graft.models import Message
from graft.workspace import Workspace
from tests.conftest import SAMPLES

FRACTIONS = (0.8, 0.1, 0.1)


def example(number: int, asked: str, answer: str, source: str | None = None) -> Example:
    turns = (Message("user", asked), Message("assistant", answer))
    return Example(id=str(number), messages=turns, source=source, origin=f"made:{number}")


def unlike(number: int) -> str:
    """A text that has next to nothing in common with that of another number."""
    letters = np.random.default_rng(number).integers(97, 123, size=60)
    return "".join(map(chr, letters))


CASES = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from("abc"), st.none() | st.integers(0, 8)), min_size=12, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(0, 5))
def test_no_id_is_lost_or_twice_and_no_group_is_divided(cases: list[tuple[int, str, int | None]], seed: int) -> None:
    examples = [
        example(row, unlike(text), label, None if source is None else f"doc{source}")
        for row, (text, label, source) in enumerate(cases)
    ]
    groups = related(examples)
    if len(groups) < 3:
        return
    split = split_examples(examples, fractions=FRACTIONS, seed=seed)
    everywhere = [id for part in PARTS for id in split.ids[part]]
    assert sorted(everywhere) == sorted(e.id for e in examples)
    assert all(split.ids[part] for part in PARTS)
    part_of = {id: part for part in PARTS for id in split.ids[part]}
    for key in ("source", "text"):
        sides: dict[object, set[str]] = {}
        for e in examples:
            name = e.source if key == "source" else e.prompt[0].content
            if name is not None:
                sides.setdefault(name, set()).add(part_of[e.id])
        assert all(len(parts) == 1 for parts in sides.values())
    assert split == split_examples(examples, fractions=FRACTIONS, seed=seed)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=6), st.integers(0, 5))
def test_unrelated_examples_keep_each_labels_share(sizes: list[int], seed: int) -> None:
    labels = [f"label{number}" for number, size in enumerate(sizes) for _ in range(size)]
    examples = [example(row, unlike(row), label) for row, label in enumerate(labels)]
    split = split_examples(examples, fractions=FRACTIONS, seed=seed)
    label_of = {e.id: e.answer for e in examples}
    stratified = len(sizes) <= len(examples) / 4 and len(examples) >= 10
    for part, fraction in zip(PARTS, FRACTIONS, strict=True):
        assert abs(len(split.ids[part]) - fraction * len(examples)) <= 2
        counts = Counter(label_of[id] for id in split.ids[part])
        for number, size in enumerate(sizes):
            assert not stratified or abs(counts[f"label{number}"] - fraction * size) <= 2


def test_another_seed_gives_another_split() -> None:
    examples = [example(row, unlike(row), "ab"[row % 2]) for row in range(100)]
    assert split_examples(examples, seed=1) != split_examples(examples, seed=2)
    assert split_examples(examples, seed=1).ids["test"] != split_examples(examples, seed=2).ids["test"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_examples(tmp_path / "all.jsonl", [example(row, unlike(row), "ab"[row % 2]) for row in range(50)])
    return tmp_path / "all.jsonl"


def test_a_split_is_frozen_beside_the_file_and_used_again(file: Path) -> None:
    first = split_file(file, seed=7)
    told = json.loads(first.frozen.read_text())
    assert first.frozen.name == "all.jsonl.splits.json" and told["seed"] == 7 and len(told["sha256"]) == 64
    for part in PARTS:
        assert [e.id for e in read_examples(first.files[part]).examples] == told[part]
    assert read_examples(first.files["test"]).examples[0].extra["origin"].startswith("made:")
    again = split_file(file, seed=7)
    assert again.reused and not first.reused and again.split == first.split == load_split(first.frozen)
    with pytest.raises(UsageError, match="--seed 7"):
        split_file(file, seed=8)


def test_a_changed_file_is_not_split_by_its_old_lists(file: Path) -> None:
    split_file(file)
    with file.open("a") as more:
        more.write(json.dumps({"prompt": "new", "completion": "a"}) + "\n")
    with pytest.raises(GraftError, match="changed since"):
        split_file(file)
    assert sum(map(len, split_file(file, renew=True).split.ids.values())) == 51


def test_a_damaged_list_and_wrong_shares_are_refused(file: Path) -> None:
    frozen = split_file(file).frozen
    told = json.loads(frozen.read_text())
    frozen.write_text(json.dumps({**told, "dev": told["train"]}))
    with pytest.raises(UsageError, match="twice"):
        split_file(file)
    frozen.write_text("[]")
    with pytest.raises(UsageError, match="not a frozen split"):
        split_file(file)
    for shares in ((0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.5, -0.5, 0.0)):
        with pytest.raises(UsageError, match="add up to 1"):
            split_file(file, fractions=shares, renew=True)
    with pytest.raises(UsageError, match="cannot fill"):
        split_examples([example(row, unlike(row), "a", "one.pdf") for row in range(20)])


def test_two_parts_alone_are_possible(file: Path) -> None:
    ids = split_file(file, fractions=(0.9, 0.0, 0.1)).split.ids
    assert (len(ids["train"]), len(ids["dev"]), len(ids["test"])) == (45, 0, 5)


def test_the_first_of_duplicates_is_kept_and_conflicts_stay() -> None:
    asked = "Can you tell me where the new card is that I ordered two weeks ago?"
    examples = [
        example(0, asked, "card_arrival"),
        example(1, asked.upper() + " ", "card_arrival"),
        example(2, asked.replace("the new card", "my new card"), "card_arrival"),
        example(3, asked, "lost_card"),
        example(4, "How do I exchange dollars into euros in the app?", "exchange"),
    ]
    result = dedupe(examples)
    assert [e.id for e in result.kept] == ["0", "3", "4"]
    exact, near = result.dropped
    assert (exact.id, exact.kind, exact.kept_id, exact.kept_origin) == ("1", "exact", "0", "made:0")
    assert (near.id, near.kind, near.kept_id) == ("2", "near", "0") and 0.8 <= near.similarity < 1
    assert [e.id for e in dedupe(examples, near=False).kept] == ["0", "2", "3", "4"]


def test_answers_that_differ_in_a_number_or_a_sign_are_no_duplicates() -> None:
    people = [
        example(
            n,
            f"Please book us a table for {n} people on Sunday at noon by the window",
            f'{{"people": {n}, "day": "Sunday"}}',
        )
        for n in (4, 5)
    ]
    signs = [example(8, "if x > 2 then", "yes"), example(9, "if x < 2 then", "yes")]
    assert len(dedupe(people + signs).kept) == 4


def test_deduplicating_twice_changes_nothing(data: Path) -> None:
    examples = read_examples(data / "finetune/banking77/test.csv").examples
    once = dedupe(examples)
    assert 10 < len(once.dropped) < 100
    assert dedupe(once.kept) == type(once)(once.kept, ())
    texts = {e.id: e.prompt[0].content for e in examples}
    assert all(jaccard(texts[d.id], texts[d.kept_id]) >= 0.8 for d in once.dropped)


def test_signatures_find_the_pairs_that_counting_all_of_them_finds(data: Path) -> None:
    texts = [e.prompt[0].content for e in read_examples(data / "finetune/banking77/test.csv").examples[:400]]
    true = {(a, b) for b in range(len(texts)) for a in range(b) if jaccard(texts[a], texts[b]) >= 0.8}
    group = components(len(texts), near_links(stacked(signatures(texts)), threshold=0.7).tolist())
    assert len(true) >= 3 and all(group[a] == group[b] for a, b in true)


def test_many_copies_of_one_text_give_few_pairs() -> None:
    marks = np.repeat(stacked(signatures(["the same text again"])), 5_000, axis=0)
    assert marks.shape == (5_000, PERMUTATIONS) and len(near_links(marks, threshold=0.8)) == 4_999


def test_the_parts_of_a_real_file_share_nothing(data: Path, tmp_path: Path) -> None:
    examples = read_examples(data / "finetune/banking77/test.csv").examples
    write_examples(tmp_path / "test.jsonl", examples)
    files = split_file(tmp_path / "test.jsonl").files
    report = check(files["train"], Against(splits=[files["dev"], files["test"]], personal=False))
    assert not any(code.startswith("leak") for code in report.counts) and report.examples > 2_400
    assert len(report.labels) == 77


def test_a_question_file_is_split_by_conversations_and_kept_word_for_word(tmp_path: Path) -> None:
    whole = (SAMPLES / "questions.jsonl").read_text(encoding="utf-8")
    (tmp_path / "questions.jsonl").write_text(whole, encoding="utf-8")
    with Workspace(tmp_path / "home") as workspace:
        made = workspace.split_dataset(tmp_path / "questions.jsonl", fractions=(0.7, 0.0, 0.3))
    parts = {name: read_questions(path).questions for name, path in made.files.items() if made.split.ids[name]}
    asked = [json.loads(line) for line in whole.splitlines()]
    written = [json.loads(line) for name in parts for line in made.files[name].read_text("utf-8").splitlines()]
    assert sorted(written, key=lambda row: row["id"]) == sorted(asked, key=lambda row: row["id"])
    for kind in ("short", "label", "text", "unanswerable"):
        share = sum(q.kind == kind for q in parts["test"]) / sum(row["kind"] == kind for row in asked)
        assert 0.2 <= share <= 0.45
    with pytest.raises(UsageError, match="frozen with --seed 0"), Workspace(tmp_path / "home") as workspace:
        workspace.split_dataset(tmp_path / "questions.jsonl", seed=1)
