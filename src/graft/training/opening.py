"""A run -> the trainer for it: the lean one where it can, the general one elsewhere.

It does not know hosted trainers: those are asked for by the name of a provider's model.
"""

from __future__ import annotations

from typing import Literal, get_args

from graft.errors import UsageError
from graft.training.machine import gpu_memory_mb
from graft.training.protocol import Trainer, TrainRun
from graft.training.silence import need_tune

Backend = Literal["auto", "lean", "general"]


def open_trainer(run: TrainRun) -> Trainer:
    """The trainer that [tuning] backend names; "auto" takes the general one on a GPU, else the lean one if it can.

    Raises:
        UsageError: No such back end.
        TrainingError: The `tune` extra is not installed.
    """
    need_tune()
    from graft.training.general import GeneralTrainer
    from graft.training.lean.trainer import LeanTrainer

    backend = run.settings.backend
    if backend not in get_args(Backend):
        raise UsageError(
            f"[tuning] backend = {backend!r} is not one of {', '.join(get_args(Backend))}", fix='backend = "auto"'
        )
    lean = LeanTrainer()
    if backend == "lean" or run.settings.method == "activated":
        return lean
    if backend == "auto" and gpu_memory_mb() is None and lean.refuse(run) is None:
        return lean
    return GeneralTrainer()
