"""GRAFT_DATA -> the adapter of the default reader, in one command that goes on where it was stopped.

    python -m runs.train_reader --work .reader

1. documents   the sets of runs/reader_sets.py -> a workspace, one collection a set       WORK/home
2. examples    what production would retrieve for each question -> prompts and answers    WORK/sets, WORK/*.jsonl
3. training    exact LoRA on the dequantised smollm2-135m, best state by dev loss         WORK/run
4. adapter     as llama.cpp loads it, and what it was made of                             WORK/adapter.gguf, card.json

Every step that left its result is skipped; remove a file to have it made anew. What is printed also goes to
WORK/log.txt. Measure it:  python -m benchmarks.bench_reader --adapter WORK/adapter.gguf
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.corpora import data_folder
from graft import Workspace
from graft.dataset import Example, read_examples, write_examples
from graft.dataset.retrieval_aware import PARTS, REFUSAL, Shelf, retrieval_aware
from graft.settings import RetrievalAwareSettings, Settings, TuningSettings, model_cache
from runs.reader_sets import ReaderSet, reader_sets

if TYPE_CHECKING:
    from graft.training.protocol import TrainResult

BASE = "smollm2-135m"
SEED = 0
TUNING = TuningSettings(
    rank=16,
    alpha=32.0,
    learning_rate=1e-3,
    epochs=1.7,
    precision="bfloat16",  # where the processor has it: the loss is the same to 0.1%, 1.4 times as fast
    batch_size=32,
    alike_together=4,  # questions about one passage: what they share is computed once, 2.4 times as fast
    context_tokens=1024,
    truncate="drop",
    evaluate_steps=25,
    patience=0,  # the step size falls to 0 over the whole run: its end is worth waiting for
    checkpoint_steps=10,
    seed=SEED,
)

MIX = RetrievalAwareSettings(
    without_evidence=0.05,  # ClapNQ's questions decline too: together about one in eight
    one_passage=1.0,  # so small a model reads one far better than three: token F1 .37 against .23 in a first try
    two_passages=0.0,
    prompt_tokens=960,
)


Tell = Callable[[str], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".reader"), help="folder of everything that is made")
    parser.add_argument("--data", type=Path, help="instead of GRAFT_DATA")
    parser.add_argument("--method", default=TUNING.method, choices=["lora", "activated"])
    parser.add_argument("--epochs", type=float, default=TUNING.epochs)
    parser.add_argument("--threads", type=int, default=0, help="0 is one per core")
    parser.add_argument("--questions", type=int, help="only the first so many of each set, for a trial")
    parser.add_argument("--examples-only", action="store_true", help="stop before training, to look at them")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    tell = _teller(given.work / "log.txt")
    tuning = dataclasses.replace(TUNING, method=given.method, epochs=given.epochs, threads=given.threads)
    sets = list(reader_sets((given.data or data_folder()) / "qa"))
    if given.questions:
        sets = [_first(one, given.questions) for one in sets]
    examples = _examples(given.work, sets, tell)
    if given.examples_only:
        return
    base, result = _trained(given.work, examples, tuning, tell)
    _written(given.work, base, result, tell)
    _carded(given.work, sets, examples, tuning, result)


def _teller(log: Path) -> Tell:
    def tell(line: str) -> None:
        stamped = f"{datetime.datetime.now():%H:%M:%S} {line}"
        sys.stdout.write(stamped + "\n")
        sys.stdout.flush()
        with log.open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")

    tell(" ".join(sys.argv))
    return tell


def _first(one: ReaderSet, count: int) -> ReaderSet:
    """A set's first questions and the documents that they need."""
    questions = one.questions[:count]
    sources = {question.source for question in questions}
    documents = {name: text for name, text in one.documents.items() if name in sources}
    return dataclasses.replace(one, questions=questions, documents=documents)


def _examples(work: Path, sets: Sequence[ReaderSet], tell: Tell) -> dict[str, Sequence[Example]]:
    """Part -> its examples; those of a set are made where their files are not there."""
    files = {part: work / f"{part}.jsonl" for part in PARTS}
    if not all(path.exists() for path in files.values()):
        with Workspace(work / "home", settings=Settings()) as workspace:
            made = [_made(workspace, work, one, tell) for one in sets]
        for part, path in files.items():
            write_examples(path, [example for parts in made for example in parts[part]])
    read = {part: read_examples(path).examples for part, path in files.items()}
    for part, examples in read.items():
        kinds = Counter(str(example.extra["passages_from"]) for example in examples)
        declined = sum(example.answer == REFUSAL for example in examples) / max(1, len(examples))
        tell(f"{part}: {len(examples)} examples, {declined:.0%} declined, {dict(kinds)}")
    return read


