"""A run -> an adapter, by the lean decoder: steps, dev loss, early stopping, states, resuming.

It does not know how gradients are computed.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from graft.errors import TrainingError
from graft.settings import TuningSettings
from graft.training.checkpoint import open_checkpoint
from graft.training.choosing import choice
from graft.training.encoding import Encoded, require_fitting
from graft.training.lean.activated import Rows, activated_config, invocation_tokens, open_rows
from graft.training.lean.decoder import Decoder, packs
from graft.training.lean.shape import why_not
from graft.training.lean.sharing import families
from graft.training.machine import bfloat16_is_fast
from graft.training.protocol import Cancelled, Stopped, Tell, TrainProgress, TrainResult, TrainRun
from graft.training.schedule import plan, step_size
from graft.training.states import Position, RunFolder

_OPTIMISER = "optimiser.safetensors"
_ROWS_AT_ONCE = 8
_WINDOW = 10
"""Steps over which the speed is averaged."""


class LeanTrainer:
    """Exact LoRA, or activated LoRA, on this machine's processor: in float32, or with products in bfloat16."""

    name = "lean"

    def refuse(self, run: TrainRun) -> str | None:
        if run.settings.precision == "bfloat16" and not bfloat16_is_fast():
            return "this processor emulates bfloat16, far slower than float32"
        if run.settings.quantize:
            return "the lean trainer does not quantise"
        return why_not(open_checkpoint(run.checkpoint).config)

    def train(
        self, run: TrainRun, *, progress: Tell = lambda seen: None, cancelled: Cancelled = lambda: False
    ) -> TrainResult:
        if reason := self.refuse(run):
            known = why_not(open_checkpoint(run.checkpoint).config) is None
            fix = 'precision = "auto", quantize = false' if known else 'backend = "general", method = "lora"'
            raise TrainingError(f"the lean trainer cannot do this: {reason}", fix=f"{fix} in [tuning] of graft.toml")
        if not run.train:
            raise TrainingError("there is no example to learn from", fix="graft dataset check FILE")
        require_fitting((*run.train, *run.dev), open_checkpoint(run.checkpoint).context_tokens)
        with _threads(run.settings.threads), torch.no_grad(), _memory_named(run):
            return _Training(run).go(progress, cancelled)


