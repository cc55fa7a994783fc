"""The default model reads passages with the adapter that ships beside the catalogue, and with it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from graft import Workspace
from graft.models.catalogue import reader_of
from graft.models.gguf import read_head

QUESTION = "How long does an employee have to submit an expense claim?"


@pytest.fixture(scope="module")
def shipped() -> Path:
    reader = reader_of("smollm2-135m")
    assert reader is not None
    return Path(reader.adapter)


def test_the_adapter_ships_in_the_package_and_is_small(shipped: Path) -> None:
    head = read_head(shipped)
    assert (head.kind, head.architecture) == ("adapter", "llama")
    assert shipped.parent.name == "models" and shipped.stat().st_size < 25_000_000


def test_a_grounded_question_is_read_one_passage_at_a_time_and_with_the_adapter(handbook: Workspace) -> None:
    ours = handbook.ask(QUESTION)
    base = handbook.ask(QUESTION, model="smollm2-135m-base")
    assert ours.model == handbook.settings.model.default == "smollm2-135m"
    assert ours.draft != base.draft and ours.hits == base.hits
    assert ours.usage.input_tokens < base.usage.input_tokens  # one passage, not [answering] passages
    assert ours.draft.rstrip(" .").endswith("[1]") or "Not in the documents" in ours.draft


def test_what_has_no_passages_is_asked_of_the_untouched_weights(handbook: Workspace) -> None:
    question = "Name three primary colours."
    replies = [
        handbook.ask(question, model=name, retrieval=False).text for name in ("smollm2-135m", "smollm2-135m-base")
    ]
    assert replies[0] == replies[1] != ""


def test_a_model_of_another_name_reads_without_the_adapter(handbook: Workspace) -> None:
    assert reader_of("smollm2-135m-base") is None and reader_of("qwen2.5-0.5b-instruct") is None
    assert handbook._reader_of("litellm/openai/gpt-4o-mini") is None
