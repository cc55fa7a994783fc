"""What is asked of an experiment, checked."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from graft.errors import UsageError

ARMS = (
    "base",
    "rag",
    "few-shot",
    "tuned",
    "tuned+rag",
    "retrieval-aware",
    "retrieval-aware+rag",
    "nearest-vote",
    "constant",
    "best-sentence",
    "always-first",
)
CONTROLS = ARMS[-4:]
"""Need no model."""
READ_DOCUMENTS = ("rag", "tuned+rag", "retrieval-aware+rag", "best-sentence", "always-first")
LEARN = {"tuned": "tuned", "tuned+rag": "tuned", "retrieval-aware": "aware", "retrieval-aware+rag": "aware"}
"""Arm -> which of the two trained models answers."""
MOST_SEEDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """An experiment as it was asked for; the same request goes on with the same unfinished one.

    Attributes:
        questions: Question file; None makes questions from the documents.
        model: The base of every arm: a name of `graft models list`, a GGUF's path, or litellm/PROVIDER/MODEL.
        train: Examples, or a question file: what tuned arms learn, few-shot shows and nearest-vote asks.
        tuned, retrieval_aware: Models that were tuned before, instead of training here.
        arms: Names of ARMS; empty is every arm that can be had.
        limit: Only the first so many questions.
        judge: Model that judges short and free answers, one by one and in pairs.
        budget_usd: Stop before the question that would exceed it.
        seeds: Trainings of each tuned arm.
        database: SQLite file on which SQL is executed, read-only; without it SQL is compared word for word.
        fresh: File of facts to change in a copy of the documents, and to ask about afterwards.
        into: Folder of the experiment; None is one in the workspace, by the request.
        documents: Folders that were added for it before; only told, for whoever repeats it.
    """

    questions: str | None
    model: str
    train: str | None = None
    tuned: str | None = None
    retrieval_aware: str | None = None
    arms: tuple[str, ...] = ()
    collection: str | None = None
    limit: int | None = None
    judge: str | None = None
    budget_usd: float | None = None
    seeds: int = 1
    database: str | None = None
    fresh: str | None = None
    into: str | None = None
    documents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", tuple(dict.fromkeys(self.arms)))
        unknown = [name for name in self.arms if name not in ARMS]
        if unknown:
            raise UsageError(f"no arm {unknown[0]!r}; have {', '.join(ARMS)}", fix="--arms base,rag")
        if self.budget_usd is not None and not self.budget_usd >= 0:  # nan too
            raise UsageError(f"a budget of {self.budget_usd} is no sum of dollars", fix="--budget 5")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise UsageError(f"{self.seeds} seeds; from 1 to {MOST_SEEDS}", fix="--seeds 3")

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**dataclasses.asdict(self), "arms": list(self.arms), "documents": list(self.documents)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**given, "arms": tuple(given["arms"]), "documents": tuple(given.get("documents", ()))})

    def experiment(self) -> dict[str, Any]:
        """What makes it another experiment: neither its budget nor where the documents came from."""
        return {name: value for name, value in self.to_json().items() if name not in ("budget_usd", "documents")}

    def command(self) -> str:
        """The command line that asks for the same.

        >>> CompareRequest(questions="my q.jsonl", model="smollm2-135m", arms=("base", "rag")).command()
        "graft compare --questions 'my q.jsonl' --model smollm2-135m --arms base,rag"
        """
        words = ["graft", "compare", *self.documents]
        for option, value in (
            ("--questions", self.questions),
            ("--train", self.train),
            ("--model", self.model),
            ("--tuned", self.tuned),
            ("--retrieval-aware", self.retrieval_aware),
            ("--arms", ",".join(self.arms) or None),
            ("--collection", self.collection),
            ("--limit", self.limit),
            ("--judge", self.judge),
            ("--budget", self.budget_usd),
            ("--seeds", None if self.seeds == 1 else self.seeds),
            ("--database", self.database),
            ("--fresh", self.fresh),
        ):
            words += [] if value is None else [option, str(value)]
        return shlex.join(words)


def arms_of(
    request: CompareRequest, *, documents: bool, questions_to_learn: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The arms that are asked for, or all that can be had; and of those that are not, what they would need.

    Args:
        documents: There are some to retrieve from.
        questions_to_learn: The train file holds questions, which retrieval-aware training needs.
    Raises:
        UsageError: One that is asked for lacks what it needs; names it.
    """
    lacking = {}
    for name in ARMS:
        learns = LEARN.get(name)
        if name in READ_DOCUMENTS and not documents:
            lacking[name] = ("documents to retrieve from", "graft add FOLDER")
        elif name in ("few-shot", "nearest-vote", "constant") and request.train is None:
            lacking[name] = ("examples", "--train TRAIN.jsonl")
        elif learns == "tuned" and request.tuned is None and request.train is None:
            lacking[name] = ("a tuned model, or examples to train one", "--tuned NAME, or --train TRAIN.jsonl")
        elif learns == "aware" and request.retrieval_aware is None and not (questions_to_learn and documents):
            lacking[name] = (
                "a retrieval-aware model, or a file of questions and documents to train one",
                "--retrieval-aware NAME",
            )
    for name in request.arms:
        if name in lacking:
            raise UsageError(f"the arm {name!r} needs {lacking[name][0]}", fix=lacking[name][1])
    taken = request.arms or tuple(name for name in ARMS if name not in lacking)
    without = {name: lacking[name][1] if name in lacking else f"--arms {name}" for name in ARMS if name not in taken}
    return taken, without
