"""A request + files of examples -> everything that a run needs, and what it would be (the preflight).

Nothing is trained here, and nothing is refused silently: what stands in the way comes with its remedy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graft.dataset import Example
from graft.dataset.findings import Severity
from graft.dataset.reading import read_examples
from graft.dataset.splitting import split_examples
from graft.errors import TrainingError
from graft.evaluation.memorising import Canary, plant
from graft.settings import Settings
from graft.training.checkpoint import load_tokenizer, open_checkpoint
from graft.training.encoding import Encoding, encode, require_all
from graft.training.opening import open_trainer
from graft.training.preflight import Preflight, preflight
from graft.training.protocol import Trainer, TrainRun
from graft.tuning.bases import Base
from graft.tuning.values import TuneRequest

SPLIT = "split.json"
_PART = 0.1
"""Share of the examples that is kept back for each part that is not given."""
_LEAST_TO_SPLIT = 20
_CANARY_SEED = 20_190_801


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A file that examples were read from."""

    role: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that can begin.

    Attributes:
        train, dev, held_out: Examples of each part; `train` without canaries, `held_out` is never trained on.
        notes: What was decided on the way, in words.
    """

    base: Base
    run: TrainRun
    trainer: Trainer
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    held_out: tuple[Example, ...]
    canaries: tuple[Canary, ...]
    files: tuple[DataFile, ...]
    preflight: Preflight
    notes: tuple[str, ...]


def prepare(
    request: TuneRequest,
    base: Base,
    settings: Settings,
    folder: Path,
    *,
    examples: Sequence[Example] | None = None,
    tell: Callable[[str], object] = lambda what: None,
) -> Prepared:
    """Read, split, encode, look ahead.

    Args:
        folder: Of the run; the split is frozen there, so that the same request has the same parts again.
        examples: Instead of those of the file `request.train`.
    Raises:
        ReadError, UsageError, LimitExceeded: A file cannot be read.
        TrainingError: A line is no example, or does not fit the model's context.
        ModelError: The base cannot be opened.
    """
    tell("read the examples")
    files, notes, parts = _parts(request, settings, folder, examples)
    train = parts["train"]
    canaries: tuple[Canary, ...] = ()
    if request.canaries:
        planted = plant(train, request.canaries, seed=_CANARY_SEED)
        train, canaries = planted.examples, planted.canaries
    tell("encode them")
    checkpoint = open_checkpoint(base.checkpoint)
    tokenizer = load_tokenizer(checkpoint)
    context = min(settings.tuning.context_tokens, checkpoint.context_tokens)
    encodings: list[Encoding] = []
    for part in (train, parts["dev"]):
        encodings.append(encode(part, tokenizer, context_tokens=context, truncate=settings.tuning.truncate))
        if part:
            require_all(encodings[-1], truncate=settings.tuning.truncate)
    run = TrainRun(
        checkpoint=base.checkpoint,
        train=encodings[0].encoded,
        dev=encodings[1].encoded,
        settings=settings.tuning,
        folder=folder / "run",
    )
    trainer = open_trainer(run)
    refused = [one for encoding in encodings for one in encoding.refused]
    return Prepared(
        base=base,
        run=run,
        trainer=trainer,
        train=parts["train"],
        dev=parts["dev"],
        held_out=parts["test"],
        canaries=canaries,
        files=tuple(files),
        preflight=preflight(run, tokenizer, trainer, refused=refused),
        notes=(*notes, *(note for encoding in encodings for note in encoding.notes)),
    )


def _parts(
    request: TuneRequest, settings: Settings, folder: Path, examples: Sequence[Example] | None
) -> tuple[list[DataFile], list[str], dict[str, tuple[Example, ...]]]:
    files: list[DataFile] = []
    notes: list[str] = []
    parts: dict[str, tuple[Example, ...]] = {"train": (), "dev": (), "test": ()}
    for part, role, path in (
        ("train", "training", request.train),
        ("dev", "dev", request.dev),
        ("test", "held out", request.held_out),
    ):
        if path is None:
            continue
        if part == "train" and examples is not None:
            parts[part] = tuple(examples)
        else:
            parts[part], sha256 = _read(path, request.mapping, settings)
            files.append(DataFile(role=role, path=path, sha256=sha256))
    absent = [part for part, path in (("dev", request.dev), ("test", request.held_out)) if path is None]
    if absent and len(parts["train"]) < _LEAST_TO_SPLIT:
        notes.append(
            f"{len(parts['train'])} examples are too few to keep some back: nothing is measured on held-out ones"
        )
    elif absent:
        parts |= _split(parts["train"], absent, settings.tuning.seed, folder / SPLIT)
        kept = " and ".join(f"{len(parts[part])} for {'dev' if part == 'dev' else 'the proof'}" for part in absent)
        notes.append(f"{kept} were kept back from the training examples; the lists are in {SPLIT}")
    return files, notes, parts


def _read(path: str, mapping: Mapping[str, str] | None, settings: Settings) -> tuple[tuple[Example, ...], str]:
    reading = read_examples(path, mapping=mapping, limits=settings.dataset)
    errors = [finding for finding in reading.findings if finding.severity is Severity.ERROR]
    if errors or not reading.examples:
        first = f": line {errors[0].line}: {errors[0].message}" if errors else ""
        count = sum(reading.counts[code] for code in {finding.code for finding in errors})
        raise TrainingError(
            f"{path} has {count or 'no'} lines that {'are no' if count else 'hold'} examples{first}",
            fix=f"graft dataset check {path}",
        )
    return reading.examples, reading.sha256


def _split(
    examples: Sequence[Example], absent: Sequence[str], seed: int, frozen: Path
) -> dict[str, tuple[Example, ...]]:
    """The parts; the ids of a split that was frozen before are taken up again."""
    by_id = {example.id: example for example in examples}
    ids: Mapping[str, Sequence[str]] | None = None
    if frozen.is_file():
        found = json.loads(frozen.read_text(encoding="utf-8"))
        ids = {part: found[part] for part in ("train", "dev", "test")}
        if {one for part in ids.values() for one in part} != set(by_id):
            raise TrainingError(f"{frozen} is a split of other examples", fix="give the run another --name")
    if ids is None:
        dev, test = (_PART if part in absent else 0.0 for part in ("dev", "test"))
        split = split_examples(examples, fractions=(1 - dev - test, dev, test), seed=seed)
        frozen.parent.mkdir(parents=True, exist_ok=True)
        part = frozen.with_suffix(".part")
        part.write_text(json.dumps(split.to_json()) + "\n", encoding="utf-8")
        part.replace(frozen)
        ids = split.ids
    return {part: tuple(by_id[one] for one in ids[part]) for part in ("train", *absent)}


def with_overrides(settings: Settings, given: Mapping[str, object]) -> Settings:
    """Settings with some values of [tuning] replaced; the values are checked as those of graft.toml are."""
    from graft.settings import resolve

    changed = resolve({"tuning": dict(given)}, where="graft tune").tuning
    return replace(settings, tuning=replace(settings.tuning, **{key: getattr(changed, key) for key in given}))
