"""Files of questions + a collection -> retrieval-aware examples, made once and kept in the run's folder.

    FOLDER/retrieval-aware/    train.jsonl, dev.jsonl, held-out.jsonl, made.json

A run that goes on takes up what was made, so it learns the same examples even if documents have changed since.
It does not know how an example is made (`dataset.retrieval_aware`), nor how a model is trained.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from graft.dataset import Example
from graft.dataset.reading import read_examples
from graft.dataset.retrieval_aware import REFUSAL, Shelf, retrieval_aware
from graft.dataset.writing import write_examples, write_lines
from graft.errors import TrainingError
from graft.evaluation.questions import read_questions
from graft.models import Message
from graft.settings import RetrievalAwareSettings

FOLDER = "retrieval-aware"
MADE = "made.json"
PARTS = ("train", "dev", "held-out")
HELD_OUT_SHARE = 0.1
"""Of the documents, where no file of held-out questions is given."""
LEAST_TO_SPLIT = 20

_HOW = {
    "ranked": "with the evidence where retrieval ranks it",
    "inserted": "with evidence put in that retrieval missed",
    "removed": "to be declined, the evidence taken away",
    "missed": "to be declined, as retrieval missed the evidence",
    "unanswerable": "to be declined, as no document answers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounded:
    """What was made, or taken up.

    Attributes:
        parts: "train", "dev", "held-out"; no document stands in train and in another part, in prompts neither.
        questions: That were read, all files together.
        counts: Examples by how they came about; see `dataset.retrieval_aware`.
        left_out: Questions that no example was made of, by reason.
        taken_up: They were made before.
    """

    collection: str
    parts: Mapping[str, tuple[Example, ...]]
    questions: int
    counts: Mapping[str, int]
    left_out: Mapping[str, int]
    taken_up: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What was made and what was left out, in words."""
        made = ", ".join(f"{count:,} {_HOW.get(how, how)}" for how, count in self.counts.items())
        before = "; they were made before and are taken up" if self.taken_up else ""
        notes = [
            f"{sum(self.counts.values()):,} of {self.questions:,} questions are examples on the collection "
            f"{self.collection!r}: {made or 'none'}{before}"
        ]
        if self.left_out:
            reasons = ", ".join(f"{reason} ({count:,})" for reason, count in self.left_out.items())
            notes.append(f"{sum(self.left_out.values()):,} questions are left out: {reasons}")
        return tuple(notes)

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the examples."""
        return {
            "collection": self.collection,
            "questions": self.questions,
            "examples": {part: len(examples) for part, examples in self.parts.items()},
            "counts": dict(self.counts),
            "left_out": dict(self.left_out),
            "taken_up": self.taken_up,
        }


def ground(
    questions: Mapping[str, Sequence[Example]],
    shelf: Shelf,
    folder: Path,
    *,
    collection: str,
    base: str,
    settings: RetrievalAwareSettings,
    seed: int,
    tell: Callable[[str], object] = lambda what: None,
) -> Grounded:
    """Make the examples of a run, or take up those that were made for the same questions and settings.

    Args:
        questions: By part: "train" at least. Parts that are not given are split off it, by documents.
        folder: Of the run.
        base: Who counts the tokens of prompts.
    Raises:
        TrainingError: No question became an example; or the run began with other examples.
        NotFound: There is no such collection.
    """
    told = {
        "collection": collection,
        "questions": {part: _digest(some) for part, some in questions.items()},
        "base": base,
        "seed": seed,
        "settings": {name: asdict(one) for name, one in _settings(settings, shelf).items()},
    }
    asked = json.loads(json.dumps(told))  # as it is read again
    kept = folder / FOLDER
    before = _read_made(kept)
    if before is not None and before["asked"] == asked:
        parts = {part: _read_part(kept / f"{part}.jsonl") for part in PARTS}
        return _grounded(collection, parts, before, taken_up=True)
    if before is not None and (folder / "run").exists():
        changed = next(key for key in asked if before["asked"].get(key) != asked[key])
        raise TrainingError(f"{folder} was begun with examples of other {changed}", fix="give the run another --name")
    made = _make(questions, shelf, settings, seed, tell)
    result = _grounded(collection, made.parts, {"counts": made.counts, "dropped": made.dropped}, taken_up=False)
    if not made.parts["train"]:
        raise TrainingError(
            f"no question to learn from became an example; {'; '.join(result.notes)}",
            fix=f'graft search "one of the questions" --collection {collection}',
        )
    kept.mkdir(parents=True, exist_ok=True)
    (kept / MADE).unlink(missing_ok=True)
    for part in PARTS:
        write_examples(kept / f"{part}.jsonl", made.parts[part])
    readers = sorted(shelf.principals)
    write_lines(
        kept / MADE, [{"asked": asked, "counts": made.counts, "dropped": made.dropped, "principals": readers}]
    )
    return result


def questions_in(path: Path) -> tuple[Example, ...] | None:
    """The questions of a question file as examples, evidence in `extra["evidence"]`; None for files of other kinds.

    Raises:
        UsageError: A line is no question; names it.
        LimitExceeded: More lines, or longer ones, than the limits allow.
    """
    if not _is_question_file(path):
        return None
    return tuple(
        Example(
            id=question.id,
            messages=(*question.messages, Message("assistant", (*question.answers, REFUSAL)[0])),
            origin=path.name,
            extra={**question.extra, "kind": question.kind},
        )
        for question in read_questions(path).questions
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    parts: dict[str, tuple[Example, ...]]
    counts: dict[str, int]
    dropped: dict[str, int]


def _make(
    questions: Mapping[str, Sequence[Example]],
    shelf: Shelf,
    settings: RetrievalAwareSettings,
    seed: int,
    tell: Callable[[str], object],
) -> _Made:
    total = sum(map(len, questions.values()))
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        tell(f"make retrieval-aware examples: {done:,} of {total:,} questions")

    parts: dict[str, tuple[Example, ...]] = dict.fromkeys(PARTS, ())
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    dev_share, held_out_share = _shares(questions, settings)
    for part, some in questions.items():
        kept_back = dev_share + held_out_share if part == "train" else 0.0
        made = retrieval_aware(
            some, shelf, settings=replace(settings, dev_share=kept_back), seed=seed, progress=progress
        )
        parts[part] = made.train
        for other, example in _divided(made.dev, {"dev": dev_share, "held-out": held_out_share}):
            parts[other] = (*parts[other], example)
        counts.update(made.counts)
        dropped.update(made.dropped)
    return _Made(parts=parts, counts=dict(counts), dropped=dict(dropped))


def _shares(questions: Mapping[str, Sequence[Example]], settings: RetrievalAwareSettings) -> tuple[float, float]:
    """Of the documents of `train`, for dev and for the proof; nothing is kept back from a handful of questions."""
    if len(questions["train"]) < LEAST_TO_SPLIT:
        return 0.0, 0.0
    return (
        0.0 if "dev" in questions else settings.dev_share,
        0.0 if "held-out" in questions else HELD_OUT_SHARE,
    )


def _divided(examples: Sequence[Example], shares: Mapping[str, float]) -> Iterator[tuple[str, Example]]:
    """Each example with its part; those of one source stay together, the largest sources are placed first."""
    by_source: dict[str, list[Example]] = {}
    for example in examples:
        by_source.setdefault(str(example.source), []).append(example)
    placed = {part: 0 for part, share in shares.items() if share}
    for _, some in sorted(by_source.items(), key=lambda item: (-len(item[1]), item[0])):
        part = min(placed, key=lambda name: (placed[name] / shares[name], -shares[name]))
        placed[part] += len(some)
        yield from ((part, example) for example in some)


def _settings(settings: RetrievalAwareSettings, shelf: Shelf) -> dict[str, Any]:
    return {"retrieval_aware": settings, "retrieval": shelf.retrieval, "answering": shelf.answering}


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        turns = [[turn.role, turn.content] for turn in example.messages]
        told = [example.id, turns, example.extra.get("kind"), example.extra.get("evidence")]
        digest.update(json.dumps(told, default=str).encode() + b"\n")
    return digest.hexdigest()


def _read_made(kept: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((kept / MADE).read_text(encoding="utf-8"))
        return found if {"asked", "counts", "dropped"} <= found.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _read_part(path: Path) -> tuple[Example, ...]:
    return read_examples(path).examples if path.stat().st_size else ()


def _grounded(
    collection: str, parts: Mapping[str, tuple[Example, ...]], made: Mapping[str, Any], *, taken_up: bool
) -> Grounded:
    return Grounded(
        collection=collection,
        parts=parts,
        questions=sum(made["counts"].values()) + sum(made["dropped"].values()),
        counts=made["counts"],
        left_out=made["dropped"],
        taken_up=taken_up,
    )


def _is_question_file(path: Path) -> bool:
    """Whether its first line is an object with a question, and no conversation."""
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(10_000_000))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and isinstance(first.get("question"), str) and "answers" in first
