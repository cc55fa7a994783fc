"""A run -> a model tuned by a provider with OpenAI's fine-tuning API: upload, create the job, follow its events.

Examples leave this machine. The provider makes the tokens and keeps the weights; what comes back is a model's name.
It does not know prices.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.dataset import Example
from graft.errors import TrainingError
from graft.extras import install
from graft.training.encoding import Encoded
from graft.training.protocol import Cancelled, Stopped, Tell, TrainProgress, TrainResult, TrainRun
from graft.training.schedule import plan
from graft.training.states import RunFolder, write_atomically

if TYPE_CHECKING:
    from openai import OpenAI

JOB_NOTE = "hosted.json"
"""Names the provider's job in a run's folder."""
_ENDED = ("succeeded", "failed", "cancelled")
_PAGE = 100


def unencoded(examples: Sequence[Example]) -> tuple[Encoded, ...]:
    """Examples for a hosted trainer, whose tokens only the provider knows."""
    return tuple(Encoded(example=example, tokens=(), answer_start=0) for example in examples)


class HostedTrainer:
    """Follows one job per run folder; a run that was cut off goes on following the same job, never a second one."""

    name = "hosted"

    def __init__(
        self, model: str, *, base_url: str | None = None, key_env: str = "OPENAI_API_KEY", poll_seconds: float = 10.0
    ) -> None:
        """
        Args:
            model: The provider's name of the base model.
            base_url: Of an OpenAI-compatible server; None is OpenAI's.
            key_env: Name of the environment variable that holds the key.
        """
        self.model, self.base_url, self.key_env, self.poll_seconds = model, base_url, key_env, poll_seconds

    def refuse(self, run: TrainRun) -> str | None:
        if run.settings.method != "lora":
            return "a provider offers no activated LoRA"
        if not os.environ.get(self.key_env):
            return f"the environment variable {self.key_env} holds no key"
        return None

    def train(
        self, run: TrainRun, *, progress: Tell = lambda seen: None, cancelled: Cancelled = lambda: False
    ) -> TrainResult:
        if reason := self.refuse(run):
            raise TrainingError(f"the hosted trainer cannot do this: {reason}", fix=f"export {self.key_env}=...")
        if not run.train:
            raise TrainingError("there is no example to learn from", fix="graft dataset check FILE")
        plan(run.settings, len(run.train))
        RunFolder(run, self.name)
        try:
            import openai
        except ImportError as error:
            raise TrainingError("hosted tuning needs the openai package", fix=install("hosted")) from error
        with openai.OpenAI(base_url=self.base_url, api_key=os.environ[self.key_env]) as client:
            try:
                return _Job(self, client, run).follow(progress, cancelled)
            except openai.OpenAIError as error:
                raise TrainingError(
                    f"the provider refuses: {str(error)[:400]}",
                    fix="check the key, the model's name and the provider's status; the same command goes on",
                ) from error
            except OSError as error:
                raise TrainingError(
                    f"{run.folder} cannot be written: {error}",
                    fix="free space on that disk; the same command goes on",
                ) from error


class _Job:
    """One job at the provider."""

    def __init__(self, trainer: HostedTrainer, client: OpenAI, run: TrainRun) -> None:
        self.trainer, self.client, self.run = trainer, client, run
        self.note = run.folder / JOB_NOTE
        self.began = time.monotonic()
        self.seen = TrainProgress(
            step=0, steps=0, loss=float("nan"), dev_loss=None, tokens_per_second=0.0, seconds_left=0.0
        )

    def follow(self, tell: Tell, cancelled: Cancelled) -> TrainResult:
        noted = json.loads(self.note.read_text(encoding="utf-8")) if self.note.is_file() else {}
        if "result" in noted:
            return TrainResult(**(noted["result"] | {"adapter": None}))
        name = noted.get("job") or self._create()
        told, asked = set[str](), False
        while True:
            job = self.client.fine_tuning.jobs.retrieve(name)
            self._tell_events(name, told, tell)
            if job.status in _ENDED:
                break
            if cancelled() and not asked:
                asked = True
                self.client.fine_tuning.jobs.cancel(name)
                continue
            time.sleep(self.trainer.poll_seconds)
        if job.status == "failed":
            said = job.error.message if job.error else "no reason given"
            self.note.unlink(missing_ok=True)  # the next call makes a new job
            raise TrainingError(
                f"job {name} failed at the provider: {said}", fix="graft dataset check FILE, then run again"
            )
        result = self._result("cancelled" if job.status == "cancelled" else "finished", job)
        if result.stopped == "cancelled":
            self.note.unlink(missing_ok=True)  # a provider resumes nothing: the next call makes a new job
        else:
            write_atomically(self.note, json.dumps({"job": name, "result": dataclasses.asdict(result)}) + "\n")
        return result

    def _create(self) -> str:
        """Upload both parts and create the job; its name is noted before anything else happens."""
        settings = self.run.settings
        files: Any = {"training_file": self._upload("train", self.run.train)}
        if self.run.dev:
            files["validation_file"] = self._upload("dev", self.run.dev)
        parameters: Any = {"n_epochs": max(1, round(settings.epochs)), "batch_size": settings.batch_size}
        job = self.client.fine_tuning.jobs.create(
            model=self.trainer.model,
            seed=settings.seed,
            method={"type": "supervised", "supervised": {"hyperparameters": parameters}},
            **files,
        )
        write_atomically(self.note, json.dumps({"job": job.id, **files}) + "\n")
        return job.id

    def _upload(self, part: str, examples: Sequence[Encoded]) -> str:
        path = self.run.folder / f"{part}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for one in examples:
                turns = [{"role": turn.role, "content": turn.content} for turn in one.example.messages]
                file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
        return self.client.files.create(file=Path(path), purpose="fine-tune").id

    def _tell_events(self, name: str, told: set[str], tell: Tell) -> None:
        events = [
            event for event in self.client.fine_tuning.jobs.list_events(name, limit=_PAGE) if event.id not in told
        ]
        for event in reversed(events):  # the API lists the newest first
            told.add(event.id)
            data: Any = event.data
            if not isinstance(data, dict) or "train_loss" not in data:
                continue
            step, steps = int(data["step"]), int(data.get("total_steps") or data["step"])
            spent = time.monotonic() - self.began
            self.seen = TrainProgress(
                step=step, steps=steps, loss=float(data["train_loss"]),
                dev_loss=data.get("full_valid_loss", data.get("valid_loss", self.seen.dev_loss)),
                tokens_per_second=0.0, seconds_left=spent / step * (steps - step) if step else 0.0,
            )  # fmt: skip
            tell(self.seen)

    def _result(self, stopped: Stopped, job: Any) -> TrainResult:
        return TrainResult(
            adapter=None, model=job.fine_tuned_model, step=self.seen.step, steps=self.seen.step, loss=self.seen.loss,
            dev_loss=self.seen.dev_loss, tokens=job.trained_tokens or 0, seconds=time.monotonic() - self.began,
            stopped=stopped, mergeable=False,
        )  # fmt: skip
