"""A training run on disk: what was asked, the curve, and states to go on from, each whole or absent.

It does not know what a state's tensors mean.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graft.errors import TrainingError
from graft.training.encoding import Encoded
from graft.training.protocol import TrainRun

RUN, CURVE, CHECKPOINTS, ADAPTER, STATE = "run.json", "curve.jsonl", "checkpoints", "adapter", "state.json"
_FREE_TO_CHANGE = ("threads", "checkpoint_steps", "prompt_cache_mb")
"""Settings that a resumed run may have otherwise, because the result does not depend on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a state stands.

    Attributes:
        step: Steps done.
        best_step, best_loss, best_exact: Of the best state so far, see `choosing`; None before the first
            measurement.
        worse: Measurements since the best.
        loss: Of the last step.
        tokens, seconds: Spent so far, over all parts of the run.
        curve_bytes: Length of the curve's file at this state.
    """

    step: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    best_exact: float | None = None
    worse: int = 0
    loss: float = float("nan")
    tokens: int = 0
    seconds: float = 0.0
    curve_bytes: int = 0

    @property
    def best(self) -> tuple[float, float, int] | None:
        """What `choosing.choice` takes, of the best state so far."""
        if self.best_loss is None or self.best_exact is None or self.best_step is None:
            return None
        return self.best_loss, self.best_exact, self.best_step


class RunFolder:
    """One run's folder."""

    def __init__(self, run: TrainRun, trainer: str) -> None:
        """Open or begin the run.

        Raises:
            TrainingError: The folder holds another run, or cannot be written.
        """
        self.folder, self.states = run.folder, run.folder / CHECKPOINTS
        asked = describe(run, trainer)
        try:
            self.states.mkdir(parents=True, exist_ok=True)
            for torn in self.states.glob(".*"):
                shutil.rmtree(torn, ignore_errors=True)
            if (self.folder / RUN).is_file():
                self._compare(asked)
            else:
                write_atomically(self.folder / RUN, json.dumps(asked, indent=1) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self.folder} cannot be written: {error}", fix="free space, or name another folder"
            ) from error

    def _compare(self, asked: dict[str, Any]) -> None:
        try:
            before = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        for key in ("trainer", "base", "train", "dev", "settings"):
            old, new = before.get(key), asked[key]
            if isinstance(old, dict) and isinstance(new, dict):
                changed = [k for k in new if k not in _FREE_TO_CHANGE and old.get(k) != new[k]]
                if changed and key == "settings":
                    key = f"settings ({', '.join(changed)})"
                elif not changed:
                    continue
            elif old == new:
                continue
            raise TrainingError(
                f"{self.folder} holds another run: its {key} is not this one's",
                fix="choose another --name, or remove that run's folder",
            )

    def save(self, position: Position, write: Callable[[Path], None]) -> Path:
        """Write a state with `write(folder)`; it appears whole under its name, or not at all.

        The two latest and the best are kept. A state is also a PEFT folder.

        Raises:
            TrainingError: The disk is full or cannot be written; earlier states stay valid.
        """
        target = self._state(position.step)
        scratch = self.states / f".{target.name}"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            with self._disk():
                scratch.mkdir()
                write(scratch)
                (scratch / STATE).write_text(json.dumps(dataclasses.asdict(position)) + "\n", encoding="utf-8")
                for path in (*scratch.iterdir(), scratch):
                    _sync(path)
                shutil.rmtree(target, ignore_errors=True)
                scratch.rename(target)
                _sync(self.states)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._prune(position)
        return target

    def newest(self, read: Callable[[Path], None]) -> Position | None:
        """Load the newest state that can be read with `read(folder)`, and cut the curve back to it."""
        from safetensors import SafetensorError

        for step in self._steps():
            try:
                found = json.loads((self._state(step) / STATE).read_text(encoding="utf-8"))
                position = Position(**found)
                read(self._state(step))
            except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError):
                continue  # damaged from outside: an older one will do
            if (self.folder / CURVE).is_file():
                os.truncate(self.folder / CURVE, min(position.curve_bytes, (self.folder / CURVE).stat().st_size))
            return position
        (self.folder / CURVE).unlink(missing_ok=True)
        return None

    def add_to_curve(self, **values: float | None) -> int:
        """Append one step's line; the length of the curve's file."""
        with self._disk(), (self.folder / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
            return file.tell()

    def cut_curve(self, step: int) -> None:
        """Take the lines after `step` out of the curve: a run that goes on from there writes them anew."""
        path = self.folder / CURVE
        if not path.is_file():
            return
        whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        with self._disk():
            os.truncate(path, sum(map(len, kept)))

    def finish(self, step: int) -> Path:
        """Make the state of `step` the result, as a PEFT folder."""
        target, scratch = self.folder / ADAPTER, self.folder / f".{ADAPTER}"
        shutil.rmtree(scratch, ignore_errors=True)
        with self._disk():
            shutil.copytree(
                self._state(step), scratch, ignore=lambda _, names: [n for n in names if n[:8] != "adapter_"]
            )
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        return target

    def no_number(self, step: int, seen: str, *, good: int, learning_rate: float) -> TrainingError:
        """The error of a run that blew up; states after step `good`, whose weights are spoilt, are removed."""
        for later in [one for one in self._steps() if one > good]:
            shutil.rmtree(self._state(later), ignore_errors=True)
        return no_number(step, seen, self.last_step(), self.states, learning_rate)

    def last_step(self) -> int:
        """Of the newest state; 0 where there is none."""
        return next(self._steps(), 0)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn a full or broken disk into an error that says what stays valid."""
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError) as error:
            free = shutil.disk_usage(self.folder).free / 1e6
            last = self.last_step()
            raise TrainingError(
                f"{self.folder} cannot be written ({error}; {free:,.0f} MB free); "
                + (f"the state of step {last} stays valid" if last else "no state was saved yet"),
                fix="free space on that disk and run the same command: it goes on from there",
            ) from error

    def _steps(self) -> Iterator[int]:
        found = (path.name.removeprefix("step-") for path in self.states.glob("step-*"))
        yield from sorted((int(name) for name in found if name.isdigit()), reverse=True)

    def _state(self, step: int) -> Path:
        return self.states / f"step-{step:08d}"

    def _prune(self, position: Position) -> None:
        for step in list(self._steps())[2:]:
            if step != position.best_step:
                shutil.rmtree(self._state(step), ignore_errors=True)


def no_number(step: int, seen: str, kept: int, states: Path, learning_rate: float) -> TrainingError:
    """What a run says that blew up; `kept` is the last good state's step, 0 where there is none."""
    what = f"the state of step {kept} is kept in {states}" if kept else "no state from before it was saved"
    return TrainingError(
        f"the loss is no number at step {step} ({seen}); {what}",
        fix=f"begin anew, under another --name, with a smaller step: learning_rate = {learning_rate / 3:.1g}",
    )


def describe(run: TrainRun, trainer: str) -> dict[str, Any]:
    """All that is needed to repeat the run, as JSON."""
    return {
        "trainer": trainer,
        "base": _base(run.checkpoint),
        "settings": dataclasses.asdict(run.settings),
        "train": _digest(run.train),
        "dev": _digest(run.dev),
        "examples": {"train": [one.example.id for one in run.train], "dev": [one.example.id for one in run.dev]},
        "checkpoint": str(run.checkpoint),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PARTS}},
    }


_PARTS = ("graft-llm", "torch", "transformers", "peft", "trl", "tokenizers")


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _base(checkpoint: Path) -> str:
    """sha256 over the configuration and the first megabyte of each file of weights: cheap, and tells models apart."""
    digest = hashlib.sha256()
    for path in sorted((*checkpoint.glob("*.json"), *checkpoint.glob("*.safetensors"))):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(1_000_000))
    return digest.hexdigest()


def _digest(examples: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for one in examples:
        digest.update(f"{one.answer_start} ".encode())
        digest.update(array("q", one.tokens).tobytes() or repr(one.example.messages).encode())
    return digest.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """The file holds its old text or the new one, whenever the machine stops."""
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text, encoding="utf-8")
    _sync(scratch)
    scratch.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
