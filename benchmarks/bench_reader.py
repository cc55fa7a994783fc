"""The default reader on documents nobody tuned it to: XQuAD's paragraphs, and ClapNQ's passages without an answer.

    python -m benchmarks.bench_reader                              the shipped reader, and the base beside it
    python -m benchmarks.bench_reader --adapter A.gguf             another adapter in the reader's place
    python -m benchmarks.bench_reader --limit 60 --models reader   a quick look; keeps no figures

Everything goes through `Workspace.ask` with default settings: each paragraph is a document of its own, found by the
real search among all of them. The draft is what the model wrote, the answer is what is shown after the check; markers
are left out of both before words are compared. An answer that declines counts as wrong where there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.corpora import data_folder
from benchmarks.figures import Figure, markdown_table, write_part
from benchmarks.measures import mean_interval
from runs.reader_sets import clapnq_file, clapnq_rows, clapnq_text, held_out

if TYPE_CHECKING:
    from graft import Workspace
    from graft.answering import Answer

COMMAND = "python -m benchmarks.bench_reader"
QUESTIONS = 200
CATALOGUE_NAME = "smollm2-135m"
UNTOUCHED = "smollm2-135m-base"
TARGETS = {
    "reader.xquad.f1": 0.50,
    "reader.xquad.contained": 0.60,
    "reader.xquad.cited": 0.80,
    "reader.xquad.answered": 0.90,
    "reader.clapnq.abstained": 0.60,
}
_MARK = re.compile(r"\s*\[\d+\](?:\s*\[(?:partly supported|unsupported)\])?")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question; no answers: its collection holds none. `document` is where the answer, or the topic, stands."""

    id: str
    text: str
    answers: tuple[str, ...]
    document: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question; shares are 0 or 1.

    Attributes:
        retrieved: Whether the answer's document is among the hits that went into the prompt.
        cited, first: Whether the first citation's document, or the first hit's, is the answer's; None: no answer.
    """

    id: str
    mode: str
    retrieved: bool
    refused: bool
    draft_f1: float
    draft_contained: float
    f1: float
    contained: float
    cited: bool | None
    first: bool | None
    first_token_ms: float
    total_ms: float
    draft: str
    answer: str

    @property
    def declined(self) -> bool:
        return self.mode == "abstained"


def xquad(data: Path, limit: int) -> tuple[dict[str, str], list[Asked]]:
    """Every paragraph as a document, and questions in the order of their hashes: a limit cuts, it never exchanges."""
    documents, questions = {}, []
    for article in json.loads((data / "qa" / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', article['title'])}-{number}.txt"
            documents[name] = paragraph["context"] + "\n"
            questions += [
                Asked(qa["id"], qa["question"], tuple(a["text"] for a in qa["answers"]), name)
                for qa in paragraph["qas"]
            ]
    return documents, _first(questions, limit)


def clapnq(data: Path, limit: int) -> tuple[dict[str, str], list[Asked]]:
    """The held-out half: passages as documents, each with the question that it does not answer."""
    rows = [row for row in clapnq_rows(data / "qa") if held_out(row)]
    documents = {clapnq_file(row): clapnq_text(row) for row in rows}
    return documents, _first([Asked(row["id"], row["input"], (), clapnq_file(row)) for row in rows], limit)


def _first(questions: Sequence[Asked], limit: int) -> list[Asked]:
    return sorted(questions, key=lambda q: hashlib.sha256(q.id.encode()).hexdigest())[:limit]


def outcome(asked: Asked, answer: Answer, *, passages: int) -> Outcome:
    """Hold an answer against the question's."""
    from graft.citing import without_markers
    from graft.evaluation.metrics import contained, token_f1

    shown = "" if answer.abstained else _MARK.sub("", answer.text)
    refused = answer.abstained and bool(answer.draft) and "no answer" in answer.reason
    draft = "" if refused else without_markers(answer.draft)
    first_citation = answer.citations[0].document == asked.document if answer.citations else False
    return Outcome(
        id=asked.id,
        mode=answer.mode.value,
        retrieved=any(hit.document == asked.document for hit in answer.hits[:passages]),
        refused=refused,
        draft_f1=token_f1(draft, asked.answers),
        draft_contained=contained(draft, asked.answers),
        f1=token_f1(shown, asked.answers),
        contained=contained(shown, asked.answers),
        cited=None if answer.abstained else first_citation,
        first=None if answer.abstained else answer.hits[0].document == asked.document,
        first_token_ms=answer.latency_ms.first_token or 0.0,
        total_ms=answer.latency_ms.total,
        draft=answer.draft,
        answer=answer.text,
    )


