"""`graft dataset`: readable for people, exactly one JSON object for programs, exit 1 where there are errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graft.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["--home", str(tmp_path / "home"), "dataset", *words])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def lines(path: Path, count: int, **extra: Any) -> Path:
    made = [{"prompt": f"{n * 7919} things of kind {n}?", "completion": f"answer {n}", **extra} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in made))
    return path


def test_a_clean_file_exits_0_and_a_broken_one_1(run: Run, tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", 20)
    status, out, _ = run("check", str(path), "--json")
    report = json.loads(out)
    assert status == 0 and report["ok"] and report["examples"] == 20 and report["findings"] == []
    with path.open("a") as file:
        file.write("not json\n")
    status, out, _ = run("check", str(path), "--json")
    (finding,) = json.loads(out)["findings"]
    assert status == 1 and (finding["line"], finding["code"], finding["severity"]) == (21, "json", "error")
    status, out, _ = run("check", str(path))
    assert status == 1 and "line 21" in out and "fix:" in out and "1 errors" in out


def test_terminal_escapes_in_a_file_are_not_obeyed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\na,b\n")
    (tmp_path / "bad.jsonl").write_text(json.dumps({"\x1b[2Jkey": 1}) + "\n")
    status, out, _ = run("check", str(tmp_path / "bad.jsonl"))
    assert status == 1 and "\x1b[2J" not in out and "[2Jkey" in out


def test_duplicates_are_left_out_and_parts_written(run: Run, tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", 40)
    path.write_text(path.read_text() + path.read_text())
    status, out, _ = run("dedupe", str(path), "--exact", "--json")
    told = json.loads(out)
    assert status == 0 and told["kept"] == 40 and len(told["dropped"]) == 40
    status, out, _ = run("split", told["output"], "--parts", "0.5,0.25,0.25", "--json")
    told = json.loads(out)
    assert status == 0 and sum(told["examples"].values()) == 40 and not told["reused"]
    assert all(Path(file).exists() for file in told["files"].values())


@pytest.mark.parametrize(
    "words", [("--map", "prompt=a"), ("--map", "nonsense"), ("--context", "0"), ("--parts", "1")]
)
def test_what_cannot_be_meant_exits_2_with_a_fix(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    path = lines(tmp_path / "train.jsonl", 5)
    status, out, err = run("split" if words[0] == "--parts" else "check", str(path), *words)
    assert status == 2 and not out and "fix:" in err
