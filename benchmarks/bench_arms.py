"""Three public tasks of different kinds, every way of answering on each: the tables of `graft compare`.

    python -m benchmarks.bench_arms                    all three, some hours on two cores; a stopped run goes on
    python -m benchmarks.bench_arms --task kleister    one of them
    python -m benchmarks.bench_arms --work FOLDER      keep documents, questions, models and replies there

xquad (knowledge): 240 paragraphs of Wikipedia, short questions. Tuned arms learn 800 other questions about the same
paragraphs; the retrieval-aware arms are the shipped reader, which has never seen XQuAD
(asked without passages it is its base).
banking77 (behaviour): customers' messages -> one of 77 intents. The documents are the same 2,000 labelled messages
that the tuned arm learns, by intent.
kleister (both): 254 non-disclosure agreements -> governing law, term and effective date in a fixed form. Tuned arms
learn from 200 agreements and are asked about the others; retrieval finds the agreement among all 254.

Every question goes through `Workspace.compare` with default settings but those of training, which are kept in
the report. Which questions are asked follows from the hash of their ids.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import lzma
import random
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench_tasks import SETTINGS as TASK_SETTINGS
from benchmarks.bench_tasks import banking77 as banking77_rows
from benchmarks.corpora import data_folder
from benchmarks.figures import Figure, markdown_table, write_part

if TYPE_CHECKING:
    from graft.comparing.values import Comparison

COMMAND = "python -m benchmarks.bench_arms"
BASE, READER = "smollm2-135m-base", "smollm2-135m"
QUESTIONS = 80
LEARNT_XQUAD, LEARNT_CONTRACTS = 800, 200

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Attributes:
    documents: File name -> text.
    asked, learnt: Lines of the question file and of the train file.
    tuning, retrieval_aware: Settings that differ from the defaults.
    request: Further fields of the `CompareRequest`.
    """

    kind: str
    documents: Mapping[str, str]
    asked: Sequence[Row]
    learnt: Sequence[Row]
    tuning: Mapping[str, Any]
    retrieval_aware: Mapping[str, Any]
    request: Mapping[str, Any]


