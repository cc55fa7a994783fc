"""What is asked of a tuning run, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from graft.errors import NotFound, UsageError
from graft.models import ModelSpec

Proof = Literal["full", "quality", "none"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
REQUEST, DONE = "request.json", "done.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """A run as it was asked for; the same request goes on with the same unfinished run.

    Attributes:
        name: Of the tuned model.
        model: The base: a name of `graft models list`, a GGUF's path, a checkpoint's folder, or a hosted model.
        train, dev, held_out: Files of examples. What is not given is split off `train`, related examples together.
        retrieval_aware: The files hold questions with answers: learn to answer them from what retrieval finds in
            this collection; see `grounding`.
        mapping: Column or key of each part of an example, where the file's own names do not tell.
        proof: "full" measures the task, general ability and memorisation; "quality" the task alone.
        questions: Most held-out examples that are asked, of tuned and base each.
        ability: Questions of each task of general ability.
        canaries: Random codes planted into the training examples to measure memorisation; 0 plants none.
    """

    name: str
    model: str
    train: str
    dev: str | None = None
    held_out: str | None = None
    retrieval_aware: str | None = None
    mapping: Mapping[str, str] | None = None
    proof: Proof = "full"
    questions: int = 100
    ability: int = 20
    canaries: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot name a model: letters, digits, dots, dashes, at most 64",
                fix="--name support-1",
            )
        if self.proof not in get_args(Proof):
            raise UsageError(f"proof {self.proof!r}; have {', '.join(get_args(Proof))}", fix="--proof quality")

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedModel:
    """A finished run.

    Attributes:
        version: 1 for the first of its name.
        folder: Holds request.json, split.json, run/ (curve, checkpoints, adapter), adapter.gguf, card.md.
        base: The base's name.
        checkpoint, gguf, adapter: The base to train and to serve, and the adapter; None where a provider has them.
        hosted: How the tuned model is asked where a provider keeps it, else None.
        dev_loss: Of the state that was kept, in nats; None without a dev part.
        joules: Of the processor while it trained; None where unknown, or where training went on from a state.
        figures: Held-out means: {"tuned" | "base" | a baseline: {metric: share}}; empty where not measured.
    """

    name: str
    version: int
    folder: Path
    base: str
    checkpoint: Path | None
    gguf: Path | None
    adapter: Path | None
    examples: int
    steps: int
    seconds: float
    dev_loss: float | None
    mergeable: bool
    figures: Mapping[str, Mapping[str, float]]
    hosted: ModelSpec | None = None
    joules: float | None = None

    @property
    def served_adapter(self) -> Path:
        """The adapter as llama.cpp loads it."""
        return self.folder / "adapter.gguf"

    @property
    def card(self) -> Path:
        """Markdown, see `evaluation.card`."""
        return self.folder / "card.md"

    def spec(self, name: str) -> ModelSpec:
        """How it is registered under a name, and served."""
        if self.hosted is not None:
            return dataclasses.replace(self.hosted, name=name, run=str(self.folder))
        return ModelSpec(
            name=name, kind="file", target=str(self.gguf), adapter=str(self.served_adapter), run=str(self.folder)
        )

    def weights(self) -> tuple[Path, Path]:
        """The base's checkpoint and the adapter.

        Raises:
            UsageError: A provider keeps them.
        """
        if self.checkpoint is None or self.adapter is None:
            at = self.base if self.hosted is None else self.hosted.target
            raise UsageError(
                f"{self.name!r} is kept by its provider as {at!r}: its weights are not here, so it can neither be "
                "exported nor read from inside",
                fix=f"graft evaluate {self.name} --questions FILE measures it; tune a local model to take one away",
            )
        return self.checkpoint, self.adapter

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["hosted"] = None if self.hosted is None else self.hosted.to_json()
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def read_tuned(folder: Path) -> TunedModel:
    """What `TunedModel.to_json` left in a run's folder.

    Raises:
        NotFound: The run is not finished, or its folder is gone.
    """
    try:
        given = json.loads((folder / DONE).read_text(encoding="utf-8"))
        for key in ("folder", "checkpoint", "gguf", "adapter"):
            given[key] = None if given[key] is None else Path(given[key])
        if given.get("hosted") is not None:
            given["hosted"] = ModelSpec.from_json(given["hosted"])
        return TunedModel(**given)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotFound(f"{folder} holds no finished run: {error}", fix="graft tune --help") from error
