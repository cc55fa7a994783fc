"""Arms whose model another process serves, over HTTP, at a listed price: asked, paid for, cut off, and gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graft.comparing.request import CompareRequest
from graft.errors import UsageError
from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace
from tests.conftest import HANDBOOK, SAMPLES

# LiteLLM's own, of what it builds on
pytestmark = pytest.mark.filterwarnings(
    "ignore:Item '.*' on TypedDict class:UserWarning", "ignore::DeprecationWarning"
)

PRICED = "gpt-4o-mini"
"""A name that LiteLLM has a price for; here the small model's weights answer to it."""
QUESTIONS = 3


@contextmanager
def provider(home: Path, models: Path) -> Iterator[str]:
    """An OpenAI-compatible server with one model and no documents."""
    with Workspace(home) as workspace:
        weights = next((models / "smollm2-135m").glob("*.gguf"))
        workspace.add_model_file(str(weights), name=PRICED)
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            yield url


def request(tmp_path: Path, **given: object) -> CompareRequest:
    path = tmp_path / "questions.jsonl"
    lines = (SAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()[:QUESTIONS]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    values = {"questions": str(path), "model": "hosted", "arms": ("base", "rag", "best-sentence"), **given}
    return CompareRequest(**values)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_hosted_model_is_asked_paid_for_and_cut_off_and_its_absence_is_a_result(
    workspace: Workspace, tmp_path: Path, models: Path
) -> None:
    workspace.add([str(HANDBOOK / "policies" / "annual-leave.md")])
    with provider(tmp_path / "provider", models) as url:
        workspace.add_hosted_model("hosted", f"litellm/openai/{PRICED}", api_base=url)
        with pytest.raises(UsageError, match="budget is 0"):
            workspace.compare(request(tmp_path, budget_usd=0.0))
        expected = workspace.estimate_comparison(request(tmp_path))
        assert expected.cost_usd is not None and expected.cost_usd > 0
        made = workspace.compare(request(tmp_path))
        base, rag, control = (made.arm(name) for name in ("base", "rag", "best-sentence"))
        assert (base.failed, rag.failed, made.partial) == (0, 0, None), rag.error
        assert base.cost_usd_per_1000 and rag.cost_usd_per_1000 and rag.cost_usd_per_1000 > base.cost_usd_per_1000
        assert control.cost_usd_per_1000 == 0 and made.cost_usd is not None
        assert 0 < made.cost_usd <= expected.cost_usd
        shutil.rmtree(workspace.home / "comparisons")  # or its replies would be taken over
        one = sum(reply.cost_usd or 0.0 for reply in made.records[0].replies.values())
        cut = workspace.compare(request(tmp_path, budget_usd=1.2 * one, into=str(tmp_path / "cut")))
        assert cut.partial is not None and cut.questions < QUESTIONS
        assert cut.cost_usd is None or cut.cost_usd <= 1.2 * one
    gone = workspace.compare(request(tmp_path, into=str(tmp_path / "gone")))
    assert [gone.arm(name).failed for name in ("base", "rag", "best-sentence")] == [QUESTIONS, QUESTIONS, 0]
    assert f"{PRICED} cannot be reached" in (gone.arm("base").error or "")
    assert gone.verdict.startswith("No arm with a model answered a single question") and "cannot be" in gone.verdict


@pytest.mark.slow
def test_questions_are_priced_before_they_are_made_and_share_the_budget(
    workspace: Workspace, tmp_path: Path, models: Path
) -> None:
    workspace.add([str(HANDBOOK / "policies" / "annual-leave.md")])
    with provider(tmp_path / "provider", models) as url:
        workspace.add_hosted_model("hosted", f"litellm/openai/{PRICED}", api_base=url)
        asked = request(tmp_path, questions=None, limit=2)
        ahead = workspace.estimate_comparison(asked)
        assert ahead.cost_usd is not None and ahead.cost_usd > 0 and "still to be made" in ahead.warnings[0]
        assert not workspace.comparison_folder(asked).exists()
        with pytest.raises(UsageError, match="budget is 0"):
            workspace.compare(request(tmp_path, questions=None, limit=2, budget_usd=0.0))
    local = workspace.estimate_comparison(request(tmp_path, questions=None, model="smollm2-135m", limit=2))
    assert local.cost_usd == 0.0