class _Training:
    """One run in progress."""

    def __init__(self, run: TrainRun) -> None:
        self.run, self.settings = run, run.settings
        self.schedule = plan(run.settings, len(run.train), families=families_of(run))
        self.folder = RunFolder(run, LeanTrainer.name)
        self.decoder = Decoder(
            open_checkpoint(run.checkpoint),
            rank=run.settings.rank,
            alpha=run.settings.alpha,
            seed=run.settings.seed,
            context_tokens=max(len(one.tokens) for one in (*run.train, *run.dev)),
            products=torch.bfloat16 if run.settings.precision == "bfloat16" else torch.float32,
        )
        self.adapter = self.decoder.adapter
        self.adapter.vector.grad = self.adapter.gradient
        self.optimiser = torch.optim.AdamW([self.adapter.vector], lr=0.0, weight_decay=run.settings.weight_decay)
        self.train_rows = open_rows(self.decoder, run.train, run.settings, run.folder / "prompts-train")
        self.dev_rows = open_rows(self.decoder, run.dev, run.settings, run.folder / "prompts-dev")
        self.position = self.folder.newest(self._read) or Position()
        self.decoder.merge()

    def go(self, progress: Tell, cancelled: Cancelled) -> TrainResult:
        """Train to the end, to an early stop, or until cancelled."""
        began, resumed, steps = time.monotonic() - self.position.seconds, self.position.step, self.schedule.steps
        stopped: Stopped = "early" if self._out_of_patience() else "finished"
        speeds: deque[tuple[float, int]] = deque([(time.monotonic(), self.position.tokens)], maxlen=_WINDOW)
        saved = resumed
        for batch in self.schedule.batches(resumed) if stopped == "finished" else ():
            loss, size = self._step(batch)
            step = self.position.step + 1
            tokens = self.position.tokens + sum(len(self.run.train[i].tokens) for i in batch)
            self.position = dataclasses.replace(self.position, step=step, loss=loss, tokens=tokens)
            measured = self._measure(step, steps)
            dev_loss, dev_exact = measured or (None, None)
            length = self.folder.add_to_curve(
                step=step, loss=loss, dev_loss=dev_loss, dev_exact=dev_exact, step_size=size, tokens=tokens
            )
            self.position = dataclasses.replace(self.position, curve_bytes=length, seconds=time.monotonic() - began)
            speeds.append((time.monotonic(), tokens))
            progress(self._progress(steps, speeds, dev_loss))
            stop, early = cancelled(), self._out_of_patience()
            if self._due(step, steps) or stop or early:
                self.folder.save(self.position, self._write)
                saved = step
            if stop or early:
                stopped = "cancelled" if stop else "early"
                break
        assert saved == self.position.step  # the last step of every ending is saved
        return self._result(stopped, resumed)

    def _step(self, batch: Sequence[int]) -> tuple[float, float]:
        """One step of the optimiser: the batch's mean loss, and the step size."""
        rows = self.train_rows(batch)
        answers = sum(row.answer_tokens for row in rows)
        self.adapter.gradient.zero_()
        loss = 0.0
        for pack in packs(rows, tokens=self.settings.micro_tokens):
            loss += self.decoder.loss_and_gradient(pack, weight=1 / answers)
        loss /= answers
        length = float(torch.linalg.vector_norm(self.adapter.gradient))
        if not math.isfinite(loss) or not math.isfinite(length):
            raise self.folder.no_number(
                self.position.step + 1,
                f"loss {loss}, gradient {length}",
                good=self.position.step if math.isfinite(loss) else self.position.step - 1,
                learning_rate=self.settings.learning_rate,
            )
        if 0 < self.settings.max_grad_norm < length:
            self.adapter.gradient.mul_(self.settings.max_grad_norm / (length + 1e-6))
        size = step_size(self.settings, self.position.step, self.schedule.steps)
        self.optimiser.param_groups[0]["lr"] = size
        self.optimiser.step()
        self.decoder.merge()
        return loss, size

    def _measure(self, step: int, steps: int) -> tuple[float, float] | None:
        """Dev loss and share of right dev answers where they are due, noted as the best where they are."""
        every = self.settings.evaluate_steps
        if not (step == steps or (every and step % every == 0)):
            return None
        # What a step did shows in the loss of the next one only; the last has none, and one example will do.
        rows, count = (self.dev_rows, len(self.run.dev)) if self.run.dev else (self.train_rows, 1)
        loss, exact = _measured(self.decoder, rows, count, self.settings.micro_tokens)
        if not math.isfinite(loss):
            raise self.folder.no_number(
                step, f"dev loss {loss}", good=step - 1, learning_rate=self.settings.learning_rate
            )
        if not self.run.dev:
            return None
        best = self.position.best
        if best is None or choice(loss, exact, step) < choice(*best):
            self.position = dataclasses.replace(
                self.position, best_step=step, best_loss=loss, best_exact=exact, worse=0
            )
        else:
            self.position = dataclasses.replace(self.position, worse=self.position.worse + 1)
        return loss, exact

    def _due(self, step: int, steps: int) -> bool:
        every = self.settings.checkpoint_steps
        return step == steps or self.position.best_step == step or bool(every and step % every == 0)

    def _out_of_patience(self) -> bool:
        return 0 < self.settings.patience <= self.position.worse

    def _progress(self, steps: int, speeds: deque[tuple[float, int]], measured: float | None) -> TrainProgress:
        position = self.position
        seconds, tokens = (last - first for first, last in zip(speeds[0], speeds[-1], strict=True))
        return TrainProgress(
            step=position.step,
            steps=steps,
            loss=position.loss,
            dev_loss=measured if measured is not None else position.best_loss,
            tokens_per_second=tokens / seconds if seconds > 0 else 0.0,
            seconds_left=(steps - position.step) * seconds / max(1, len(speeds) - 1),
        )

    def _result(self, stopped: Stopped, resumed: int) -> TrainResult:
        kept = self.position.best_step if self.position.best_step is not None else self.position.step
        return TrainResult(
            adapter=None if stopped == "cancelled" else self.folder.finish(kept),
            step=kept,
            steps=self.position.step,
            loss=self.position.loss,
            dev_loss=self.position.best_loss,
            dev_exact=self.position.best_exact,
            tokens=self.position.tokens,
            seconds=self.position.seconds,
            stopped=stopped,
            mergeable=self.settings.method == "lora",
            resumed_from=resumed,
        )

    def _write(self, folder: Path) -> None:
        extra = {}
        if self.settings.method == "activated":
            extra = activated_config(invocation_tokens([*self.run.train, *self.run.dev]))
        self.adapter.save(folder, base=str(self.run.checkpoint), extra=extra)
        moments: dict[str, Tensor] = self.optimiser.state[self.adapter.vector]
        save_file({name: tensor.contiguous() for name, tensor in moments.items()}, folder / _OPTIMISER)

    def _read(self, folder: Path) -> None:
        moments = load_file(folder / _OPTIMISER)
        self.adapter.load(folder)
        self.optimiser.state[self.adapter.vector] = {name: tensor.clone() for name, tensor in moments.items()}