def _made(workspace: Workspace, work: Path, one: ReaderSet, tell: Tell) -> dict[str, Sequence[Example]]:
    """A set's documents into its collection, and its questions into examples."""
    files = {part: work / "sets" / f"{one.name}.{part}.jsonl" for part in PARTS}
    if all(path.exists() for path in files.values()):
        return {part: read_examples(path).examples if path.stat().st_size else () for part, path in files.items()}
    folder = work / "documents" / one.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in one.documents.items():
        (folder / name).write_text(text, encoding="utf-8")
    added = workspace.add([str(folder)], collection=one.name)
    if added.failed:
        raise SystemExit(f"{one.name}: {added.failed[0]} / fix: remove {work} and run this again")
    tell(f"{one.name}: {len(one.documents)} documents, {added.chunks} new chunks, {len(one.questions)} questions")
    shelf = Shelf(
        store=workspace.store,
        embedder=workspace.embedder,
        principals=workspace.principals,
        count_tokens=workspace.model(BASE).count_tokens,
        collections=(one.name,),
        retrieval=workspace.settings.retrieval,
        answering=workspace.settings.answering,
    )
    seen = iter(range(1, len(one.questions) + 1))

    def progress(count: int) -> None:
        if (number := next(seen)) % 50 == 0:
            tell(f"{one.name}: {number}/{len(one.questions)}")

    made = retrieval_aware(one.questions, shelf, settings=MIX, seed=SEED, progress=progress)
    tell(f"{one.name}: made {made.counts}, left out {made.dropped}")
    files["train"].parent.mkdir(exist_ok=True)
    for part, examples in zip(PARTS, (made.train, made.dev), strict=True):
        write_examples(files[part], examples)
    return {"train": made.train, "dev": made.dev}


def _trained(
    work: Path, examples: dict[str, Sequence[Example]], tuning: TuningSettings, tell: Tell
) -> tuple[Path, TrainResult]:
    """Train, or go on with a run that was stopped; a finished one is only read. Returns the base too."""
    from graft.models.catalogue import entry_named, pulled
    from graft.training.checkpoint import checkpoint_from_gguf, load_tokenizer, open_checkpoint
    from graft.training.encoding import encode
    from graft.training.lean.trainer import LeanTrainer
    from graft.training.protocol import TrainProgress, TrainRun

    base = pulled(entry_named(BASE), cache=model_cache()).main
    checkpoint = checkpoint_from_gguf(base, work / "base")
    tokenizer = load_tokenizer(open_checkpoint(checkpoint))
    encoded = {
        part: encode(some, tokenizer, context_tokens=tuning.context_tokens, truncate=tuning.truncate).encoded
        for part, some in examples.items()
    }
    tokens = sum(len(one.tokens) for one in encoded["train"])
    tell(f"{tokens:,} tokens in {len(encoded['train'])} examples; {tuning.epochs:g} times with {tuning.method}")
    began = time.monotonic()

    def progress(seen: TrainProgress) -> None:
        if seen.step % 5 == 0 or seen.step == seen.steps:
            dev = "" if seen.dev_loss is None else f", dev {seen.dev_loss:.3f}"
            tell(
                f"step {seen.step}/{seen.steps}: loss {seen.loss:.3f}{dev}, {seen.tokens_per_second:.0f} tokens/s, "
                f"{seen.seconds_left / 60:.0f} min left"
            )

    run = TrainRun(
        checkpoint=checkpoint, train=encoded["train"], dev=encoded["dev"], settings=tuning, folder=work / "run"
    )
    result = LeanTrainer().train(run, progress=progress)
    assert result.adapter is not None  # nothing here cancels
    tell(f"trained in {(time.monotonic() - began) / 60:.1f} min: kept step {result.step}, dev loss {result.dev_loss}")
    return checkpoint, result


def _written(work: Path, base: Path, result: TrainResult, tell: Tell) -> None:
    """The adapter as it is served."""
    from graft.training.adapters import read_adapter
    from graft.training.gguf_writer import write_lora

    assert result.adapter is not None  # nothing here cancels
    made, target = work / ".adapter.gguf", work / "adapter.gguf"
    made.unlink(missing_ok=True)
    write_lora(read_adapter(result.adapter), base, made, name="graft-reader")
    made.replace(target)
    tell(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def _carded(
    work: Path,
    sets: Iterable[ReaderSet],
    examples: dict[str, Sequence[Example]],
    tuning: TuningSettings,
    result: TrainResult,
) -> None:
    """What the adapter was made of."""
    numbers = {k: v for k, v in dataclasses.asdict(result).items() if isinstance(v, int | float | str)}
    card = {
        "base": BASE,
        "date": datetime.date.today().isoformat(),
        "sets": {one.name: {"licence": one.licence, "questions": len(one.questions)} for one in sets},
        "examples": {
            part: dict(Counter(str(example.extra["passages_from"]) for example in some))
            for part, some in examples.items()
        },
        "prompts": dataclasses.asdict(MIX),
        "tuning": dataclasses.asdict(tuning),
        "result": numbers,
    }
    (work / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
