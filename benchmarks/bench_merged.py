"""Does a merged model generate as fast as its base? Both in the same quantisation, a reply each in turn.

    python -m benchmarks.bench_merged

A model is tuned for a few steps and exported by `graft export`; its base is written by the same writer. Beside them
stands what merging saves: base and adapter served side by side. Tokens per CPU second, the prompt included.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench_tasks import banking77
from benchmarks.corpora import data_folder
from benchmarks.costs import now
from benchmarks.figures import against_best, markdown_table, spread, write_part

if TYPE_CHECKING:
    from graft import Workspace
    from graft.models import Message
    from graft.models.llama import LlamaModel

COMMAND = "python -m benchmarks.bench_merged"
BASE, MERGED, ADAPTER = "base", "merged", "base + adapter"
TARGET = 0.98
EXAMPLES, TOKENS, CONTEXT = 64, 96, 1024
PROMPTS = (
    "Write a short story about a lighthouse keeper.",
    "Explain how a bicycle stays upright.",
    "List ten things to pack for a week in the mountains, with a reason for each.",
    "Describe the water cycle to a child.",
)


def models(workspace: Workspace, folder: Path, quantisation: str) -> dict[str, LlamaModel]:
    """The three, as files that are loaded alike."""
    import random

    from graft.models.llama import LlamaModel
    from graft.training.adapters import read_adapter
    from graft.training.gguf_writer import write_gguf, write_lora
    from graft.training.quantising import Quantisation
    from graft.tuning import TuneRequest

    train = folder / "train.jsonl"
    rows, _, _ = banking77(data_folder() / "finetune" / "banking77", random.Random(0))
    with train.open("w", encoding="utf-8") as file:
        for asked, intent in rows[:EXAMPLES]:
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": intent}]
            file.write(json.dumps({"messages": turns}) + "\n")
    workspace.pull_model("smollm2-135m")
    request = TuneRequest(name="merged", model="smollm2-135m", train=str(train), proof="none")
    workspace.tune(request, overrides={"epochs": 1.0, "batch_size": 16, "patience": 0})
    exported = workspace.export("merged", to="gguf", quantisation=quantisation, into=folder)
    tuned = workspace.tuned_model("merged")
    checkpoint, adapter = tuned.weights()
    kind: Quantisation = exported.quantisation or "q8_0"
    base, lora = folder / "base.gguf", folder / "lora.gguf"
    write_gguf(checkpoint, base, quantisation=kind, name="base", like=tuned.gguf)
    write_lora(read_adapter(adapter), checkpoint, lora, name="lora")
    return {
        BASE: LlamaModel(base, name=BASE, context_tokens=CONTEXT),
        MERGED: LlamaModel(exported.path, name=MERGED, context_tokens=CONTEXT),
        ADAPTER: LlamaModel(base, name=ADAPTER, context_tokens=CONTEXT, adapter=lora),
    }


def speed(model: LlamaModel, messages: tuple[Message, ...]) -> float:
    """Tokens per CPU second; nan where the reply has too few to say."""
    from graft.models import GenerateOptions, complete

    before = now()
    reply = complete(model, messages, GenerateOptions(max_tokens=TOKENS, temperature=0.0, cache_prompt=False))
    spent = now() - before
    return reply.usage.output_tokens / spent.cpu_s if reply.usage.output_tokens >= TOKENS // 2 else math.nan


def main() -> None:
    from graft import Workspace
    from graft.models import Message

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantisation", default="q8_0", choices=["f16", "q8_0", "q4_k_m"])
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Workspace(Path(scratch) / "home") as workspace:
        asked = models(workspace, Path(scratch), given.quantisation)
        measured: dict[str, list[float]] = {name: [] for name in asked}
        for number in range(-1, given.rounds):  # the first warms up
            messages = (Message("user", PROMPTS[number % len(PROMPTS)]),)
            row = {name: speed(model, messages) for name, model in asked.items()}
            if number >= 0 and not any(map(math.isnan, row.values())):
                for name, value in row.items():
                    measured[name].append(value)
    if not measured[BASE]:
        raise SystemExit(f"no reply had {TOKENS // 2} tokens; raise --rounds")
    figure = against_best(
        measured[MERGED],
        {BASE: measured[BASE]},
        unit=f"tokens/CPU-s in {given.quantisation} (target ratio {TARGET})",
        better="higher",
        command=COMMAND,
    )
    table = markdown_table(
        ["model", "tokens/CPU-s", "of the base"],
        [
            [name, spread(values), spread([v / b for v, b in zip(values, measured[BASE], strict=True)])]
            for name, values in measured.items()
        ],
    )
    print(table)
    write_part(
        "merged",
        {"merged.speed": figure},
        table=table,
        rows=[{"model": n, "tokens_per_cpu_s": v} for n, v in measured.items()],
    )


if __name__ == "__main__":
    main()
