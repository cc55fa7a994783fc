"""A run -> the trainer for it: the lean one where it can, the general one elsewhere.

It does not know hosted trainers: those are asked for by the name of a provider's model.
"""

from __future__ import annotations

from typing import Literal, get_args

from graft.errors import UsageError
from graft.settings import TuningSettings
from graft.training.machine import gpu_memory_mb, gpus
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
    from graft.training.sharded import ShardedTrainer

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
    shards = shards_of(run.settings, gpus())
    return ShardedTrainer(shards) if shards > 1 else GeneralTrainer()


def shards_of(settings: TuningSettings, count: int) -> int:
    """Processes that a run is spread over: as many as the setting says, else as GPUs are there and divide the batch.

    >>> [shards_of(TuningSettings(batch_size=8), count) for count in (0, 1, 3, 4)]
    [1, 1, 2, 4]
    """
    if settings.shards or settings.quantize:
        return settings.shards or 1
    return next(n for n in range(max(1, count), 0, -1) if settings.batch_size % n == 0)
