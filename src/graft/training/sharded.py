"""A run -> the general trainer in several processes, over which FSDP spreads the model: one for each GPU.

Each process holds a part of every weight and learns from its part of every batch, so that a model trains which no
single GPU holds; the result is the one that a single process would reach, beyond rounding. They meet through a file
and talk over the loopback interface, so nothing listens to the network. Where the caller dies, they end.
FSDP: Zhao et al., PyTorch FSDP, VLDB 2023, in torch's second form, through accelerate.
It does not know how a step is computed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from graft.dataset import Example
from graft.errors import TrainingError
from graft.settings import TuningSettings
from graft.training.encoding import Encoded
from graft.training.general import GeneralTrainer, kept_result, open_run
from graft.training.machine import gpus
from graft.training.protocol import Cancelled, Tell, TrainProgress, TrainResult, TrainRun

_LAST_WORDS = 2_000


class ShardedTrainer:
    """The general trainer, spread over processes."""

    name = "sharded"

    def __init__(self, shards: int, *, device: str = "auto", checkpointing: bool | None = None) -> None:
        """
        Args:
            shards: Processes; on a machine with GPUs, at most as many as those.
            device: As of `GeneralTrainer`; on processors it shows that it works, and is slower than one process.
        """
        self.shards, self.device, self.checkpointing = shards, device, checkpointing
        self._alone = GeneralTrainer(device=device, checkpointing=checkpointing)

    def refuse(self, run: TrainRun) -> str | None:
        if run.settings.quantize:
            return "QLoRA trains on one GPU: shards = 1"
        if self.device != "cpu" and 0 < gpus() < self.shards:
            return f"this machine has {gpus()} GPUs, which is less than shards = {self.shards}"
        if run.settings.batch_size % self.shards:
            return f"batch_size = {run.settings.batch_size} cannot be divided by shards = {self.shards}"
        return self._alone.refuse(run)

    def train(
        self, run: TrainRun, *, progress: Tell = lambda seen: None, cancelled: Cancelled = lambda: False
    ) -> TrainResult:
        if reason := self.refuse(run):
            raise TrainingError(
                f"training cannot be spread over {self.shards} processes: {reason}",
                fix="shards = 0 in [tuning] of graft.toml, which takes what fits",
            )
        open_run(run, self.name)
        if (kept := kept_result(run)) is not None:
            return kept
        with tempfile.TemporaryDirectory(prefix="graft-shards-") as scratch, ExitStack() as stack:
            workers = [stack.enter_context(self._worker(rank, Path(scratch))) for rank in range(self.shards)]
            for worker in workers:
                worker.begin(self._task(run))
            return _followed(workers, progress, cancelled)

    @contextmanager
    def _worker(self, rank: int, scratch: Path) -> Iterator[_Worker]:
        threads = max(1, (os.cpu_count() or 1) // self.shards)
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.shards),
            "LOCAL_WORLD_SIZE": str(self.shards),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
            "GRAFT_SHARDS_MEET": str(scratch / "meet"),
        }
        if sys.platform == "linux":
            environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        with (scratch / f"said-{rank}").open("w+b") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "graft.training.sharded_worker"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
            try:
                yield _Worker(rank, process, said)
            finally:
                process.kill()
                process.communicate()

    def _task(self, run: TrainRun) -> bytes:
        """Everything that a process needs to know, as one line."""
        told = {
            "checkpoint": str(run.checkpoint),
            "folder": str(run.folder),
            "settings": dataclasses.asdict(run.settings),
            "train": _plain(run.train),
            "dev": _plain(run.dev),
            "device": self.device,
            "checkpointing": self.checkpointing,
            "shards": self.shards,
        }
        return json.dumps(told).encode() + b"\n"


def run_of(task: dict[str, Any]) -> TrainRun:
    """The run that a task tells; of its examples only what training reads."""
    return TrainRun(
        checkpoint=Path(task["checkpoint"]),
        train=_encoded(task["train"]),
        dev=_encoded(task["dev"]),
        settings=TuningSettings(**task["settings"]),
        folder=Path(task["folder"]),
    )


def _plain(examples: Sequence[Encoded]) -> list[list[Any]]:
    return [[one.example.id, list(one.tokens), one.answer_start] for one in examples]


def _encoded(examples: Sequence[Sequence[Any]]) -> list[Encoded]:
    return [
        Encoded(example=Example(id=name, messages=()), tokens=tokens, answer_start=start)
        for name, tokens, start in examples
    ]


@dataclasses.dataclass(slots=True)
class _Worker:
    """One process: a line to it, lines from it, and what it said when it failed."""

    rank: int
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    rest: bytes = b""

    def begin(self, task: bytes) -> None:
        self._write(task)

    def answer(self, *, go_on: bool) -> None:
        self._write(b"go\n" if go_on else b"stop\n")

    def lines(self) -> list[dict[str, Any]] | None:
        """What it told since the last call; None at its end."""
        assert self.process.stdout is not None
        read = os.read(self.process.stdout.fileno(), 1 << 16)
        *whole, self.rest = (self.rest + read).split(b"\n")
        return [json.loads(line) for line in whole] if read else None

    def last_words(self) -> str:
        self.said.seek(max(0, self.said.seek(0, os.SEEK_END) - _LAST_WORDS))
        lines = self.said.read().decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or ["it said nothing"])[-1]

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # its end shows when its lines are read


def _followed(workers: Sequence[_Worker], progress: Tell, cancelled: Cancelled) -> TrainResult:
    """Read all processes until the first has told the result; one that ends without it ends them all."""
    result: TrainResult | None = None
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        while selector.get_map():
            for key, _ in selector.select():
                worker = key.data
                told = worker.lines()
                if told is None:
                    selector.unregister(key.fileobj)
                    if worker.process.wait():
                        raise _died(worker, len(workers))
                for one in told or ():
                    if "error" in one:
                        raise TrainingError(one["error"], fix=one["fix"])
                    if "progress" in one:
                        progress(TrainProgress(**one["progress"]))
                        worker.answer(go_on=not cancelled())
                    if "result" in one:
                        adapter = one["result"]["adapter"]
                        result = TrainResult(**{**one["result"], "adapter": adapter and Path(adapter)})
    if result is None:
        raise _died(workers[0], len(workers))
    return result


def _died(worker: _Worker, of: int) -> TrainingError:
    code = worker.process.returncode
    return TrainingError(
        f"process {worker.rank + 1} of {of} ended with {code}, and the others with it: {worker.last_words()[:300]}",
        fix="the same command goes on from the last checkpoint; where memory ran out, set micro_tokens lower",
    )
