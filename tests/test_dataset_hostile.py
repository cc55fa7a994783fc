"""Files that were made, or broken, to do harm: nothing stops the reading, takes its square, or is lost unsaid."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.cli import main
from graft.dataset import read_examples, write_examples
from graft.dataset.checking import check
from graft.dataset.formats import BadLine, example_of
from graft.dataset.near import normalised
from graft.dataset.personal import find_personal
from graft.dataset.turns import cut_short
from graft.errors import ReadError, UsageError

GOOD = {"prompt": "Where is my card?", "completion": "card_arrival"}
KEYS = ("messages", "conversations", "prompt", "completion", "instruction", "output", "input", "history", "system")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


def put(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@given(line=st.dictionaries(st.sampled_from([*KEYS, "id", "source"]), JSON, max_size=6))
def test_any_object_is_an_example_or_a_reason_why_not(line: dict[str, Any]) -> None:
    try:
        made = example_of(line, origin="x:1")
    except BadLine as bad:
        assert bad.message and bad.fix
    else:
        assert made.answer.strip() and made.messages[-1].role == "assistant"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"messages": [{"role": ["user"], "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": [], "text": "x"}]}]}, "not-text"),
        ({"instruction": "a", "output": "b", "history": 5}, "format"),
    ],
)
def test_a_value_of_the_wrong_kind_spoils_its_line_alone(tmp_path: Path, line: dict[str, Any], code: str) -> None:
    reading = read_examples(put(tmp_path / "train.jsonl", GOOD, line, GOOD))
    assert (len(reading.examples), dict(reading.counts), reading.unread) == (2, {code: 1}, 1)


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("letters", lambda: cut_of("a" * 200_000 + "1")),
        ("dots", lambda: normalised("." * 200_000 + "x")),
        ("tokens", lambda: find_personal("eyJ-" * 100_000)),
        ("addresses", lambda: find_personal("a@b.co " * 50_000)),
    ],
)
def test_time_does_not_grow_with_the_square_of_a_text(name: str, work: Callable[[], object]) -> None:
    """Each took minutes when it did, and under a second now."""
    began = time.process_time()
    work()
    assert time.process_time() - began < 8, name


def cut_of(answer: str) -> list[object]:
    (made,) = (example_of({"prompt": "a", "completion": answer}, origin="x:1"),)
    return list(cut_short(made, 1))


def test_copies_of_one_line_are_numbered_in_no_time(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text((json.dumps({**GOOD, "id": "a"}) + "\n") * 20_000)
    began = time.process_time()
    ids = [example.id for example in read_examples(path).examples]
    assert time.process_time() - began < 15  # it was a minute
    assert ids[:3] == ["a", "a-2", "a-3"] and len(set(ids)) == 20_000


def test_a_numbered_id_does_not_take_one_that_is_given(tmp_path: Path) -> None:
    lines = [{**GOOD, "id": given} for given in ("a", "a-2", "a", "a", "a-2")]
    ids = [example.id for example in read_examples(put(tmp_path / "train.jsonl", *lines)).examples]
    assert ids == ["a", "a-2", "a-3", "a-4", "a-2-2"]


@pytest.mark.parametrize("extra", [{"id": "\ud800"}, {"source": "\ud83d"}, {"note": {"\udcff": "x"}}])
def test_half_a_character_beside_the_turns_is_written_and_read_back(tmp_path: Path, extra: dict[str, Any]) -> None:
    before = read_examples(put(tmp_path / "train.jsonl", {**GOOD, **extra})).examples
    write_examples(tmp_path / "again.jsonl", before)
    (after,) = read_examples(tmp_path / "again.jsonl").examples
    assert (after.id, after.source, after.messages) == (before[0].id, before[0].source, before[0].messages)
    assert {**after.extra, "origin": ""} == {**before[0].extra, "origin": ""}


@pytest.mark.skipif(os.name != "posix", reason="names of any bytes")
def test_a_file_whose_name_is_no_text_can_be_read_and_its_examples_written(tmp_path: Path) -> None:
    path = put(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), GOOD)
    assert write_examples(tmp_path / "out.jsonl", read_examples(path).examples) == 1


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match="read twice") as caught:
        read_examples(tmp_path / "pipe")
    assert "write it to a file" in caught.value.fix


def test_a_csv_whose_first_line_is_one_huge_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("x" * 200_000 + "\na\n")
    with pytest.raises(UsageError, match="names no columns"):
        read_examples(path)


def test_of_many_addresses_in_one_example_a_hundred_are_kept(tmp_path: Path) -> None:
    report = check(put(tmp_path / "train.jsonl", {**GOOD, "completion": "ann@acme.io " * 1_000}))
    (found,) = [finding for finding in report.findings if finding.code == "personal-data"]
    assert len(found.spans) == 100


def test_lines_that_are_no_examples_are_told_when_a_file_is_made_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"prompt": f"{n * 7919} things of kind {n}?", "completion": f"answer {n}"} for n in range(20)]
    path = put(tmp_path / "train.jsonl", *lines)
    path.write_text(path.read_text() + "not json\n{}\n")
    for verb in ("dedupe", "split"):
        with pytest.raises(SystemExit) as left:
            main(["--home", str(tmp_path / "home"), "dataset", verb, str(path), "--json"])
        out, err = capsys.readouterr()
        assert not left.value.code and json.loads(out)["unread"] == 2
        assert f"left out 2 lines that are no examples; graft dataset check {path}" in err
