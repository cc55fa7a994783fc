"""settings + number of examples -> how many steps, which examples in each, and how large each step is.

All of it follows from the seed and the step's number, so a resumed run needs no state for it.
It does not know what an example is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graft.errors import UsageError
from graft.settings import TuningSettings

_CHOICES = {
    "method": ("lora", "activated"),
    "schedule": ("linear", "cosine"),
    "precision": ("auto", "float32", "bfloat16"),
}
_RANGES = (
    ("epochs", 1e-6, 1e6),
    ("learning_rate", 1e-12, math.inf),
    ("alpha", 1e-6, math.inf),
    ("warmup_share", 0.0, 1.0),
    ("weight_decay", 0.0, math.inf),
    ("max_grad_norm", 0.0, math.inf),
    ("evaluate_steps", 0, math.inf),
    ("checkpoint_steps", 0, math.inf),
    ("patience", 0, math.inf),
    ("prompt_cache_mb", 0, math.inf),
    ("shards", 0, 1024),
)
"""Setting, least, most; what is no number is in no range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Steps of one run.

    >>> plan = Schedule(examples=10, batch_size=4, epochs=2.0, seed=0)
    >>> plan.steps, [len(batch) for batch in plan.batches(1)]
    (6, [4, 2, 4, 4, 2])
    >>> sorted(number for batch in list(plan.batches())[:3] for number in batch) == list(range(10))
    True

    Attributes:
        families: Numbers of examples that begin alike: up to `together` of a family are drawn one after the other,
            others at random. Empty: all at random.
    """

    examples: int
    batch_size: int
    epochs: float
    seed: int
    families: tuple[tuple[int, ...], ...] = ()
    together: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.examples / self.batch_size)

    @property
    def steps(self) -> int:
        return max(1, math.ceil(self.epochs * self.steps_per_epoch))

    def order(self, epoch: int) -> list[int]:
        """Numbers of all examples, in the order of that epoch."""
        random = np.random.default_rng([self.seed, epoch])
        if not self.families:
            order: list[int] = random.permutation(self.examples).tolist()
            return order
        drawn = [random.permutation(family).tolist() for family in self.families]
        groups = [one[at : at + self.together] for one in drawn for at in range(0, len(one), self.together)]
        return [number for place in random.permutation(len(groups)) for number in groups[place]]

    def batches(self, first: int = 0) -> Iterator[list[int]]:
        """Numbers of the examples of each step from `first` on; each epoch has an order of its own."""
        epoch, order = -1, list[int]()
        for step in range(first, self.steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self.order(epoch)
            start = step % self.steps_per_epoch * self.batch_size
            yield order[start : start + self.batch_size]


def plan(settings: TuningSettings, examples: int, *, families: Sequence[Sequence[int]] = ()) -> Schedule:
    """The run's schedule; `families` of examples that begin alike, for a trainer that computes a beginning once.

    Raises:
        UsageError: A setting that no run can have.
    """
    for name in ("rank", "batch_size", "micro_tokens", "context_tokens", "alike_together"):
        if getattr(settings, name) < 1:
            raise UsageError(
                f"[tuning] {name} = {getattr(settings, name)} is below 1", fix=f"set {name} to 1 or more"
            )
    for name, allowed in _CHOICES.items():
        if getattr(settings, name) not in allowed:
            raise UsageError(
                f"[tuning] {name} = {getattr(settings, name)!r} is not one of {', '.join(allowed)}",
                fix=f'{name} = "{allowed[0]}"',
            )
    for name, least, most in _RANGES:
        if not least <= getattr(settings, name) <= most or math.isinf(getattr(settings, name)):
            raise UsageError(
                f"[tuning] {name} = {getattr(settings, name)} is not from {least:g} to {most:g}",
                fix=f"{name} = {getattr(TuningSettings(), name)}",
            )
    return Schedule(
        examples=examples,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        families=tuple(map(tuple, families)),
        together=settings.alike_together,
    )


def warmup_steps(settings: TuningSettings, steps: int) -> int:
    """Steps in which the step size rises; the last one is never among them, or one step alone would learn nothing.

    >>> [warmup_steps(TuningSettings(warmup_share=0.05), steps) for steps in (1, 2, 100)]
    [0, 1, 5]
    """
    return min(math.ceil(settings.warmup_share * steps), steps - 1)


def step_size(settings: TuningSettings, step: int, steps: int) -> float:
    """Learning rate of step number `step` from 0: a rise from 0, then a fall to 0 at `steps`.

    Source: transformers' get_linear_ and get_cosine_schedule_with_warmup, so that runs can be compared.

    >>> settings = TuningSettings(learning_rate=1.0, warmup_share=0.2)
    >>> [step_size(settings, step, 10) for step in (0, 1, 2, 6, 9)]
    [0.0, 0.5, 1.0, 0.5, 0.125]
    """
    rising = warmup_steps(settings, steps)
    if step < rising:
        return settings.learning_rate * step / rising
    done = (step - rising) / max(1, steps - rising)
    share = 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return settings.learning_rate * max(0.0, share)
