"""A run -> what would happen: tokens and mask of three examples, time, memory, cost, and what is sure to fail.

It does not train, and does not know how any of it is shown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from graft.errors import TrainingError
from graft.settings import TuningSettings
from graft.training.checkpoint import Checkpoint, open_checkpoint
from graft.training.encoding import Encoded, Refused
from graft.training.lean.shape import Shape, read_shape, why_not
from graft.training.lean.sharing import segments
from graft.training.machine import bfloat16_is_fast, disk_mb, gflops, gpu_memory_mb, memory_mb
from graft.training.protocol import Trainer, TrainRun
from graft.training.schedule import plan

_SHOWN = 3
_STATES_ON_DISK = 4
"""The two latest, the best, and the one being written."""
_LIBRARIES_MB = 450
_SHARE_OF_PEAK = 0.55
"""Of the processor's matrix speed that a run reaches with its states; benchmarks/bench_train.py: 0.7 alone."""
_BFLOAT16 = 1.4
"""Times as fast as float32 where the processor has such products; measured on whole runs."""
_SAMPLED_STEPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownToken:
    """One token as it is learnt: its text, and whether loss falls on it."""

    text: str
    id: int
    learnt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExample:
    """An example in its exact tokens; the texts joined are what the model sees."""

    id: str
    origin: str
    tokens: tuple[ShownToken, ...]
    shortened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What a run would be.

    Attributes:
        template: The chat template, as it stands.
        refused: Examples that are left out, with reasons.
        tokens: Of all training examples, one pass; `answer_tokens` those that are learnt.
        seconds: Estimated, the dev loss included; None where it cannot be (no GPU figure is known beforehand).
        memory_mb, disk_mb: Estimated needs; `free_memory_mb`, `free_disk_mb` what there is.
        cost_usd: 0 for this machine; a hosted trainer's price where known, else None.
        warnings: What may go wrong. refusals: What is sure to fail, with its remedy.
    """

    examples: tuple[ShownExample, ...]
    template: str
    trainer: str
    train: int
    dev: int
    refused: tuple[Refused, ...]
    shortened: int
    steps: int
    tokens: int
    answer_tokens: int
    longest: int
    seconds: float | None
    memory_mb: float | None
    free_memory_mb: float
    disk_mb: float
    free_disk_mb: float
    cost_usd: float | None
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]

    def require(self) -> None:
        """
        Raises:
            TrainingError: With everything that is sure to fail.
        """
        if self.refusals:
            first, _, fix = self.refusals[0].partition(" / fix: ")
            rest = "".join(f"; {other}" for other in self.refusals[1:])
            raise TrainingError(first + rest, fix=fix or "graft tune --help")


def preflight(run: TrainRun, tokenizer: Any, trainer: Trainer, *, refused: Sequence[Refused] = ()) -> Preflight:
    """Look at the run and time this machine for a fifth of a second.

    Args:
        tokenizer: That encoded the examples.
        refused: What encoding left out.
    """
    checkpoint = open_checkpoint(run.checkpoint)
    lean = trainer.name == "lean"
    shape = read_shape(checkpoint.config) if why_not(checkpoint.config) is None else None
    steps = plan(run.settings, max(1, len(run.train))).steps
    longest = max((len(one.tokens) for one in (*run.train, *run.dev)), default=0)
    need = None
    if lean and shape is not None:
        need = lean_memory_mb(shape, run.settings, longest)
    elif gpu_memory_mb() is None:
        need = checkpoint.size_bytes / 1e6 * 2 + _LIBRARIES_MB
    disk = (3 * 4 * shape.lora_weights(run.settings.rank) / 1e6 if shape else 200.0) * _STATES_ON_DISK
    free_memory, free_disk = memory_mb(), disk_mb(run.folder)
    return Preflight(
        examples=tuple(show(one, tokenizer) for one in run.train[:_SHOWN]),
        template=str(tokenizer.chat_template),
        trainer=trainer.name,
        train=len(run.train),
        dev=len(run.dev),
        refused=tuple(refused),
        shortened=sum(1 for one in (*run.train, *run.dev) if one.shortened),
        steps=steps,
        tokens=sum(len(one.tokens) for one in run.train),
        answer_tokens=sum(len(one.tokens) - one.answer_start for one in run.train),
        longest=longest,
        seconds=_seconds(run, shape, steps) if lean and shape is not None and run.train else None,
        memory_mb=need,
        free_memory_mb=free_memory,
        disk_mb=disk,
        free_disk_mb=free_disk,
        cost_usd=0.0 if trainer.name in ("lean", "general") else None,
        warnings=tuple(_warnings(run, refused)),
        refusals=tuple(_refusals(run, trainer, checkpoint, need, free_memory, disk, free_disk, longest)),
    )


def show(one: Encoded, tokenizer: Any) -> ShownExample:
    """Exact tokens with the loss mask. A token that is part of a character shows as its replacement mark."""
    tokens = tuple(
        ShownToken(text=tokenizer.decode([token]), id=token, learnt=learnt)
        for token, learnt in zip(one.tokens, one.mask, strict=True)
    )
    return ShownExample(id=one.example.id, origin=one.example.origin, tokens=tokens, shortened=one.shortened)


def lean_memory_mb(shape: Shape, settings: TuningSettings, longest: int) -> float:
    """Peak memory of the lean trainer in MB (10^6 bytes), some tenths above what was measured.

    Frozen weights once and merged once, embedding, four vectors of the adapter's size, what a pack of tokens keeps
    for its backward, the widest intermediate results, one block of logits, and the libraries.
    """
    tokens = max(settings.micro_tokens, longest)
    vocabulary = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    frozen = 2 * shape.linear_weights + vocabulary + 5 * shape.lora_weights(settings.rank)
    heads = (2 * shape.heads + 2 * shape.kv_heads) * shape.head
    kept = tokens * shape.layers * (2 * shape.hidden + heads + 2 * shape.intermediate)
    passing = tokens * (8 * shape.intermediate + 8 * shape.hidden) + 3 * 128 * shape.vocabulary
    return 4 * (frozen + kept + passing) / 1e6 + _LIBRARIES_MB


def _seconds(run: TrainRun, shape: Shape, steps: int) -> float:
    """From this machine's matrix speed now, and the operations that the run needs."""
    import torch

    before = torch.get_num_threads()
    if run.settings.threads:
        torch.set_num_threads(run.settings.threads)
    began = time.perf_counter()
    speed = gflops() * 1e9 * _SHARE_OF_PEAK * (_BFLOAT16 if run.settings.precision == "bfloat16" else 1.0)
    torch.set_num_threads(before)
    share = _computed_share(run)
    lengths = [round(share * len(one.tokens)) for one in run.train]
    answers = [len(one.tokens) - one.answer_start for one in run.train]
    epochs = steps * run.settings.batch_size / len(run.train)
    training = epochs * shape.step_flops(lengths, answers, rank=run.settings.rank)
    every = run.settings.evaluate_steps
    measured = 1 + (steps // every if every else 0)
    dev = measured * 2.0 * shape.linear_weights * sum(len(one.tokens) for one in run.dev)
    return (training + dev) / speed + (time.perf_counter() - began)


def _computed_share(run: TrainRun) -> float:
    """Of the tokens, those that are computed: what rows of a batch begin with is computed once. From a few steps."""
    from graft.training.lean.trainer import families_of

    if run.settings.method == "activated":
        return 1.0
    given = computed = 0
    schedule = plan(run.settings, len(run.train), families=families_of(run))
    for batch in islice(schedule.batches(), _SAMPLED_STEPS):
        rows = [run.train[number].tokens for number in batch]
        parts = segments(rows, [run.train[number].answer_start for number in batch])
        computed += sum(part.stop - part.start for part in parts)
        given += sum(map(len, rows))
    return computed / given


def _warnings(run: TrainRun, refused: Sequence[Refused]) -> list[str]:
    found = []
    answers = Counter(one.example.answer.strip() for one in run.train)
    if len(run.train) > 1 and len(answers) == 1:
        found.append(f"every answer is {next(iter(answers))!r}: the model will learn to say nothing else")
    if 0 < len(run.train) < 50:
        found.append(f"{len(run.train)} examples are few; 500 to 5,000 is usual")
    if run.train and not run.dev:
        found.append("without a dev part neither the best state nor an early stop can be found")
    if refused:
        found.append(f"{len(refused)} examples are left out")
    if run.settings.method == "activated":
        found.append("an activated adapter cannot be merged into the model, nor exported as one file")
    return found


def _refusals(
    run: TrainRun, trainer: Trainer, checkpoint: Checkpoint, need: float | None, free: float, disk: float,
    free_disk: float, longest: int,
) -> list[str]:  # fmt: skip
    found = []
    if not run.train:
        found.append("there is no example to learn from / fix: graft dataset check FILE")
    if reason := trainer.refuse(run):
        found.append(f'{reason} / fix: backend = "auto" in [tuning] of graft.toml')
    if run.settings.precision == "bfloat16" and gpu_memory_mb() is None and not bfloat16_is_fast():
        found.append(
            "this processor emulates bfloat16, which makes training up to 100 times slower "
            '/ fix: precision = "float32" in [tuning] of graft.toml'
        )
    if longest > checkpoint.context_tokens:
        found.append(
            f"an example of {longest:,} tokens is over the model's context of {checkpoint.context_tokens:,} "
            "/ fix: --truncate drop or --truncate shorten"
        )
    if need is not None and need > free:
        fix = _fitting(run, trainer, need - free, longest)
        found.append(f"it needs about {need:,.0f} MB of memory, {free:,.0f} are free / fix: {fix}")
    if disk > free_disk:
        found.append(
            f"it needs about {disk:,.0f} MB of disk for its states, {free_disk:,.0f} are free / fix: free space"
        )
    return found


def _fitting(run: TrainRun, trainer: Trainer, missing: float, longest: int) -> str:
    """The setting that would fit; where the weights alone are too large, none does."""
    config = open_checkpoint(run.checkpoint).config
    if trainer.name == "lean" and why_not(config) is None:
        shape, settings = read_shape(config), run.settings
        per_token = (
            lean_memory_mb(shape, settings, 2 * settings.micro_tokens + longest) - lean_memory_mb(shape, settings, 0)
        ) / (settings.micro_tokens + longest)
        fits = int(settings.micro_tokens - missing / per_token)
        if fits >= max(longest, 64):
            return f"micro_tokens = {fits} in [tuning] of graft.toml"
        if fits >= 64:
            return f"context_tokens = micro_tokens = {fits} in [tuning] of graft.toml, with --truncate shorten"
    return "a smaller base model (graft models list), or a machine with more memory"