def ask_all(
    workspace: Workspace, questions: Sequence[Asked], *, model: str, collection: str, show: bool
) -> list[Outcome]:
    """Put every question to one model."""
    outcomes = []
    passages = workspace.settings.answering.passages
    for asked in questions:
        outcomes.append(
            outcome(asked, workspace.ask(asked.text, model=model, collection=collection), passages=passages)
        )
        if show:
            last = outcomes[-1]
            print(
                f"{model} {collection} {last.mode:9} f1 {last.draft_f1:.2f} {last.f1:.2f} | {asked.text} | "
                f"{last.draft!r} -> {last.answer!r} | {asked.answers}",
                flush=True,
            )
    return outcomes


def summary(answerable: Sequence[Outcome], unanswerable: Sequence[Outcome]) -> dict[str, float]:
    """Figures by name; those about citations are over the questions that were answered."""
    answered = [one for one in answerable if not one.declined]
    figures = {
        "retrieved": _mean(answerable, lambda one: one.retrieved),
        "draft_f1": _mean(answerable, lambda one: one.draft_f1),
        "draft_contained": _mean(answerable, lambda one: one.draft_contained),
        "f1": _mean(answerable, lambda one: one.f1),
        "contained": _mean(answerable, lambda one: one.contained),
        "answered": _mean(answerable, lambda one: not one.declined),
        "refused": _mean(answerable, lambda one: one.refused),
        "cited": _mean(answered, lambda one: bool(one.cited)),
        "cited_if_always_first": _mean(answered, lambda one: bool(one.first)),
        "abstained": _mean(unanswerable, lambda one: one.declined),
        "abstained_by_the_model": _mean(unanswerable, lambda one: one.refused),
        "first_token_ms": statistics.median(
            [one.first_token_ms for one in answerable if one.first_token_ms] or [0.0]
        ),
        "total_ms": statistics.median([one.total_ms for one in answerable] or [0.0]),
    }
    modes = Counter(one.mode for one in answerable)
    return figures | {f"mode_{mode}": round(count / len(answerable), 4) for mode, count in sorted(modes.items())}


def _mean(outcomes: Sequence[Outcome], of: Callable[[Outcome], float]) -> float:
    return round(statistics.fmean([float(of(one)) for one in outcomes]), 4) if outcomes else 0.0


def register(workspace: Workspace, adapter: Path | None) -> dict[str, str]:
    """Role -> the name under which the workspace knows the model: the reader, and the base without an adapter."""
    from graft.models.catalogue import catalogue
    from graft.models.specs import ModelSpec

    reader = CATALOGUE_NAME
    if adapter is not None:
        base = UNTOUCHED if UNTOUCHED in catalogue() else CATALOGUE_NAME
        spec = ModelSpec(name="reader", kind="catalogue", target=base, adapter=str(adapter.resolve()))
        workspace.store.put_model(spec.name, spec.to_json())
        reader = spec.name
    return {"reader": reader, "base": UNTOUCHED if _known(UNTOUCHED) else CATALOGUE_NAME}


def _known(name: str) -> bool:
    from graft.errors import GraftError
    from graft.models.specs import spec_for

    try:
        spec_for(name)
    except GraftError:
        return False
    return True


@contextmanager
def filled(
    home: Path | None, data: Path, limit: int, *, passages: int | None = None
) -> Iterator[tuple[Workspace, list[Asked], list[Asked]]]:
    """A workspace with both collections; `home` is kept for another run, where it is given."""
    from graft import Workspace
    from graft.settings import resolve

    settings = resolve({} if passages is None else {"answering": {"passages": passages}})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if home is None else home
        questions = []
        with Workspace(folder / "home", settings=settings) as workspace:
            for name, (documents, asked) in (("xquad", xquad(data, limit)), ("clapnq", clapnq(data, limit))):
                if not any(c.name == name and c.documents == len(documents) for c in workspace.collections()):
                    (folder / name).mkdir(parents=True, exist_ok=True)
                    for file, text in documents.items():
                        (folder / name / file).write_text(text, encoding="utf-8")
                    added = workspace.add([str(folder / name)], collection=name)
                    if added.failed:
                        raise SystemExit(f"{len(added.failed)} files failed, first {added.failed[0]}")
                questions.append(asked)
            yield workspace, questions[0], questions[1]


