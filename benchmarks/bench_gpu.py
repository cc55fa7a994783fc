"""LoRA on a GPU in bfloat16: `graft tune`'s trainer, TRL as it comes, and Unsloth where it is installed.

    python -m benchmarks.bench_gpu --model FOLDER                  the largest checkpoint at hand
    python -m benchmarks.bench_gpu --model FOLDER --device cpu     only whether it runs

Same rows, batch, rank and steps; each system trains in a process of its own and they take turns over the rounds.
Speed leaves out the first steps, in which kernels are chosen; memory is the most that was allocated on the GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.bench_train import read_rows
from benchmarks.figures import against_best, markdown_table, spread, write_part

COMMAND = "python -m benchmarks.bench_gpu"
GRAFT, TRL, UNSLOTH = "graft", "TRL as it comes", "Unsloth"
WARM_UP = 3
RANK, ALPHA = 16, 32


def work(system: str, given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Train; tokens a second after the warm-up, the GPU's peak in MB, the mean loss of the steps' batches."""
    import torch

    from graft.training.checkpoint import load_tokenizer, open_checkpoint

    rows = read_rows(load_tokenizer(open_checkpoint(given.model)), given.steps * given.batch)
    marks, losses = list[float](), list[float]()

    def step_done(loss: float) -> None:
        if given.device == "cuda":
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        losses.append(loss)

    train = {GRAFT: by_graft, TRL: by_trl, UNSLOTH: by_unsloth}[system]
    train(rows, given, folder, step_done)
    tokens = sum(len(row.tokens) for row in rows) / given.steps * (len(marks) - WARM_UP)  # orders differ by system
    peak = torch.cuda.max_memory_allocated() / 1e6 if given.device == "cuda" else 0.0
    return {
        "tokens_per_s": tokens / (marks[-1] - marks[WARM_UP - 1]),
        "peak_mb": peak,
        "loss": sum(losses) / len(losses),
    }


def by_graft(rows: list[Any], given: argparse.Namespace, folder: Path, step_done: Any) -> None:
    """The trainer that `graft tune` takes on a GPU, with the settings that it ships with."""
    from graft.settings import TuningSettings
    from graft.training.general import GeneralTrainer
    from graft.training.protocol import TrainRun

    settings = TuningSettings(
        rank=RANK, alpha=ALPHA, batch_size=given.batch, epochs=1.0, checkpoint_steps=0, evaluate_steps=0
    )
    run = TrainRun(checkpoint=given.model, train=rows, dev=(), settings=settings, folder=folder)
    GeneralTrainer(device=given.device).train(run, progress=lambda seen: step_done(seen.loss))


def by_trl(rows: list[Any], given: argparse.Namespace, folder: Path, step_done: Any) -> None:
    """SFTTrainer as its documentation starts it."""
    from peft import LoraConfig

    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    _sft(str(given.model), rows, given, folder, step_done, peft_config=lora)


def by_unsloth(rows: list[Any], given: argparse.Namespace, folder: Path, step_done: Any) -> None:
    """FastLanguageModel as its documentation starts it, unquantised."""
    from unsloth import FastLanguageModel  # type: ignore[import-not-found]

    longest = max(len(row.tokens) for row in rows)
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(given.model), max_seq_length=longest, load_in_4bit=False
    )
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = FastLanguageModel.get_peft_model(
        model, r=RANK, lora_alpha=ALPHA, target_modules=names, use_gradient_checkpointing="unsloth"
    )
    _sft(model, rows, given, folder, step_done)


def _sft(
    model: Any, rows: list[Any], given: argparse.Namespace, folder: Path, step_done: Any, **options: Any
) -> None:
    from datasets import Dataset  # type: ignore[import-untyped]
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                step_done(float(logs["loss"]))

    asked = [
        {
            "input_ids": list(row.tokens),
            "completion_mask": [0] * row.answer_start + [1] * (len(row.tokens) - row.answer_start),
        }
        for row in rows
    ]
    arguments = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=given.batch, max_steps=given.steps, logging_steps=1,
        learning_rate=5e-4, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=given.device == "cpu",
        bf16=given.device == "cuda", completion_only_loss=True,
    )  # fmt: skip
    SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(asked), callbacks=[Watch()], **options
    ).train()


def rounds(given: argparse.Namespace, systems: list[str]) -> list[dict[str, Any]]:
    """A row for each system and round."""
    found = []
    for number in range(given.rounds):
        for system in systems:
            with tempfile.TemporaryDirectory() as scratch:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.bench_gpu",
                    "--worker",
                    system,
                    "--model",
                    str(given.model),
                ]
                command += ["--home", scratch, "--device", given.device]
                command += ["--steps", str(given.steps), "--batch", str(given.batch)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.append({"round": number, "system": system, **json.loads(done.stdout)})
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's folder, with a chat template")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--worker", choices=[GRAFT, TRL, UNSLOTH], help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.steps <= WARM_UP:
        parser.error(f"--steps {given.steps}: the first {WARM_UP} are not counted")
    if given.worker:
        reply = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what the libraries print is not an answer
        print(json.dumps(work(given.worker, given, given.home)), file=reply, flush=True)
        return
    systems = [GRAFT, TRL, *([UNSLOTH] if importlib.util.find_spec("unsloth") else [])]
    found = rounds(given, systems)

    def of(system: str, key: str) -> list[float]:
        return [row[key] for row in found if row["system"] == system]

    lines = [[s, spread(of(s, "tokens_per_s")), max(of(s, "peak_mb")), of(s, "loss")[0]] for s in systems]
    table = markdown_table(["trainer", "tokens/s", "peak MB", "mean loss"], lines)
    print(table)
    if given.device == "cpu":
        return  # says that it runs, and nothing of a GPU
    peers = systems[1:]
    figures = {
        f"gpu.{name}": against_best(
            of(GRAFT, key), {s: of(s, key) for s in peers}, unit=unit, better=better, command=COMMAND
        )
        for name, key, unit, better in (
            ("tokens_per_s", "tokens_per_s", "tokens/s", "higher"),
            ("peak_mb", "peak_mb", "MB", "lower"),
        )
    }  # fmt: skip
    write_part("gpu", figures, table=table, rows=found)


if __name__ == "__main__":
    main()
