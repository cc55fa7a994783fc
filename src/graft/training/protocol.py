"""What every trainer is to the rest of Graft: encoded examples -> an adapter in a run folder.

A run folder holds all that is needed to repeat the run:

    run.json            what was asked: settings, base, ids of the examples, versions
    curve.jsonl         a line a step: loss, dev loss, step size, tokens
    checkpoints/        states to go on from; each is whole or absent
    adapter/            the result, in PEFT's format

It does not know how a trainer computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from graft.settings import TuningSettings
from graft.training.encoding import Encoded

Stopped = Literal["finished", "early", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRun:
    """What is to be trained.

    Attributes:
        checkpoint: The base model's folder; for a hosted trainer, nothing is read there.
        dev: Examples that are never learnt, on which the best state is chosen; may be empty.
        folder: The run folder. Where it holds the states of the same run, training goes on from the last.
    """

    checkpoint: Path
    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    settings: TuningSettings
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """Where a run stands.

    Attributes:
        step, steps: Of the optimiser; steps is the most there will be.
        loss: Mean over the answer tokens of this step's batch, in nats.
        dev_loss: The latest measured; None before the first.
        tokens_per_second: Of prompt and answer, over the last steps.
    """

    step: int
    steps: int
    loss: float
    dev_loss: float | None
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What came of a run.

    Attributes:
        adapter: PEFT folder of the state that `choosing` prefers (the last one where there is no dev part);
            None where the provider keeps it, or the run was cancelled.
        model: The provider's name for the tuned model; hosted only.
        step: Of the state that was kept.
        loss: Of the last step.
        dev_loss, dev_exact: Of the state that was kept; `dev_exact` is the share of dev answers that it would write
            word for word.
        mergeable: Whether base + adapter can be made one model.
        resumed_from: Step that this call went on from; 0 for a fresh start.
    """

    adapter: Path | None
    step: int
    steps: int
    loss: float
    dev_loss: float | None
    tokens: int
    seconds: float
    stopped: Stopped
    model: str | None = None
    dev_exact: float | None = None
    mergeable: bool = True
    resumed_from: int = 0


Tell = Callable[[TrainProgress], object]
Cancelled = Callable[[], bool]


class Trainer(Protocol):
    """Trains one run at a time."""

    @property
    def name(self) -> str: ...

    def refuse(self, run: TrainRun) -> str | None:
        """Why this trainer cannot do this run, or None."""
        ...

    def train(
        self, run: TrainRun, *, progress: Tell = lambda seen: None, cancelled: Cancelled = lambda: False
    ) -> TrainResult:
        """Train, or go on with a run that was cut off.

        Args:
            progress: Called after every step.
            cancelled: Asked after every step; once it answers True the state is saved and training stops.
        Raises:
            TrainingError: It cannot start, or cannot go on: the loss is no number, memory or disk is short,
                or `folder` holds another run. The last checkpoint stays valid.
        """
        ...
