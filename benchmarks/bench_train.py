"""LoRA on a processor: the lean trainer against TRL + peft, in one run on the same rows, order and first adapter.

    python -m benchmarks.bench_train --steps 4 --threads 2

Each system trains in a process of its own and they take turns, a step each, so that a busy machine slows all
alike; tokens per CPU-second are the figure, per wall second stand beside them. TRL runs in float32, as ours does,
once as it comes otherwise (gradient checkpointing on) and once without. Where the processor computes bfloat16, TRL's
own default, it is measured too, beside ours.
After the last step every adapter's dev loss is measured by the same code.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from benchmarks.corpora import data_folder
from benchmarks.costs import now, peak_memory_mb
from benchmarks.figures import Figure, against_best, markdown_table, spread, write_part

COMMAND = "python -m benchmarks.bench_train"
TRL, TRL_PLAIN = "TRL as it comes", "TRL, checkpointing off"
LEAN, ACTIVATED = "graft lean", "graft activated"
BFLOAT16 = ", bfloat16"
SYSTEMS = (LEAN, TRL_PLAIN, TRL, ACTIVATED)
IN_BFLOAT16 = tuple(system + BFLOAT16 for system in (LEAN, TRL_PLAIN, ACTIVATED))
BATCH, DEV = 8, 32
TOKENS = range(180, 261)
"""Of a row, prompt and answer: about 220 in the mean."""


def read_rows(tokenizer: Any, count: int) -> list[Any]:
    """Encoded questions on privacy policies, whose answers are quotes of the passage shown."""
    from graft.dataset import Example
    from graft.models import Message
    from graft.training.encoding import Encoded, encode

    found: list[Encoded] = []
    for number, (passage, question, answer) in enumerate(_questions()):
        prompt = f"{passage}\n\nQuestion: {question}"
        example = Example(id=str(number), messages=(Message("user", prompt), Message("assistant", answer)))
        if 400 < len(prompt) < 1400:
            found += [
                one for one in encode([example], tokenizer, context_tokens=512).encoded if len(one.tokens) in TOKENS
            ]
        if len(found) == count:
            return found
    raise SystemExit(f"only {len(found)} rows of {TOKENS.start}-{TOKENS.stop - 1} tokens; lower --steps")


def _questions() -> Iterator[tuple[str, str, str]]:
    parsed = json.loads((data_folder() / "qa/policyqa/dev.json").read_text(encoding="utf-8"))
    for document in parsed["data"]:
        for paragraph in document["paragraphs"]:
            for asked in paragraph["qas"][:1]:
                yield paragraph["context"], asked["question"], asked["answers"][0]["text"]


def work(name: str, *, checkpoint: Path, home: Path, steps: int, threads: int) -> None:
    """One system: a step for each line on stdin, then its dev loss and its peak of memory."""
    import torch

    from graft.settings import TuningSettings
    from graft.training.checkpoint import load_tokenizer, open_checkpoint
    from graft.training.general import GeneralTrainer
    from graft.training.lean.decoder import Decoder
    from graft.training.lean.trainer import LeanTrainer, answer_loss_of
    from graft.training.protocol import TrainProgress, TrainRun

    torch.set_num_threads(threads)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is not an answer
    system, precision = name.removesuffix(BFLOAT16), "bfloat16" if name.endswith(BFLOAT16) else "float32"
    ours = system in (LEAN, ACTIVATED)
    epochs = 2 if system == ACTIVATED else 1
    opened = open_checkpoint(checkpoint)
    rows = read_rows(load_tokenizer(opened), steps * BATCH + DEV)
    settings = TuningSettings(
        method="activated" if system == ACTIVATED else "lora", batch_size=BATCH, epochs=float(epochs),
        threads=threads, checkpoint_steps=0, precision=precision,
        evaluate_steps=0, micro_tokens=1024 if ours else 1_000_000,
    )  # fmt: skip
    first = home / "first"
    Decoder(opened, rank=settings.rank, alpha=settings.alpha, seed=0).adapter.save(first, base=str(checkpoint))
    run = TrainRun(checkpoint=checkpoint, train=rows[:-DEV], dev=(), settings=settings, folder=home / "run")
    trainer = LeanTrainer() if ours else GeneralTrainer(device="cpu", checkpointing=system == TRL, start=first)
    mark = [now()]

    def told(seen: TrainProgress) -> None:
        spent = now() - mark[0]
        order = trainer_order[seen.step - 1]
        row = {"step": seen.step, "loss": seen.loss, "cpu_s": spent.cpu_s, "wall_s": spent.wall_s}
        row |= {"lengths": [len(rows[i].tokens) for i in order], "peak_mb": peak_memory_mb()}
        row |= {"answers": [len(rows[i].tokens) - rows[i].answer_start for i in order]}
        if name == LEAN:
            row |= {"sgemm": sgemm(torch)}
        print(json.dumps(row), file=replies, flush=True)
        sys.stdin.readline()
        mark[0] = now()

    from graft.training.schedule import plan

    trainer_order = list(plan(settings, len(run.train)).batches())
    result = trainer.train(run, progress=told)
    with torch.no_grad():
        measured = replace(settings, precision="float32")
        loss = answer_loss_of(checkpoint, Path(str(result.adapter)), rows[-DEV:], measured)
    print(json.dumps({"dev_loss": loss}), file=replies, flush=True)


def sgemm(torch: Any, *, size: int = 1024, seconds: float = 0.5) -> dict[str, float]:
    """GFLOP per CPU-second and per second of square float32 products; the fastest call counts."""
    a, best = torch.randn(size, size), {"cpu": 0.0, "wall": 0.0}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        cpu, wall = time.process_time(), time.perf_counter()
        a @ a
        flop = 2 * size**3 / 1e9
        best["cpu"] = max(best["cpu"], flop / (time.process_time() - cpu))
        best["wall"] = max(best["wall"], flop / (time.perf_counter() - wall))
    return best


class Worker:
    """One system's process."""

    def __init__(self, name: str, given: argparse.Namespace, home: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.bench_train", "--worker", name, "--home", str(home)]
        command += [
            "--steps",
            str(given.steps),
            "--threads",
            str(given.threads),
            "--checkpoint",
            str(given.checkpoint),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def answer(self) -> dict[str, Any]:
        line = _pipe(self.process.stdout).readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def go(self) -> None:
        pipe = _pipe(self.process.stdin)
        pipe.write("\n")
        pipe.flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def run_rounds(given: argparse.Namespace, home: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A row for each system and step after its first, and each system's dev loss."""
    workers, rows, losses = [], [], {}
    for name in given.systems:
        folder = home / name.replace(" ", "-")
        folder.mkdir()
        workers.append(Worker(name, given, folder))
        workers[-1].answer()  # the first step, with all that is loaded before it, warms up and is not counted
    for number in range(1, given.steps):
        for worker in workers:
            worker.go()
            rows.append({"round": number, "system": worker.name} | worker.answer())
            _show(rows[-1])
    for worker in workers:
        if worker.name.removesuffix(BFLOAT16) == ACTIVATED:
            for number in range(given.steps):  # its second epoch, from the cache
                worker.go()
                rows.append({"round": number, "system": f"{worker.name}, cached"} | worker.answer())
                _show(rows[-1])
        worker.go()
        losses[worker.name] = float(worker.answer()["dev_loss"])
        worker.process.wait()
    return rows, losses


def _show(row: dict[str, Any]) -> None:
    shown = {key: value for key, value in row.items() if key not in ("lengths", "answers")}
    print(json.dumps(shown), file=sys.stderr, flush=True)


def rates(rows: list[dict[str, Any]], system: str, clock: str = "cpu_s") -> list[float]:
    return [sum(row["lengths"]) / row[clock] for row in rows if row["system"] == system]


def figures(rows: list[dict[str, Any]], losses: dict[str, float], shape: Any) -> dict[str, Figure]:
    """Ratios over the rounds that both systems took part in."""
    ours = rates(rows, LEAN)

    def ratio(mine: list[float], peer: str, unit: str = "tokens/CPU-s") -> Figure:
        theirs = rates(rows, peer)
        both = min(len(mine), len(theirs))
        return against_best(mine[:both], {peer: theirs[:both]}, unit=unit, better="higher", command=COMMAND)

    lean = [row for row in rows if row["system"] == LEAN]
    reached = [shape.step_flops(row["lengths"], row["answers"], rank=16) / row["cpu_s"] / 1e9 for row in lean]
    made = {"train.share_of_sgemm": against_best(
        reached, {"sgemm, the ceiling": [row["sgemm"]["cpu"] for row in lean]},
        unit="GFLOP/CPU-s", better="higher", command=COMMAND,
    )}  # fmt: skip
    for peer, name in ((TRL, "train.tokens_per_cpu_s"), (TRL_PLAIN, "train.tokens_per_cpu_s_plain")):
        if peer not in losses:
            continue
        made[name] = ratio(ours, peer)
        suffix = "" if peer == TRL else "_plain"
        peak = {who: max(row["peak_mb"] for row in rows if row["system"] == who) for who in (LEAN, peer)}
        made[f"train.peak_mb{suffix}"] = against_best(
            [peak[LEAN]], {peer: [peak[peer]]}, unit="MB", better="lower", command=COMMAND
        )
        made[f"train.dev_loss{suffix}"] = against_best(
            [losses[LEAN]], {peer: [losses[peer]]}, unit="nats/token", better="lower", command=COMMAND
        )
        for system, label in ((ACTIVATED, "activated"), (f"{ACTIVATED}, cached", "activated_cached")):
            if rates(rows, system):
                made[f"train.{label}_tokens_per_cpu_s{suffix}"] = ratio(rates(rows, system), peer)
    half = rates(rows, LEAN + BFLOAT16)
    if half:
        made["train.tokens_per_cpu_s_bfloat16"] = ratio(half, TRL_PLAIN + BFLOAT16)
        made["train.dev_loss_bfloat16"] = against_best(
            [losses[LEAN + BFLOAT16]], {LEAN: [losses[LEAN]]}, unit="nats/token", better="lower", command=COMMAND
        )
    return made


def table(rows: list[dict[str, Any]], losses: dict[str, float]) -> str:
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        lines.append(
            [system, spread(rates(rows, system)), spread(rates(rows, system, "wall_s")),
             statistics.fmean(sum(row["lengths"]) / len(row["lengths"]) for row in own),
             max(row["peak_mb"] for row in own), losses.get(system)]
        )  # fmt: skip
    return markdown_table(["trainer", "tokens/CPU-s", "tokens/s", "tokens/row", "peak MB", "dev loss"], lines)


def find_checkpoint(home: Path) -> Path:
    from graft.models.pulling import pull
    from graft.settings import model_cache
    from graft.training.checkpoint import checkpoint_from_gguf

    return checkpoint_from_gguf(pull("smollm2-135m", cache=model_cache()).main, home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="steps of each system, the first not counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--systems", nargs="+", choices=(*SYSTEMS, *IN_BFLOAT16), help="those that this processor can do"
    )
    parser.add_argument("--checkpoint", type=Path, help="folder of SmolLM2-135M; made from the catalogue's otherwise")
    parser.add_argument("--worker", choices=(*SYSTEMS, *IN_BFLOAT16), help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, checkpoint=given.checkpoint, home=given.home, steps=given.steps, threads=given.threads)
        return
    from graft.training.checkpoint import open_checkpoint
    from graft.training.lean.shape import read_shape
    from graft.training.machine import bfloat16_is_fast

    given.systems = given.systems or (*SYSTEMS, *(IN_BFLOAT16 if bfloat16_is_fast() else ()))
    with tempfile.TemporaryDirectory() as scratch:
        given.checkpoint = given.checkpoint or find_checkpoint(Path(scratch))
        rows, losses = run_rounds(given, Path(scratch))
        shape = read_shape(open_checkpoint(given.checkpoint).config)
    write_part("train", figures(rows, losses, shape), table=table(rows, losses), rows=rows)
    print(table(rows, losses))


if __name__ == "__main__":
    main()
