"""Metrics agree with their reference implementations, and hostile answers do no harm."""

from __future__ import annotations

import collections
import json
import re
import sqlite3
import string
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.errors import UsageError
from graft.evaluation.metrics import abstention, contained, exact_match, label_accuracy, macro_f1, rouge_l, token_f1
from graft.evaluation.normalising import normalised
from graft.evaluation.sql import SqlRunner, execution_match
from graft.evaluation.structured import are_slots, field_f1, slot_counts, valid_json

WORDS = st.text(alphabet="ab the. An' ,-$+x1\n", max_size=30)


def squad_normalise(text: str) -> str:
    """As in the official script of SQuAD 1.1."""
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction: str, truth: str) -> float:
    """As in the official script of SQuAD 2.0."""
    given, wanted = squad_normalise(prediction).split(), squad_normalise(truth).split()
    same = sum((collections.Counter(given) & collections.Counter(wanted)).values())
    if len(given) == 0 or len(wanted) == 0:
        return float(given == wanted)
    if same == 0:
        return 0.0
    precision, recall = same / len(given), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


@settings(max_examples=200, deadline=None)
@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_exact_match_and_f1_are_squads(answer: str, references: list[str]) -> None:
    assert normalised(answer) == squad_normalise(answer)
    assert token_f1(answer, references) == pytest.approx(max(squad_f1(answer, r) for r in references))
    assert exact_match(answer, references) == max(
        float(squad_normalise(answer) == squad_normalise(r)) for r in references
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("the cat sat on a mat, dog ran Far".split()), max_size=12).map(" ".join),
       st.lists(st.sampled_from("the cat sat on a mat dog".split()), max_size=12).map(" ".join))  # fmt: skip
