"""`graft advise`: asked in a terminal or given as a file; readable for people, one JSON object for programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from graft.advising import QUESTIONS, Needs
from graft.cli import main

Run = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parent.parent / "docs" / "advising.md"
REPORT = {
    "version": 1,
    "questions": 60,
    "arms": [
        {
            "name": name,
            "metrics": {"score": {"mean": score, "low": score - 0.1, "high": score + 0.1}},
            "latency_ms": {"total_p50": 900.0},
            "cost_usd_per_1000": None,
            "one_time_cost_usd": None,
            "tokens": {"prompt": 400.0, "completion": 50.0},
        }
        for name, score in (("base", 0.3), ("rag", 0.8), ("best \x1b[2Jsentence", 0.75))
    ],
    "pairs": [
        {
            "a": "rag", "b": "base", "metric": "score", "verdict": "better",
            "difference": 0.5, "low": 0.3, "high": 0.7, "p_holm": 0.001,
        },
    ],
}  # fmt: skip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["advise", *words])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def answers(tmp_path: Path, run: Run) -> str:
    path = tmp_path / "answers.toml"
    path.write_text(run("--example")[1])
    return str(path)


def test_the_example_is_an_answers_file_that_gives_advice(run: Run, answers: str) -> None:
    status, out, err = run("--answers", answers)
    assert status == 0 and not err
    assert out.startswith("Retrieve, with the model as it is:")
    for shown in ("knowledge", "Moved nothing:", "commonly said $500 to $2,000", "Break-even", "█", "graft compare"):
        assert shown in out
    assert re.search(r"rag +\$1,200", out) and "◀ less" in out


def test_json_is_one_object_with_every_part(run: Run, answers: str) -> None:
    status, out, _ = run("--answers", answers, "--json")
    told = json.loads(out)
    assert status == 0 and told["recommendation"]["arm"] == "rag" and told["basis"] == "rules"
    assert [one["key"] for one in told["criteria"]] == [one.key for one in QUESTIONS if one.deciding]
    assert len(told["costs"]) == 10 and len(told["break_even"]) == 10 and told["compare"].startswith("graft compare")
    status, out, _ = run("--example", "--json")
    assert status == 0 and json.loads(out) == Needs().to_json()


def test_a_report_decides_and_its_text_is_not_obeyed(run: Run, answers: str, tmp_path: Path) -> None:
    path = tmp_path / "compare.json"
    path.write_text(json.dumps(REPORT))
    status, out, _ = run("--answers", answers, "--report", str(path))
    assert status == 0 and "on 60 questions rag scored 80.0 (70.0 to 90.0)" in out and "\x1b[2J" not in out
    assert "best [2Jsentence, which is no arm" in out and "60 questions show only large differences" in out


def test_unknown_prices_are_said_to_be_unknown(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"model": "no/such-model"}))
    status, out, _ = run("--answers", str(path))
    assert status == 0 and "price of 'no/such-model' not known" in out
    assert re.search(r"rag +\$1,200 +not known", out) and "rag and tuned: not known" in out


@pytest.mark.parametrize("option", ["--answers", "--report", "--prices"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"[]", b'{"nothing": 1}', None])
def test_a_bad_file_exits_2_with_a_fix(
    run: Run, answers: str, tmp_path: Path, option: str, content: bytes | None
) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    given = [] if option == "--answers" else ["--answers", answers]
    status, out, err = run(*given, option, str(path))
    assert status == 2 and not out and "fix:" in err
    status, out, _ = run(*given, option, str(path), "--json")
    assert status == 2 and set(json.loads(out)) == {"error", "fix"}


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_without_a_terminal_an_answers_file_is_asked_for(extra: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graft", "advise", *extra], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 2 and "--answers" in done.stderr and "--example" in done.stderr


IN_A_TERMINAL = (
    "import os, pty, sys; "
    "sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, '-m', 'graft', 'advise'])) % 256)"
)
"""A process of its own, since one with threads should not fork."""


class Terminal:
    """`graft advise` in a pseudo-terminal, answered line by line."""

    def __init__(self) -> None:
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "200"},
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def _read(self) -> bool:
        assert self.process.stdout is not None
        piece = os.read(self.process.stdout.fileno(), 65536)
        self.seen += piece.decode("utf-8", "replace")
        return bool(piece)

    def until(self, text: str, *, after: int = 0) -> int:
        """Read until the text stands there; where it ends."""
        while text not in self.seen[after:]:
            assert self._read(), f"it ended before {text!r}: {self.seen[-2000:]}"
        return self.seen.index(text, after) + len(text)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), line.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C until it is heard: one between Python's prompt and its read waits for the next key."""
        while self.process.poll() is None:
            self.say("\x03")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(2.0)

    def left(self) -> int:
        """Exit status."""
        while self._read():
            pass
        return self.process.wait()


def test_in_a_terminal_each_question_is_asked_with_its_choices() -> None:
    with Terminal() as terminal:
        at = 0
        for question in (question for question in QUESTIONS if question.deciding):
            at = terminal.until(question.asked, after=at)
            if question.choices:
                at = terminal.until("/".join(question.choices), after=at)
            if question.key == "teach":
                terminal.say("manners\n")
                at = terminal.until("format, style, terminology, skill", after=at)
                terminal.say("format, skill\n")
            elif question.key == "examples":
                terminal.say("many\n")
                at = terminal.until("not a number", after=at)
                terminal.say("2,000\n")
            else:
                terminal.say("\n")
        at = terminal.until("estimate of costs", after=at)
        terminal.say("n\n")
        assert terminal.left() == 0
        assert "Do both: tune first" in terminal.seen[at:]


def test_ctrl_c_ends_the_questions_cleanly() -> None:
    with Terminal() as terminal:
        terminal.until(QUESTIONS[0].asked)
        terminal.until("[yearly]")
        terminal.interrupt()
        assert terminal.left() == 130
        assert "Traceback" not in terminal.seen


def test_documented_commands_take_their_options() -> None:
    from graft.cli.advise import advise

    options = {option for parameter in advise.params for option in parameter.opts}
    commands = re.findall(r"^    (graft advise[^\n]*)", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        assert {word for word in command.split() if word.startswith("--")} <= options
