"""OpenAI's client for Node works unchanged, as the one for Python does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace

SCRIPT = Path(__file__).parent / "node_client"
MODEL, EMBEDDER = "smollm2-135m", "all-minilm-l6-v2"
UNREACHABLE = ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script with the client beside it, as the lock file has it."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm on this machine")
    folder = tmp_path_factory.mktemp("node") / "client"
    shutil.copytree(SCRIPT, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
    if done.returncode and any(code in done.stderr for code in UNREACHABLE):
        pytest.skip("the registry of npm cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder / "walk.mjs"


def test_one_call_of_each_kind(script: Path, tmp_path: Path, models: Path) -> None:
    (tmp_path / "travel.md").write_text("# Travel\n\nA hotel may cost at most 140 EUR a night.\n")
    with Workspace(tmp_path / "home") as workspace:
        workspace.add([str(tmp_path / "travel.md")])
        key = workspace.identities.create_key("node")[1]
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            words = ["node", str(script), url, key, MODEL, EMBEDDER]
            done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {MODEL, EMBEDDER} <= set(told["models"])
    assert "140 EUR" in told["chat"] and told["annotations"] > 0
    assert told["streamed"] == told["chat"] and told["streamedTokens"] > 0
    assert told["dimensions"] == [384, 384]
    assert told["content"].startswith("# Meals") and told["member"] == "completed" and "31 EUR" in told["found"]
    assert "31 EUR" in told["response"] and told["cited"] == ["meals.md"]
    assert told["events"][0] == "response.created" and told["events"][-1] == "response.completed"
    assert "response.output_text.annotation.added" in told["events"]
    assert sorted(told["items"]) == ["assistant", "user"] and told["background"] in ("completed", "incomplete")
    assert told["jobs"] == [] and told["error"] == ["NotFoundError", 404, "not_found", "string"]
