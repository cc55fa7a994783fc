"""Facts that change in the documents: read, refused where they cannot be told apart, and asked about again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graft.comparing.freshness import changed, read_changes
from graft.comparing.request import CompareRequest
from graft.errors import UsageError
from graft.workspace import Workspace
from tests.conftest import HANDBOOK, SAMPLES

CHANGES = SAMPLES / "changes.jsonl"


def line(**given: object) -> str:
    usual = {"document": "a.md", "find": "8 days", "replace": "9 days", "question": "How many?"}
    return json.dumps({**usual, "before": "8", "after": "9", **given})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds 0 changes"),
        ("{", "is not JSON"),
        (line(find=" "), "has no text as 'find'"),
        ('["a"]', "has no text as 'document'"),
        (line(before="8 days", after="8"), "is part of the other"),
    ],
)
def test_a_file_of_changes_that_cannot_be_used_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "changes.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_changes(path)


def test_a_change_must_meet_its_place_exactly_once(tmp_path: Path) -> None:
    path = tmp_path / "changes.jsonl"
    path.write_text(f"{line()}\n{line(find='9 days', replace='10 days', before='9', after='10')}", encoding="utf-8")
    changes = read_changes(path)
    assert changed({"a.md": "It is 8 days.", "b.md": ""}, changes) == {"a.md": "It is 10 days."}
    with pytest.raises(UsageError, match=r"no document 'a\.md' to change; there are b\.md"):
        changed({"b.md": ""}, changes)
    with pytest.raises(UsageError, match=r"stands 2 times in a\.md"):
        changed({"a.md": "8 days or 8 days"}, changes)


@pytest.mark.slow
def test_arms_that_read_documents_answer_with_the_new_fact_and_documents_stay(
    workspace: Workspace, tmp_path: Path
) -> None:
    for name in sorted({change.document for change in read_changes(CHANGES)}):
        (tmp_path / "documents" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "documents" / name).write_bytes((HANDBOOK / name).read_bytes())
    workspace.add([str(tmp_path / "documents")])
    questions = tmp_path / "questions.jsonl"
    questions.write_text((SAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()[0] + "\n")
    request = CompareRequest(
        questions=str(questions), model="smollm2-135m", arms=("base", "best-sentence"), fresh=str(CHANGES)
    )
    made = workspace.compare(request)
    reads, knows = made.arm("best-sentence").freshness, made.arm("base").freshness
    assert reads is not None and reads.questions == 4 and reads.new >= 3 and reads.old == 0 and reads.after_ms
    assert reads.knew >= 3
    assert knows is not None and knows.new == 0 and knows.knew == 0 and knows.after_ms is None
    folder = workspace.comparison_folder(request)
    assert (
        "asked again" in (folder / "report.md").read_text() and "asked again" in (folder / "report.html").read_text()
    )
    assert "up to 8 unused days" in workspace.search("unused days carried into the next year").hits[0].text
    assert workspace.compare(request) == made
    edited = tmp_path / "edited.jsonl"
    edited.write_text(CHANGES.read_text(encoding="utf-8").replace("6 unused", "5 unused").replace('"6"', '"5"'))
    request = replace(request, fresh=str(edited))
    first = workspace.compare(request).arm("best-sentence").freshness
    edited.write_text(edited.read_text().replace("5 unused", "3 unused").replace('"5"', '"3"'))
    again = workspace.compare(request).arm("best-sentence").freshness
    assert first is not None and again is not None and (again.new, again.old) == (first.new, first.old)