def xquad(data: Path) -> Task:
    """Knowledge: what a paragraph says."""
    documents, rows = {}, []
    for article in json.loads((data / "qa" / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', article['title'])}-{number}.txt"
            documents[name] = paragraph["context"] + "\n"
            rows += [
                {
                    "id": qa["id"],
                    "question": qa["question"],
                    "answers": [answer["text"] for answer in qa["answers"]],
                    "kind": "short",
                    "evidence": [{"document": name, "quote": qa["answers"][0]["text"]}],
                }
                for qa in paragraph["qas"]
            ]
    rows = by_hash(rows)
    return Task(
        kind="knowledge",
        documents=documents,
        asked=rows[:QUESTIONS],
        learnt=rows[QUESTIONS : QUESTIONS + LEARNT_XQUAD],
        tuning={"epochs": 3.0, "batch_size": 16, "learning_rate": 1e-3, "evaluate_steps": 50},
        retrieval_aware={},
        request={"retrieval_aware": READER},
    )


def banking77(data: Path) -> Task:
    """Behaviour: one of 77 intents."""
    learnt, dev, held_out = banking77_rows(data / "finetune" / "banking77", random.Random(0))
    by_intent = defaultdict(list)
    for text, intent in learnt:
        by_intent[intent].append(text)
    documents = {
        f"{intent}.md": f"# Intent: {intent}\n\nMessages of customers with the intent {intent}:\n\n"
        + "".join(f"- {' '.join(text.split())}\n" for text in texts)
        for intent, texts in by_intent.items()
    }
    asked = [
        {"id": f"test-{number}", "question": text, "answers": [intent], "kind": "label"}
        for number, (text, intent) in enumerate(held_out)
    ]
    return Task(
        kind="behaviour",
        documents=documents,
        asked=asked[:QUESTIONS],
        learnt=[chat(text, intent) for text, intent in (*learnt, *dev)],
        tuning=TASK_SETTINGS["banking77"],
        retrieval_aware={},
        request={"arms": tuple(name for name in _all_arms() if not name.startswith("retrieval-aware"))},
    )


def kleister(data: Path) -> Task:
    """Both: what an agreement says, in a fixed form."""
    folder = data / "finetune" / "kleister_nda" / "train"
    with lzma.open(folder / "in.tsv.xz", "rt", encoding="utf-8") as file:
        texts = [line.rstrip("\n").split("\t") for line in file]
    expected = (folder / "expected.tsv").read_text(encoding="utf-8").splitlines()
    documents, rows = {}, {}
    for cells, line in zip(texts, expected, strict=True):
        name = cells[0].removesuffix(".pdf")
        text = (cells[2] or cells[-1]).replace("\\n", "\n")
        documents[f"{name}.txt"] = text
        rows[name] = list(_agreement(name, " ".join(text.split()), line))
    names = sorted(rows, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return Task(
        kind="both",
        documents=documents,
        asked=by_hash([row for name in names[LEARNT_CONTRACTS:] for row in rows[name]])[:QUESTIONS],
        learnt=[row for name in names[:LEARNT_CONTRACTS] for row in rows[name]],
        tuning={"epochs": 3.0, "batch_size": 16, "learning_rate": 1e-3, "evaluate_steps": 25},
        retrieval_aware={"prompt_tokens": 480, "one_passage": 0.5, "without_evidence": 0.05, "casual": 0.0},
        request={},
    )


_SPELLED = dict(zip("1 2 3 4 5 6 7 10".split(), "one two three four five six seven ten".split(), strict=True))
ASKED = {
    "jurisdiction": "Which law governs the agreement of {parties}?",
    "effective_date": "On which date does the agreement of {parties} take effect?",
    "term": "How long does the agreement of {parties} bind?",
}


def _agreement(name: str, text: str, line: str) -> Iterator[Row]:
    """Questions about one agreement: a party, its law, date and term; those whose evidence is not found are left."""
    values = defaultdict(list)
    for pair in line.split():
        key, _, value = pair.partition("=")
        values[key].append(value.replace("_", " "))
    if not values["party"]:
        return
    parties = " and ".join(values["party"][:2])
    for field, question in ASKED.items():
        for value in values[field][:1]:
            quote = _evidence(field, value, text)
            if quote is not None:
                yield {
                    "id": f"{name}-{field}",
                    "question": question.format(parties=parties),
                    "answers": [value],
                    "kind": "short",
                    "evidence": [{"document": f"{name}.txt", "quote": quote}],
                }


def _evidence(field: str, value: str, text: str) -> str | None:
    """The words of the agreement that say it; None where they are not found."""
    if field == "jurisdiction":
        pattern = rf"\blaws?\b[^.;]{{0,80}}?{re.escape(value)}"
    elif field == "term":
        number, _, unit = value.partition(" ")
        spelled = _SPELLED.get(number, number)
        pattern = rf"\b(?:{spelled} ?\(?)?(?:{re.escape(number)}|{spelled})\)?[ -]{re.escape(unit.rstrip('s'))}"
    else:
        day = datetime.date.fromisoformat(value)
        ending = "th" if 10 <= day.day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10, "th")
        month = f"{day:%B}"
        forms = (
            f"{month} 0?{day.day} ?, ?{day.year}",
            f"{day.day}(?:{ending})? day of {month},? {day.year}",
            f"{day.day} {month},? {day.year}",
        )
        pattern = "|".join(forms)
    found = re.search(pattern, text, re.IGNORECASE)
    return None if found is None else found.group()


TASKS: dict[str, Callable[[Path], Task]] = {"xquad": xquad, "banking77": banking77, "kleister": kleister}


def _all_arms() -> tuple[str, ...]:
    from graft.comparing.request import ARMS

    return ARMS


def by_hash(rows: Iterable[Row]) -> list[Row]:
    """In an order that neither the source nor a limit decides."""
    return sorted(rows, key=lambda row: hashlib.sha256(str(row["id"]).encode()).hexdigest())


def chat(asked: str, answer: str) -> Row:
    """A line of OpenAI's chat format."""
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def compared(task: Task, work: Path) -> Comparison:
    """The experiment, in a workspace of its own under `work`; one that was stopped goes on."""
    from graft import Workspace
    from graft.comparing.request import CompareRequest
    from graft.settings import Settings
    from graft.training.machine import bfloat16_is_fast

    documents = work / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    for name, text in task.documents.items():
        (documents / name).write_text(text, encoding="utf-8")
    files = {name: _written(work / f"{name}.jsonl", rows) for name, rows in task_files(task)}
    usual = Settings()
    precision = "bfloat16" if bfloat16_is_fast() else "float32"
    settings = replace(
        usual,
        tuning=replace(usual.tuning, **{**task.tuning, "precision": precision}),
        retrieval_aware=replace(usual.retrieval_aware, **task.retrieval_aware),
    )
    with Workspace(work / "home", settings=settings) as workspace:
        for model in (BASE, READER):
            workspace.pull_model(model)
        workspace.add([str(documents)])
        return workspace.compare(
            CompareRequest(questions=str(files["questions"]), train=str(files["train"]), model=BASE, **task.request),
            progress=_Teller(),
        )


def task_files(task: Task) -> Iterator[tuple[str, Sequence[Row]]]:
    """Name -> lines."""
    yield "questions", task.asked
    yield "train", task.learnt


class _Teller:
    """Says every half minute how far it is."""

    def __init__(self) -> None:
        self.said = 0.0

    def __call__(self, seen: Any) -> None:
        if time.monotonic() - self.said > 30:
            self.said = time.monotonic()
            print(f"{seen.stage}: {seen.done}/{seen.total}", flush=True)


def _written(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


HEADINGS = ["task", "arm", "score", "95% interval", "s a question, p50", "prompt tokens", "training, min"]


def table_rows(name: str, result: Comparison) -> Iterator[list[object]]:
    """One line an arm: score and interval in points of 100."""
    for arm in result.arms:
        score = arm.metrics["score"]
        trained = arm.one_time.seconds if arm.one_time is not None else None
        total = arm.latency_ms.total_p50
        yield [
            name,
            arm.name + (" (no model)" if arm.control else ""),
            f"{100 * score.mean:.1f}",
            f"{100 * score.low:.1f} to {100 * score.high:.1f}",
            None if total is None else round(total / 1000, 2),
            round(arm.tokens.prompt),
            None if trained is None else round(trained / 60, 1),
        ]


def figures(name: str, result: Comparison) -> Iterator[tuple[str, Figure]]:
    """The best arm beside the base."""
    able = {arm.name: arm for arm in result.arms if not arm.control}
    best = max(able.values(), key=lambda arm: arm.metrics["score"].mean)
    base = able["base"].metrics["score"].mean
    yield (
        f"arms.{name}.best",
        Figure(
            ours=round(best.metrics["score"].mean, 4),
            peer=round(base, 4),
            peer_name=f"base; the best arm is {best.name}",
            ratio=round(best.metrics["score"].mean / base, 3) if base else None,
            low=round(best.metrics["score"].low, 3),
            high=round(best.metrics["score"].high, 3),
            unit=f"mean score of {result.questions} questions; low and high are its 95% interval",
            better="higher",
            command=COMMAND,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), help="only this one; keeps its figures under its own name")
    parser.add_argument("--work", type=Path, help="folder to go on from, should the run be stopped")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in [given.task] if given.task else list(TASKS):
            result = compared(TASKS[name](data_folder()), (given.work or Path(scratch)) / name)
            rows = list(table_rows(name, result))
            table = markdown_table(HEADINGS, rows)
            print(f"{table}\n\n{result.verdict}\n{result.sample}", flush=True)
            kept = [dict(zip(HEADINGS, row, strict=True)) for row in rows]
            kept.append({"task": name, "verdict": result.verdict, "sample": result.sample})
            write_part(f"arms-{name}", dict(figures(name, result)), table=table, rows=kept)


if __name__ == "__main__":
    main()