def families_of(run: TrainRun) -> list[list[int]]:
    """Examples whose prompts begin alike, where the settings ask for them to be drawn together."""
    if run.settings.alike_together < 2 or run.settings.method != "lora":
        return []
    return families([one.tokens[: one.answer_start] for one in run.train])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(count or cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _memory_named(run: TrainRun) -> Iterator[None]:
    """Turn a failed allocation into an error that names the setting that would fit."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        longest = max(len(one.tokens) for one in (*run.train, *run.dev))
        if run.settings.micro_tokens > longest:
            fix = f"micro_tokens = {max(longest, run.settings.micro_tokens // 2)} in [tuning] of graft.toml"
        else:
            fix = f"context_tokens = {longest // 2} in [tuning] of graft.toml, with --truncate shorten or drop"
        raise TrainingError(
            f"memory ran out; the last saved state stays valid ({str(error)[:120]})", fix=fix
        ) from error


def answer_loss_of(checkpoint: Path, adapter: Path, examples: Sequence[Encoded], settings: TuningSettings) -> float:
    """Mean over all answer tokens of -log p under base + adapter, in nats; `settings` are those of its training."""
    decoder = Decoder(open_checkpoint(checkpoint), rank=settings.rank, alpha=settings.alpha, seed=0)
    decoder.adapter.load(adapter)
    decoder.merge()
    rows = open_rows(decoder, examples, dataclasses.replace(settings, prompt_cache_mb=0), adapter)
    with torch.no_grad():
        return _measured(decoder, rows, len(examples), settings.micro_tokens)[0]


def _measured(decoder: Decoder, rows: Rows, count: int, micro_tokens: int) -> tuple[float, float]:
    """Mean loss over the answer tokens of the first `count` rows, and the share of answers that are right."""
    total, tokens, right = 0.0, 0, 0
    for start in range(0, count, _ROWS_AT_ONCE):  # a few rows at a time, for their pasts are large
        some = rows(range(start, min(start + _ROWS_AT_ONCE, count)))
        for pack in packs(some, tokens=micro_tokens):
            loss, exact = decoder.measure(pack)
            total, right = total + loss, right + exact
        tokens += sum(row.answer_tokens for row in some)
    return total / tokens, right / count
