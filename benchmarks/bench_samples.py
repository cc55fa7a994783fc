"""The sample handbook and its questions -> evidence found, claims judged rightly, questions declined rightly.

    python -m benchmarks.bench_samples               retrieval, claims
    python -m benchmarks.bench_samples --answers     and every question put to the small model

A true claim is a question's `statement`, in other words than the document's; a false one differs from it in
one number, date, name or by one negation. Both are held against what the question really retrieves and, so
that the verifier is not blamed for the search, the evidence that this missed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import ours
from benchmarks.figures import Figure, markdown_table, write_part

if TYPE_CHECKING:
    from graft import Workspace
    from graft.retrieval import Hit

SAMPLES = Path(__file__).parent.parent / "samples"
COMMAND = "make bench"
HITS = 5
TARGETS = {"samples.evidence_top5": 0.95, "claims.false_flagged": 0.95, "claims.true_flagged": 0.05}


@dataclass(frozen=True, slots=True)
class Question:
    """One line of questions.jsonl; `standalone` is preceded by the questions that it follows up."""

    id: str
    text: str
    standalone: str
    answers: tuple[str, ...]
    evidence: tuple[tuple[str, str], ...]
    statement: str


def read_questions(path: Path) -> list[Question]:
    rows = {row["id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}

    def standalone(row: dict[str, Any]) -> str:
        before = rows.get(row.get("after", ""))
        return f"{before['question']} {row['question']}" if before else row["question"]

    return [
        Question(
            id=row["id"],
            text=row["question"],
            standalone=standalone(row),
            answers=tuple(row["answers"]),
            evidence=tuple((e["document"], e["quote"]) for e in row["evidence"]),
            statement=row.get("statement", ""),
        )
        for row in rows.values()
    ]


def holds(hits: Sequence[Hit], document: str, quote: str) -> bool:
    """Whether the quote, white space aside, stands in a hit of its document."""
    wanted = _plain(quote)
    return any(hit.document == document and wanted in _plain(f"{hit.context} {hit.text}") for hit in hits)


def _plain(text: str) -> str:
    return " ".join(text.replace("|", " ").split())


def false_claims(questions: Sequence[Question]) -> Iterator[tuple[Question, str, str]]:
    """(question, kind, claim): up to two of each kind for every statement."""
    from graft.testing.claims import all_names, falsify

    names = list(all_names([q.statement for q in questions]))
    for question in questions:
        seen: set[str] = set()
        for seed in (0, 1):
            for false in falsify(question.statement, other_names=names, seed=seed):
                if false.text not in seen:
                    seen.add(false.text)
                    yield question, false.kind, false.text


def judge(
    workspace: Workspace, questions: Sequence[Question], *, show: bool
) -> tuple[Counter[tuple[str, bool]], int]:
    """(kind, flagged) counts of claims, and how many questions found evidence of every document they need."""
    from graft.citing.verifying import Verdict, verify
    from graft.citing.windows import Passage

    answerable = [q for q in questions if q.evidence]
    claims: dict[str, list[tuple[str, str]]] = {q.id: [("true", q.statement)] for q in answerable}
    for question, kind, text in false_claims(answerable):
        claims[question.id].append((kind, text))
    counts: Counter[tuple[str, bool]] = Counter()
    found = 0
    for question in answerable:
        hits = workspace.search(question.standalone, k=HITS).hits
        missing = [e for e in question.evidence if not holds(hits, *e)]
        documents = {document for document, _ in question.evidence}
        found += all(any(e[0] == document and e not in missing for e in question.evidence) for document in documents)
        if show and missing:
            print("NOT FOUND", question.id, question.standalone, missing)
        hits += tuple(hit for e in missing for hit in workspace.search(e[1], k=3).hits if holds([hit], *e))
        passages = [Passage(hit.text, hit.context) for hit in hits]
        texts = [text for _, text in claims[question.id]]
        results = verify(texts, passages, embed=workspace.embedder.embed, question=question.standalone)
        for (kind, text), result in zip(claims[question.id], results, strict=True):
            flagged = result.verdict is not Verdict.SUPPORTED
            counts[kind, flagged] += 1
            if show and flagged is (kind == "true"):
                print("WRONG", kind, question.id, result, text, sep="\n   ")
    return counts, found


def ask_all(workspace: Workspace, questions: Sequence[Question], *, show: bool) -> list[list[Any]]:
    """Rows (kind of question, asked, declined, holds an accepted answer, generated, quoted), by the small model."""
    from graft.models import Message

    rows: dict[str, Counter[str]] = {"answerable": Counter(), "unanswerable": Counter()}
    for question in questions:
        before = question.standalone.removesuffix(question.text).strip()
        history = [Message("user", before), Message("assistant", "")] if before else []
        answer = workspace.ask(question.text, history=history)
        row = rows["answerable" if question.evidence else "unanswerable"]
        right = any(_plain(a).lower() in _plain(answer.text).lower() for a in question.answers)
        row.update({"asked": 1, "declined": answer.abstained, "right": right, answer.mode.value: 1})
        if show:
            print(question.id, answer.mode.value, "RIGHT" if right else "-", question.text, "=>", answer.text[:200])
    columns = ("asked", "declined", "right", "generated", "quoted")
    return [[name, *(row[c] for c in columns)] for name, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", action="store_true", help="put every question to the small model too")
    parser.add_argument("--show", action="store_true", help="print what went wrong")
    parser.add_argument("--precision", default="int8", choices=["fp32", "int8"])
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="another folder of the same form")
    given = parser.parse_args()
    questions = read_questions(given.samples / "questions.jsonl")
    with tempfile.TemporaryDirectory() as home:
        workspace = ours.open_workspace(Path(home), precision=given.precision)
        ours.add_folder(workspace, given.samples / "handbook")
        counts, found = judge(workspace, questions, show=given.show)
        answered = ask_all(workspace, questions, show=given.show) if given.answers else []
    report(questions, counts, found, answered, keep=given.samples == SAMPLES)


def report(
    questions: Sequence[Question],
    counts: Counter[tuple[str, bool]],
    found: int,
    answered: list[list[Any]],
    *,
    keep: bool,
) -> None:
    answerable = sum(1 for q in questions if q.evidence)
    kinds = sorted({kind for kind, _ in counts})
    rows = [[kind, counts[kind, True] + counts[kind, False], counts[kind, True]] for kind in kinds]
    false = [row for row in rows if row[0] != "true"]
    true = next(row for row in rows if row[0] == "true")
    values = {
        "samples.evidence_top5": found / answerable,
        "claims.false_flagged": sum(row[2] for row in false) / sum(row[1] for row in false),
        "claims.true_flagged": true[2] / true[1],
    }
    table = markdown_table(["claims", "number", "flagged"], rows)
    if answered:
        table += "\n\n" + markdown_table(["questions", "asked", "declined", "right", "generated", "quoted"], answered)
    print(table)
    print(json.dumps({name: round(value, 4) for name, value in values.items()}))
    made = {
        name: Figure(
            ours=round(value, 4),
            peer=TARGETS[name],
            peer_name="target",
            ratio=round(value / TARGETS[name], 3),
            low=round(value / TARGETS[name], 3),
            high=round(value / TARGETS[name], 3),
            unit="share",
            better="lower" if name == "claims.true_flagged" else "higher",
            command=COMMAND,
        )
        for name, value in values.items()
    }
    if keep:
        write_part("samples", made, table=table, rows=[])


if __name__ == "__main__":
    main()