def report(outcomes: dict[str, tuple[list[Outcome], list[Outcome]]], *, keep: bool) -> None:
    """Print everything; keep the figures of a whole run."""
    summaries = {role: summary(*some) for role, some in outcomes.items()}
    names = list(dict.fromkeys(name for one in summaries.values() for name in one))
    table = markdown_table(
        ["XQuAD and ClapNQ", *summaries], [[name, *(one.get(name) for one in summaries.values())] for name in names]
    )
    print(table)
    print(json.dumps(summaries))
    if keep and {"reader", "base"} <= set(outcomes):
        figures = {name: _figure(name, outcomes, summaries) for name in TARGETS}
        rows = [{"role": role, **one} for role, one in summaries.items()]
        print(f"kept in {write_part('reader', figures, table=table, rows=rows)}")


def _figure(
    name: str, outcomes: dict[str, tuple[list[Outcome], list[Outcome]]], summaries: dict[str, dict[str, float]]
) -> Figure:
    """The reader's figure beside the base's; a citation beside always citing the first passage."""
    key = name.rpartition(".")[2]
    answerable, unanswerable = outcomes["reader"]
    values = {
        "f1": [one.f1 for one in answerable],
        "contained": [one.contained for one in answerable],
        "answered": [float(not one.declined) for one in answerable],
        "cited": [float(bool(one.cited)) for one in answerable if not one.declined],
        "abstained": [float(one.declined) for one in unanswerable],
    }[key]
    ours = summaries["reader"][key]
    peer = summaries["reader"]["cited_if_always_first"] if key == "cited" else summaries["base"][key]
    low, high = mean_interval(values)
    return Figure(
        ours=round(ours, 4),
        peer=round(peer, 4),
        peer_name="always [1]" if key == "cited" else "base",
        ratio=round(ours / peer, 3) if peer else None,
        low=round(low, 3),
        high=round(high, 3),
        unit=f"share (target {TARGETS[name]:g}); low and high are its 95% interval",
        better="higher",
        command=COMMAND,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=QUESTIONS, help="questions of each set; fewer keep no figures")
    parser.add_argument("--adapter", type=Path, help="LoRA (GGUF) instead of the shipped one")
    parser.add_argument("--models", default="reader,base", help="any of reader, base")
    parser.add_argument("--passages", type=int, help="in a prompt, instead of the settings'; keeps no figures")
    parser.add_argument("--sets", default="xquad,clapnq", help="any of xquad, clapnq")
    parser.add_argument("--home", type=Path, help="keep the documents here for another run")
    parser.add_argument("--answers", type=Path, help="write every outcome to this file")
    parser.add_argument("--show", action="store_true", help="print every answer")
    given = parser.parse_args()
    outcomes: dict[str, tuple[list[Outcome], list[Outcome]]] = {}
    filling = filled(given.home, data_folder(), given.limit, passages=given.passages)
    with filling as (workspace, answerable, unanswerable):
        if "xquad" not in given.sets:
            answerable = []
        if "clapnq" not in given.sets:
            unanswerable = []
        names = register(workspace, given.adapter)
        for role in given.models.split(","):
            began = time.monotonic()
            outcomes[role] = (
                ask_all(workspace, answerable, model=names[role], collection="xquad", show=given.show),
                ask_all(workspace, unanswerable, model=names[role], collection="clapnq", show=given.show),
            )
            print(f"{role} ({names[role]}): {time.monotonic() - began:.0f} s on {os.cpu_count()} cores", flush=True)
    if given.answers:
        lines: list[dict[str, Any]] = [
            {"role": role, "set": name, **{slot: getattr(one, slot) for slot in Outcome.__dataclass_fields__}}
            for role, pair in outcomes.items()
            for name, some in zip(("xquad", "clapnq"), pair, strict=True)
            for one in some
        ]
        given.answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    whole = given.limit >= QUESTIONS and given.passages is None and given.sets == "xquad,clapnq"
    report(outcomes, keep=whole)


if __name__ == "__main__":
    main()
