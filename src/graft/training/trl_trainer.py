"""TRL's SFTTrainer with our order of examples, our dev loss and our progress.

Imported only where a run starts, because TRL is. It does not know settings beyond their order and patience.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from graft.errors import TrainingError
from graft.training.choosing import choice
from graft.training.encoding import Encoded
from graft.training.protocol import Cancelled, Tell, TrainProgress, TrainRun
from graft.training.schedule import Schedule, plan
from graft.training.states import RunFolder, no_number


class Ordered(torch.utils.data.Sampler[int]):
    """The schedule's order; TRL's loaders tell it the epoch."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.epoch = schedule, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.schedule.examples

    def __iter__(self) -> Iterator[int]:
        return iter(self.schedule.order(self.epoch))


class Watch(TrainerCallback):
    """Writes the curve, tells progress, stops where told, at no number, or out of patience.

    Where several processes train together, all of them see the same figures; the first one writes, tells and asks.
    """

    def __init__(self, run: TrainRun, folder: RunFolder, progress: Tell, cancelled: Cancelled) -> None:
        self.run, self.folder, self.tell, self.ask = run, folder, progress, cancelled
        self.loss, self.worse, self.tokens, self.cancelled = math.nan, 0, 0, False
        self.best_loss: float | None = None
        self.best_exact: float | None = None
        self.best_choice: float | None = None
        self.dev_loss: float | None = None
        self.best_step: int | None = None
        self.failure: TrainingError | None = None
        self._size = 0.0
        self.mean = sum(len(one.tokens) for one in run.train) / len(run.train)
        self.began, self.first = time.monotonic(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began, self.first = time.monotonic(), state.global_step
        measured = [line for line in state.log_history if "eval_loss" in line]
        if measured:
            best = min(measured, key=lambda line: line["eval_choice"])
            self.best_loss, self.best_exact, self.best_step = best["eval_loss"], best["eval_exact"], best["step"]
            self.best_choice = best["eval_choice"]
            self.worse = sum(1 for line in measured if line["step"] > best["step"])

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self.loss = logs["loss"]
        if not math.isfinite(self.loss) or not math.isfinite(logs.get("grad_norm", 0.0)):
            good = state.global_step - (1 if math.isfinite(self.loss) else 2)  # the step before made the loss
            self.fail(state.global_step, f"loss {self.loss}", good=good)
            control.should_save, control.should_training_stop = False, True
            return
        spent, done = time.monotonic() - self.began, state.global_step - self.first
        self.tokens = int(state.global_step * self.mean * self.run.settings.batch_size)
        self._size = logs["learning_rate"]
        if not control.should_evaluate:  # else the line waits for the dev loss
            self._write_line(state, None)
        told = TrainProgress(
            step=state.global_step, steps=state.max_steps, loss=self.loss, dev_loss=self.dev_loss,
            tokens_per_second=done * self.mean * self.run.settings.batch_size / max(spent, 1e-9),
            seconds_left=(state.max_steps - state.global_step) * spent / max(1, done),
        )  # fmt: skip
        if state.is_world_process_zero:
            self.tell(told)
        if _agreed(state.is_world_process_zero and self.ask()):
            self.cancelled = True
            control.should_save = control.should_training_stop = True

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        assert metrics is not None
        self.dev_loss, exact = metrics["eval_loss"], metrics["eval_exact"]
        loss = metrics["eval_loss"]
        if self.failure is None and not math.isfinite(loss):
            self.fail(state.global_step, f"dev loss {loss}", good=state.global_step - 1)
        if self.failure is not None:
            control.should_save, control.should_training_stop = False, True
            return
        self._write_line(state, loss, exact)
        if self.best_choice is None or metrics["eval_choice"] < self.best_choice:
            self.best_choice = metrics["eval_choice"]
            self.best_loss, self.best_exact, self.best_step, self.worse = loss, exact, state.global_step, 0
        else:
            self.worse += 1
        if 0 < self.run.settings.patience <= self.worse:
            control.should_training_stop = True

    def fail(self, step: int, seen: str, *, good: int) -> None:
        """Note that the run blew up, and remove the states after step `good`, whose weights are spoilt already."""
        kept = []
        for state in self.folder.states.glob("checkpoint-*"):
            number = int(state.name.rpartition("-")[2])
            if number > good:
                shutil.rmtree(state, ignore_errors=True)
            else:
                kept.append(number)
        self.failure = no_number(
            step, seen, max(kept, default=0), self.folder.states, self.run.settings.learning_rate
        )

    def _write_line(self, state: Any, dev_loss: float | None, dev_exact: float | None = None) -> None:
        if not state.is_world_process_zero:
            return
        self.folder.add_to_curve(
            step=state.global_step, loss=self.loss, dev_loss=dev_loss, dev_exact=dev_exact, step_size=self._size,
            tokens=self.tokens,
        )  # fmt: skip


def _agreed(said: bool) -> bool:
    """What the first of the processes that train together said; alone, what it says itself."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return said
    told = [said]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


class _Trainer(SFTTrainer):
    """Reads the examples in the schedule's order and measures the dev loss over tokens, not over batches."""

    def __init__(self, *, schedule: Schedule, dev: list[Encoded], **options: Any) -> None:
        self._schedule, self._dev = schedule, dev
        super().__init__(**options)

    def _get_train_sampler(self, *_: Any, **__: Any) -> Ordered:
        return Ordered(self._schedule)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        model: Any = self.model
        model.eval()
        loss, exact = measure(model, self._dev)
        metrics = {"eval_loss": loss, "eval_exact": exact, "eval_choice": choice(loss, exact, self.state.global_step)}
        model.train()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def make_trainer(run: TrainRun, model: Any, arguments: Any, watch: Watch) -> Any:
    """TRL's trainer over the run's tokens; labels are -100 where no loss falls."""
    trainer = _Trainer(
        schedule=plan(run.settings, len(run.train)),
        dev=list(run.dev),
        model=model,
        args=arguments,
        train_dataset=_dataset(run.train),
        eval_dataset=_dataset(run.dev) if run.dev else None,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=model.config.pad_token_id or 0),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)  # it writes every step to stdout
    return trainer


def measure(model: Any, examples: Sequence[Encoded]) -> tuple[float, float]:
    """Mean over all answer tokens of -log p, in nats, and the share of answers whose every token is the likeliest.

    One example at a time.
    """
    total, count, right = 0.0, 0, 0
    with torch.no_grad():
        for one in examples:
            tokens = torch.tensor(list(one.tokens), device=model.device)
            logits = model(input_ids=tokens[None]).logits[0, one.answer_start - 1 : -1].float()
            wanted = tokens[one.answer_start :]
            total += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            count += len(wanted)
            right += int(torch.equal(logits.argmax(dim=1), wanted))
    return (total / count, right / len(examples)) if count else (math.nan, 0.0)


def _dataset(examples: Any) -> Dataset:
    return Dataset.from_list(
        [
            {
                "input_ids": list(one.tokens),
                "labels": [-100] * one.answer_start + list(one.tokens[one.answer_start :]),
            }
            for one in examples
        ]
    )
