"""The project keeps its own word: public names, documented commands, light imports."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import httpx
import pytest

import graft
from graft import Workspace
from graft.cli import graft as command_line
from graft.models import catalogue, pulled

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_these() -> None:
    assert graft.__all__ == ["GraftError", "Settings", "Workspace"]
    methods = {name for name in dir(Workspace) if not name.startswith("_")}
    assert methods == {
        "acting_as",
        "add",
        "add_hosted_model",
        "add_model_file",
        "ask",
        "ask_stream",
        "attach_file",
        "attached_file",
        "audit",
        "back_up",
        "bases",
        "cancel_files",
        "change_attributes",
        "check",
        "check_dataset",
        "close",
        "collections",
        "compare",
        "comparison_folder",
        "create_collection",
        "create_vector_store",
        "dedupe_dataset",
        "detach_file",
        "documents",
        "embedder",
        "estimate_comparison",
        "estimate_dataset",
        "evaluate",
        "export",
        "file_path",
        "fine_tune",
        "fine_tuning_curve",
        "fine_tuning_job",
        "fine_tuning_jobs",
        "forget_file",
        "generate_dataset",
        "identities",
        "index_file",
        "is_hosted",
        "jobs",
        "model",
        "models",
        "objects",
        "prepare_tuning",
        "pull_model",
        "passage",
        "picture",
        "plan_fine_tuning",
        "places",
        "put_file",
        "queue_add",
        "queue_compare",
        "queue_generate",
        "reader",
        "rebuild_indexes",
        "reembed",
        "regress",
        "remove",
        "remove_collection",
        "remove_expired",
        "remove_file",
        "remove_model",
        "remove_source",
        "remove_vector_store",
        "resolve",
        "restore",
        "search",
        "search_query",
        "search_vector_store",
        "sessions",
        "share_collection",
        "sources",
        "spending",
        "split_dataset",
        "store",
        "sweep_files",
        "sync",
        "text_of_file",
        "tune",
        "tune_job",
        "tuned_model",
        "tuned_models",
        "unfinished_files",
        "use_vector_store",
        "vector_store",
        "vector_store_files",
    }


def test_importing_graft_loads_nothing_heavy() -> None:
    script = (
        "import sys, graft; print([m for m in ('numpy', 'sqlalchemy', 'onnxruntime', 'litellm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def documented_commands() -> list[str]:
    lines = []
    for path in (
        ROOT / "README.md",
        ROOT / "docs" / "tuning.md",
        ROOT / "docs" / "advising.md",
        ROOT / "docs" / "comparing.md",
        ROOT / "docs" / "identity.md",
        ROOT / "docs" / "serving.md",
        ROOT / "runs" / "four_arms.sh",
        ROOT / "runs" / "demo.sh",
    ):
        text = path.read_text(encoding="utf-8").replace('"$graft"', "graft")
        lines += re.findall(r"^(?:    |\$ )?(graft [a-z][^#\n]*)", text, re.MULTILINE)
    return lines


def test_commands_are_documented() -> None:
    assert len(documented_commands()) >= 10


@pytest.mark.parametrize("line", documented_commands())
def test_a_documented_command_exists_with_its_options(line: str) -> None:
    words = re.sub(r'"[^"]*"', "X", line).split()[1:]
    command: click.Command = command_line
    while isinstance(command, click.Group):
        name = words.pop(0)
        assert name in command.commands, f"{line}: no {name}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options


NEEDS_WHAT_THIS_MACHINE_LACKS = {
    "graft models add gpt --api litellm/openai/gpt-4.1-mini",
    'graft ask --model gpt "How long is the notice period?"',
}


def test_the_readme_s_commands_do_what_it_says(tmp_path: Path, models: Path) -> None:
    contracts = tmp_path / "Documents" / "contracts"
    contracts.mkdir(parents=True)
    (contracts / "lease.md").write_text(
        "# Lease\n\nThe notice period of the lease is three months to a month's end.\n"
    )
    asked = {"question": "How long is the notice period?", "answers": ["three months"]}
    (tmp_path / "questions.jsonl").write_text(json.dumps(asked) + "\n")
    weights = tmp_path / "models"
    weights.mkdir()
    entry = catalogue()["smollm2-135m"]
    (weights / "qwen2.5-7b-instruct-q4_k_m.gguf").symlink_to(pulled(entry, cache=models).main)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Your own folder") : text.index("In Python")]
    lines = [line.split("  #")[0].strip() for line in re.findall(r"^    (graft [^\n]*)", section, re.MULTILINE)]
    run = [line for line in lines if line.split("   ")[0] not in NEEDS_WHAT_THIS_MACHINE_LACKS]
    assert len(run) >= 5 and len(lines) - len(run) == len(NEEDS_WHAT_THIS_MACHINE_LACKS)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "GRAFT_HOME": str(tmp_path / "home"),
        "GRAFT_MODELS": str(models),
    }
    for number, line in enumerate(run):
        words = [word.replace("~", str(tmp_path)) for word in shlex.split(line)]
        if words[1] == "serve":
            has_keys = any(before.startswith("graft keys") for before in run[:number])
            assert served(words[1:], environment) == (401 if has_keys else 200), "it asks for the keys made before"
            continue
        done = subprocess.run(
            [sys.executable, "-m", "graft", *words[1:]],
            env=environment,
            cwd=tmp_path,
            input="",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert (
        "three months"
        in subprocess.run(
            [sys.executable, "-m", "graft", "ask", "How long is the notice period?"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )


def served(words: list[str], environment: dict[str, str]) -> int:
    """The status of a call without a key to a server that is started so."""
    line = [sys.executable, "-m", "graft", *words, "--port", "0", "--json"]
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"].replace("0.0.0.0", "127.0.0.1")
        try:
            return httpx.get(f"{url}/models").status_code
        finally:
            process.terminate()


def test_documented_make_verbs_exist() -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        verb
        for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
        for verb in re.findall(r"(?:^    |`)make ([a-z]+)", path.read_text(), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= verbs


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "src").rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 480
    }
    assert long == {}
