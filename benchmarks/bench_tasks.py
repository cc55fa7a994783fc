"""Public examples of a task -> a model tuned by `graft tune`, beside its base and a vote that needs no model.

    python -m benchmarks.bench_tasks                       both tasks, about 40 minutes on two cores
    python -m benchmarks.bench_tasks --task banking77      one of them

banking77: customers' messages -> one of 77 intents; 2,000 examples, 300 held-out messages of its test part.
restaurant8k: a guest's words -> the slots in them as JSON; 949 examples, 300 held-out turns of its test part.
Which examples are drawn follows from the seed; the state is chosen on 150 and 75 more of the training part.
Products are in bfloat16 where this processor has them.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.corpora import data_folder
from benchmarks.figures import Figure, markdown_table, write_part

COMMAND = "python -m benchmarks.bench_tasks"
SEED = 0
HELD_OUT, DEV, DEV_SLOTS = 300, 150, 75
SHARED = {"batch_size": 16, "learning_rate": 1e-3, "patience": 0}
SETTINGS: dict[str, dict[str, object]] = {
    "banking77": {**SHARED, "epochs": 3.0, "evaluate_steps": 75},
    "restaurant8k": {**SHARED, "epochs": 6.0, "evaluate_steps": 50},
}
TARGETS = {
    "banking77": {"accuracy": 0.75},
    "restaurant8k": {"valid_json": 0.99, "slot_f1": 0.85},
}

Rows = list[tuple[str, str]]


def banking77(folder: Path, draw: random.Random) -> tuple[Rows, Rows, Rows]:
    """Messages and their intents: train, dev, held out."""

    def rows(name: str) -> Rows:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            read = [(row["text"], row["category"]) for row in csv.DictReader(file)]
        draw.shuffle(read)
        return read

    train = rows("train.csv")
    return train[:2000], train[2000 : 2000 + DEV], rows("test.csv")[:HELD_OUT]


def restaurant8k(folder: Path, draw: random.Random) -> tuple[Rows, Rows, Rows]:
    """Turns, with the slots that were asked for, and what they hold as JSON."""
    train = [_slots(turn) for turn in json.loads((folder / "train_3.json").read_text(encoding="utf-8"))]
    test = [_slots(turn) for turn in json.loads((folder / "test.json").read_text(encoding="utf-8"))]
    draw.shuffle(train)
    draw.shuffle(test)
    return train[DEV_SLOTS:], train[:DEV_SLOTS], test[:HELD_OUT]


def _slots(turn: dict[str, Any]) -> tuple[str, str]:
    text = turn["userInput"]["text"]
    spans = ((label["slot"], label["valueSpan"]) for label in turn.get("labels", ()))
    values = {slot: text[span.get("startIndex", 0) : span["endIndex"]] for slot, span in spans}
    asked = ", ".join(turn.get("context", {}).get("requestedSlots", ())) or "-"
    return f"Asked for: {asked}\nGuest: {text}", json.dumps(values, ensure_ascii=False)


MAKE: dict[str, Callable[[Path, random.Random], tuple[Rows, Rows, Rows]]] = {
    "banking77": banking77,
    "restaurant8k": restaurant8k,
}


def tuned(task: str, data: Path, work: Path, *, proof: str) -> tuple[dict[str, Any], float]:
    """What proof.json says of the model that is tuned for a task, and the minutes that training took."""
    from graft import Workspace
    from graft.training.machine import bfloat16_is_fast
    from graft.tuning import TuneRequest

    precision = "bfloat16" if bfloat16_is_fast() else "float32"
    parts = zip(("train", "dev", "test"), MAKE[task](data / "finetune" / task, random.Random(SEED)), strict=True)
    files = {name: _written(work / f"{task}-{name}.jsonl", rows) for name, rows in parts}
    request = TuneRequest(
        name=task,
        model="smollm2-135m",
        train=str(files["train"]),
        dev=str(files["dev"]),
        held_out=str(files["test"]),
        proof=proof,  # type: ignore[arg-type]
        questions=HELD_OUT,
        ability=50,
    )
    with Workspace(work / "home") as workspace:
        workspace.pull_model("smollm2-135m")
        made = workspace.tune(request, overrides={**SETTINGS[task], "precision": precision}, progress=_Teller())
    return json.loads((made.folder / "proof.json").read_text(encoding="utf-8")), made.seconds / 60


class _Teller:
    """Says every half minute how far it is."""

    def __init__(self) -> None:
        self.said = 0.0

    def __call__(self, seen: Any) -> None:
        if time.monotonic() - self.said > 30:
            self.said = time.monotonic()
            loss = (
                f", loss {seen.training.loss:.3f}, {seen.training.seconds_left / 60:.0f} min left"
                if seen.training
                else ""
            )
            print(f"{seen.stage}: {seen.done}/{seen.total}{loss}", flush=True)


def _written(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    lines = (
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in rows
    )
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def table_rows(task: str, proof: dict[str, Any], minutes: float) -> Iterator[list[object]]:
    """Lines of the table: each metric of the tuned model beside the base and what needs no model."""
    baselines = proof["tuned"]["baselines"]
    for metric, found in proof["tuned"]["metrics"].items():
        interval = f"{found['low']:.3f} to {found['high']:.3f}"
        vote = baselines.get("nearest_vote", {}).get(metric, {}).get("mean")
        yield [task, metric, found["mean"], interval, proof["base"]["metrics"].get(metric, {}).get("mean"), vote]
    if proof["regression"]:
        change = proof["regression"]["overall"]["comparison"]
        interval = f"{change['low']:+.3f} to {change['high']:+.3f}"
        yield [task, "general ability, change", change["difference"], interval, None, None]
    yield [task, "minutes of training", minutes, "", None, None]


def figures(task: str, proof: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """The figures that have a target, beside the vote of the nearest examples or else the base."""
    for metric, target in TARGETS[task].items():
        found = proof["tuned"]["metrics"][metric]
        vote = proof["tuned"]["baselines"].get("nearest_vote", {}).get(metric)
        peer = vote or proof["base"]["metrics"].get(metric)
        yield (
            f"train.{task}.{'exact' if metric == 'accuracy' else metric}",
            Figure(
                ours=round(found["mean"], 4),
                peer=None if peer is None else round(peer["mean"], 4),
                peer_name=None if peer is None else ("vote of the nearest examples" if vote else "base"),
                ratio=round(found["mean"] / peer["mean"], 3) if peer and peer["mean"] else None,
                low=round(found["low"], 3),
                high=round(found["high"], 3),
                unit=f"share (target {target:g}); low and high are its 95% interval",
                better="higher",
                command=COMMAND,
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(MAKE), help="only this one; keeps its figures under its own name")
    parser.add_argument("--proof", choices=["full", "quality"], default="full")
    parser.add_argument("--work", type=Path, help="folder to go on from, should the run be stopped")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for task in [given.task] if given.task else list(MAKE):
            proof, minutes = tuned(task, data_folder(), work, proof=given.proof)
            rows = list(table_rows(task, proof, minutes))
            table = markdown_table(["task", "metric", "tuned", "95% interval", "base", "nearest vote"], rows)
            print(table, flush=True)
            kept = [
                dict(zip(("task", "metric", "tuned", "interval", "base", "vote"), row, strict=True)) for row in rows
            ]
            write_part(f"task-{task}", dict(figures(task, proof)), table=table, rows=kept)


if __name__ == "__main__":
    main()
