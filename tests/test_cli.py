"""The command line keeps its contract: one JSON object, exit statuses, errors with a fix."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def home(tmp_path: Path, models: Path) -> Path:
    return tmp_path / "home"


def graft(home: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graft", "--home", str(home), *words],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=240,
    )


def graft_json(home: Path, *words: str, stdin: str = "", status: int = 0) -> dict[str, Any]:
    done = graft(home, *words, "--json", stdin=stdin)
    assert done.returncode == status, done.stderr
    assert done.stdout.count("\n") == 1
    value: dict[str, Any] = json.loads(done.stdout)
    return value


@pytest.fixture
def filled(home: Path, tmp_path: Path) -> Path:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "travel.md").write_text(
        "# Travel\n\nA hotel may cost at most 140 EUR a night. Breakfast is paid in addition.\n"
    )
    graft_json(home, "add", str(tmp_path / "documents"))
    return home


def test_every_verb_has_help_that_loads_neither_numpy_nor_sqlalchemy() -> None:
    script = (
        "import sys\nfrom graft.cli import graft\n"
        "print(sorted(graft.commands), [m for m in ('numpy', 'sqlalchemy', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "['add', 'advise', 'ask', 'audit', 'backup', 'chat', 'collections', 'compare', 'completion', 'dataset', "
        "'doctor', 'evaluate', 'export', 'jobs', 'keys', 'list', 'mcp', 'models', 'regress', 'remove', 'restore', "
        "'search', 'serve', 'settings', 'sync', 'tune', 'users', 'worker'] []"
    )


def test_add_list_search_and_remove_print_the_promised_objects(filled: Path, tmp_path: Path) -> None:
    again = graft_json(filled, "add", str(tmp_path / "documents"))
    assert again.keys() == {"added", "updated", "unchanged", "removed", "failed", "chunks", "seconds"}
    assert again["unchanged"] == 1
    hits = graft_json(filled, "search", "what may a hotel cost", "-k", "3")
    assert hits["hits"][0].keys() >= {"document", "version", "start", "end", "page", "text", "score"}
    assert hits["latency_ms"].keys() == {"embed", "search", "rerank", "total"}
    assert graft_json(filled, "list")["documents"][0]["uri"] == "travel.md"
    assert graft_json(filled, "remove", "travel.md")["removed"]["uri"] == "travel.md"
    assert graft_json(filled, "search", "what may a hotel cost")["hits"] == []


def test_a_removed_document_stays_out_and_a_removed_folder_is_forgotten(filled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    graft_json(filled, "remove", "travel.md")
    assert graft_json(filled, "sync")["added"] == 0 and graft_json(filled, "list")["documents"] == []
    assert graft_json(filled, "add", str(folder / "travel.md"))["added"] == 1
    assert graft_json(filled, "remove", str(folder))["removed"]["documents"] == 1
    assert graft_json(filled, "sync")["added"] == 0
    assert graft_json(filled, "remove", str(folder), status=1)["fix"]


def test_ask_prints_the_promised_object(filled: Path) -> None:
    answer = graft_json(filled, "ask", "What may a hotel cost at most?")
    assert answer.keys() >= {"answer", "abstained", "citations", "hits", "model", "usage", "latency_ms", "cost_usd"}
    assert answer["latency_ms"].keys() >= {"retrieve", "first_token", "total"}
    citation = answer["citations"][0]
    assert citation.keys() >= {"claim", "document", "version", "start", "end", "page", "quote", "verdict", "support"}
    assert "140" in answer["answer"] and citation["verdict"] == "supported"


def test_a_question_outside_the_documents_is_abstained_from(filled: Path) -> None:
    answer = graft_json(filled, "ask", "Who composed the opera about a flying ship?")
    assert answer["abstained"] and answer["answer"] == "Not in your documents." and answer["citations"] == []


def test_chat_answers_each_line_in_turn(filled: Path) -> None:
    chat = graft_json(filled, "chat", stdin="What may a hotel cost at most?\nIs breakfast paid too?\n/quit\n")
    assert len(chat["turns"]) == 2
    assert "hotel" in chat["turns"][1]["question"]


def test_a_chat_turn_that_fails_loses_none_of_the_others(filled: Path) -> None:
    lines = "What may a hotel cost at most?\n" + "why " * 6_000 + "\nWho pays for breakfast?\n"
    turns = graft_json(filled, "chat", stdin=lines, status=1)["turns"]
    assert ["error" in turn for turn in turns] == [False, True, False] and "20,000" in turns[1]["error"]


def test_a_chat_line_that_is_no_text_loses_none_of_the_others(filled: Path) -> None:
    command = [sys.executable, "-m", "graft", "--home", str(filled), "chat", "--json"]
    lines = b"caf\xe9?\nWhat may a hotel cost at most?\n"
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=lines, capture_output=True, timeout=240, env=strict)
    turns = json.loads(done.stdout)["turns"]
    assert "not text in UTF-8" in turns[0]["error"] and "140" in turns[1]["answer"]


def test_a_terminal_of_another_encoding_gets_all_that_it_can_show(filled: Path) -> None:
    command = [sys.executable, "-m", "graft", "--home", str(filled), "ask", "What may a hotel cost at most?"]
    done = subprocess.run(
        command, capture_output=True, timeout=240, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    )
    assert done.returncode == 0 and b"? supported  travel.md" in done.stdout, done.stderr


def test_adding_again_says_what_stays_out_and_how_it_comes_back(filled: Path, tmp_path: Path) -> None:
    graft_json(filled, "remove", "travel.md")
    said = graft(filled, "add", str(tmp_path / "documents")).stdout
    assert "left out a file whose document was removed; `graft add FILE` brings one back" in said


def test_json_may_be_asked_for_before_the_verb(filled: Path) -> None:
    done = graft(filled, "--json", "search", "hotel")
    assert done.returncode == 0 and json.loads(done.stdout)["hits"]


def test_searching_nothing_says_what_to_add(home: Path) -> None:
    done = graft(home, "search", "hotel")
    assert done.returncode == 0 and "graft add" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "message", "fix"),
    [
        (["search", "  "], 2, "the question is empty", "graft search"),
        (["search", "x", "-k", "0"], 2, "k = 0 is not from 1 to", "-k 10"),
        (["search", "x", "--collection", "nope"], 1, "nope", "graft"),
        (["ask", "x", "--model", "smolm2-135m"], 1, "did you mean 'smollm2-135m'", "graft models list"),
        (["ask", "word " * 20_000], 1, "100,000 characters; the limit is 20,000", "graft add"),
        (["add", "/no/such/place"], 2, "/no/such/place does not exist", "ls"),
        (["add", ""], 2, "a location is empty", "graft add ."),
        (["add", "~$lock.docx"], 2, "~$lock.docx does not exist", "ls"),
        (["add", "x" * 300], 2, "cannot be looked at: File name too long", "name"),
        (["add", os.fsdecode(b"/tmp/\xff")], 2, r"/tmp/\xff does not exist", "ls"),
        (["add"], 2, "Missing argument", "--help"),
        (["remove", ""], 1, "no document ''", "graft list"),
        (["remove", "~$lock.docx"], 1, "no document '~$lock.docx'", "graft list"),
        (["search", os.fsdecode(b"a caf\xe9")], 2, "not text in UTF-8", "iconv"),
        (["remove", "nothing.md"], 1, "no document 'nothing.md'", "graft list"),
        (["search", "x", "--as", "everyone; drop"], 2, "is not a principal", "user:NAME"),
        (["models", "pull", "gpt-9"], 1, "no model named 'gpt-9'", "graft models list"),
        (["models", "add", "/no/such.gguf"], 1, "/no/such.gguf", ""),
        (["add", "http://127.0.0.1:1/x"], 1, "127.0.0.1", ""),
    ],
)
def test_an_error_names_the_value_and_the_fix(
    filled: Path, words: list[str], status: int, message: str, fix: str
) -> None:
    done = graft(filled, *words, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    said = json.loads(done.stdout)
    failed = said.get("failed") or [said]
    assert message in failed[0]["error"] and fix in failed[0]["fix"]
    assert "Traceback" not in done.stderr


def test_a_damaged_settings_file_is_named(home: Path) -> None:
    home.mkdir()
    (home / "graft.toml").write_text("[retrieval]\ntop_k = 'ten'\n")
    done = graft(home, "search", "x")
    assert done.returncode == 2
    assert "top_k = 'ten' is not a int" in done.stderr and "the default is 10" in done.stderr


@pytest.mark.parametrize("name", ["open.lock", "index"])
def test_a_workspace_that_may_not_be_written_is_named_with_a_remedy(filled: Path, name: str) -> None:
    taken = filled / name
    shutil.rmtree(taken) if taken.is_dir() else taken.unlink()
    taken.mkdir() if name == "open.lock" else taken.write_text("")  # root, who runs some tests, may write anywhere
    done = graft(filled, "search", "hotel", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1 and f"{taken}" in said["error"] and "--home" in said["fix"], said


def test_settings_shows_what_is_resolved(home: Path) -> None:
    home.mkdir()
    (home / "graft.toml").write_text("[retrieval]\ntop_k = 7\n")
    shown = graft_json(home, "settings")["settings"]["retrieval"]["top_k"]
    assert shown["value"] == 7 and shown["default"] == 10 and shown["why"]


def test_a_document_cannot_command_the_terminal(home: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.txt").write_text("Prices \x1b[2J\x1b]0;owned\x07 are [red]40 EUR[/red] \u202eRUE 04.")
    graft_json(home, "add", str(tmp_path / "evil.txt"))
    shown = graft(home, "search", "prices").stdout
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "[red]40 EUR[/red]" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(home: Path, shell: str) -> None:
    assert "_GRAFT_COMPLETE" in graft(home, "completion", shell).stdout


def test_ctrl_c_keeps_what_is_finished_and_shows_no_traceback(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number}.txt").write_text(f"Note {number}. " + "It tells of one matter and of no other. " * 40)
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from graft.cli import main; main(['--home', {str(home)!r}, 'add', {str(folder)!r}, '--json'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (home / "graft.db").exists():
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "run the same command again" in err
    assert json.loads(out)["error"].startswith("interrupted")
    again = graft_json(home, "add", str(folder))
    assert again["added"] + again["unchanged"] == 400


def test_output_to_a_closed_pipe_is_not_a_traceback(filled: Path) -> None:
    command = [sys.executable, "-m", "graft", "--home", str(filled), "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # long before anything is written to it
        said = process.stderr.read()
    assert process.returncode == 1 and said == ""