def test_rouge_l_is_the_rouge_score_packages(answer: str, reference: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    expected = scorer.score(reference, answer)["rougeL"].fmeasure
    assert rouge_l(answer, [reference]) == pytest.approx(expected)


def test_other_languages_drop_their_own_articles_and_chinese_counts_characters() -> None:
    assert exact_match("El río Ebro", ["río Ebro"], language="es") == 1
    assert exact_match("der Rhein", ["den Rhein"], language="de") == 1
    assert exact_match("l'eau", ["eau"], language="fr") == 1
    assert exact_match("The Hague", ["Hague"], language="de") == 0
    assert token_f1("在巴黎", ["巴黎"], language="zh") == pytest.approx(0.8)
    assert contained("它在巴黎。", ["巴黎"], language="zh") == 1
    assert exact_match("“Yes” — he said", ["yes he said"]) == 1


def test_containment_is_of_whole_words() -> None:
    assert contained("the comparison", ["Paris"]) == 0 and contained("It was 1912.", ["912"]) == 0
    assert contained("in Paris", [""]) == 0


def test_macro_f1_of_labels_by_hand() -> None:
    gold, said = ["a", "a", "a", "b", "b", "c"], ["a", "a", "b", "b", "nonsense", "a"]
    found = macro_f1(said, [[g] for g in gold])
    assert found.mean == pytest.approx((2 * 2 / (3 + 3) + 2 * 1 / (2 + 2) + 0) / 3)
    assert 0 <= found.low < found.mean < found.high <= 1
    assert label_accuracy("**Lost card**", ["lost_card"]) == 1 and label_accuracy("lost", ["lost_card"]) == 0


def test_an_abstention_is_told_from_an_answer_with_a_not_in_it() -> None:
    assert abstention("Nonetheless it is 4 metres.", ["none"]) == 0
    assert abstention("None.", ["none"]) == 1
    yes = ["Not in the documents.", "I don't know.", "The passage does not mention it.", "", "That is not specified."]
    no = ["Bikes may not be returned.", "It is in the documents: 12 days.", "No, 4."]
    assert [abstention(answer, []) for answer in (*yes, *no)] == [1.0] * len(yes) + [0.0] * len(no)
    assert abstention("Keine Angabe.", ["keine Angabe"]) == 1


@pytest.mark.parametrize(
    "bad",
    ['{"a": 1', "{'a': 1}", '{"a": NaN}', "```json\n{}\n```", '{"a": 1} trailing', "[" * 100_000, "9" * 5_000_000],
)
def test_what_is_not_json_is_counted_not_raised(bad: str) -> None:
    assert valid_json(bad) == 0 and field_f1(bad, ['{"a": 1}']) == 0 and slot_counts(bad, ['{"a": "1"}']).right == 0


def test_field_f1_follows_nested_paths_and_pairs_list_items_by_likeness() -> None:
    wanted = {
        "name": "Ana",
        "home": {"city": "Turin", "zip": 10121},
        "kids": [{"n": "Bo", "age": 3}, {"n": "Cy", "age": 5}],
    }
    assert field_f1(json.dumps(wanted), [json.dumps(wanted)]) == 1
    swapped = wanted | {"kids": list(reversed(wanted["kids"]))}  # type: ignore[call-overload]
    assert field_f1(json.dumps(swapped), [json.dumps(wanted)]) == 1
    mixed = wanted | {"kids": [{"n": "Bo", "age": 5}, {"n": "Cy", "age": 3}]}
    assert field_f1(json.dumps(mixed), [json.dumps(wanted)]) == pytest.approx(2 * 5 / 14)
    moved = {"name": "Ana", "city": "Turin"}
    assert field_f1(json.dumps(moved), [json.dumps(wanted)]) == pytest.approx(2 * 1 / (2 + 7))
    assert field_f1('{"a": 1.0}', ['{"a": 1}']) == 1 and field_f1('{"a": true}', ['{"a": 1}']) == 0
    assert field_f1("{}", ["{}"]) == 1 and field_f1('{"a": []}', ['{"a": {}}']) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from("abc"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(JSON, JSON)
def test_field_f1_is_a_symmetric_likeness_that_only_equals_reach(a: object, b: object) -> None:
    one, two = json.dumps(a), json.dumps(b)
    assert field_f1(one, [one]) == 1
    assert field_f1(one, [two]) == pytest.approx(field_f1(two, [one])) and 0 <= field_f1(one, [two]) <= 1


def test_slots_are_counted_by_name_and_value_as_restaurant8k_counts_them() -> None:
    counts = slot_counts(
        '{"time": "8 pm", "date": "Friday", "people": 3}', ['{"time": "8 PM", "date": "friday night"}']
    )
    assert (counts.right, counts.said, counts.wanted) == (1, 3, 2)
    assert slot_counts("{}", ["{}"]).f1 == 1 and slot_counts('{"time": null}', ["{}"]).said == 0
    assert slot_counts('{"t": ["7 pm", "8 pm"]}', ['{"t": "8 pm"}']).said == 2
    assert are_slots(['{"t": "8"}']) and not are_slots(['{"t": [{"x": 1}]}']) and not are_slots(["[]"])


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[SqlRunner]:
    path = tmp_path / "towns.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE town (name TEXT, people INTEGER, area REAL)")
        rows = [("Turin", 850_000, 130.2), ("Bari", 320_000, 117.4), ("Pisa", 90_000, 185.1), ("Lodi", 45_000, None)]
        connection.executemany("INSERT INTO town VALUES (?, ?, ?)", rows)
    connection.close()
    with SqlRunner(path, seconds=1) as opened:
        yield opened


def test_queries_match_by_their_rows_in_order_only_where_order_was_asked(runner: SqlRunner) -> None:
    def score(answer: str, reference: str) -> float | None:
        return execution_match(answer, [reference], runner).score

    plain = "SELECT name FROM town WHERE people > 80000"
    assert score("```sql\nselect name from town where people >= 80001 order by people;\n```", plain) == 1
    assert score("SELECT name FROM town", plain) == 0
    assert score("SELECT name FROM town ORDER BY people", "SELECT name FROM town ORDER BY people DESC") == 0
    assert score("SELECT name FROM town", "SELECT name FROM (SELECT * FROM town ORDER BY area)") == 1
    assert score("SELECT SUM(area)", plain) == 0  # no table: its error, not a crash
    assert score("SELECT 0.1 + 0.2", "SELECT 0.3") == 1 and score("SELECT 850000", "SELECT 850001") == 0
    assert score("", "SELECT name FROM town WHERE people < 0") == 0
    assert score("SELECT 1", "SELECT nothing FROM nowhere") is None


@pytest.mark.parametrize(
    "attack",
    [
        "DROP TABLE town",
        "DELETE FROM town",
        "INSERT INTO town VALUES ('x', 1, 1)",
        "ATTACH DATABASE '{folder}/new.sqlite' AS x",
        "VACUUM INTO '{folder}/new.sqlite'",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "CREATE TEMP TABLE t (a)",
        "SELECT load_extension('{folder}/x')",
        "SELECT writefile('{folder}/new.sqlite', 'x')",
        "SELECT 1; DROP TABLE town",
        "SELECT randomblob(900000000)",
        "WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n) SELECT a FROM n",
    ],
)
def test_an_answer_cannot_write_or_take_over(runner: SqlRunner, tmp_path: Path, attack: str) -> None:
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert runner.run(attack.format(folder=tmp_path)).error is not None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert runner.run("SELECT COUNT(*) FROM town").rows == ((4,),)


def test_a_query_without_end_is_stopped_and_the_next_one_runs(runner: SqlRunner) -> None:
    started = time.monotonic()
    endless = "WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n) SELECT COUNT(*) FROM n"
    assert "longer than 1 s" in str(runner.run(endless).error) and time.monotonic() - started < 10
    assert runner.run("SELECT 1").rows == ((1,),)


def test_what_is_no_database_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("hello")
    for path in (tmp_path / "x.sqlite", tmp_path / "absent.sqlite"):
        with pytest.raises(UsageError) as raised:
            SqlRunner(path)
        assert raised.value.fix == "--database FILE.sqlite"


def test_the_geography_references_execute_and_match_themselves(data: Path) -> None:
    folder = data / "finetune" / "text2sql_geography"
    queries = []
    for entry in json.loads((folder / "geography.json").read_text())[:40]:
        sentence, sql = entry["sentences"][0], entry["sql"][0]
        for name, value in sentence["variables"].items():
            sql = sql.replace(name, value)
        queries.append(sql)
    with SqlRunner(folder / "geography-db.added-in-2020.sqlite") as runner:
        verdicts = [execution_match(sql, [sql], runner).score for sql in queries]
        wrong = [execution_match("SELECT 'x'", [sql], runner).score for sql in queries]
    assert verdicts.count(1.0) >= 38 and 1.0 not in wrong


def test_a_guarded_process_that_dies_while_it_answers_is_a_result_not_a_traceback(
    runner: SqlRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "dying.py"
    dying.write_text("import sys\nsys.stdin.readline()\nsys.stdout.write('{\"rows\": [[1')\n")
    runner.close()
    monkeypatch.setattr("graft.evaluation.sql._WORKER", dying)
    assert "took longer" in (runner.run("SELECT 1").error or "")
    monkeypatch.undo()
    assert runner.run("SELECT 1").rows == ((1,),)
