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
from graft.dataset.lines import file_sha256
from graft.dataset.reading import read_examples
from graft.dataset.retrieval_aware import Shelf
from graft.dataset.splitting import split_examples
from graft.errors import TrainingError, UsageError
from graft.evaluation.memorising import Canary, plant
from graft.prompting import CountTokens
from graft.settings import Settings
from graft.training.preflight import Preflight
from graft.training.protocol import Trainer, TrainRun
from graft.tuning.ahead import look_ahead, token_counter
from graft.tuning.bases import Base, HostedBase
from graft.tuning.grounding import LEAST_TO_SPLIT, Grounded, ground, questions_in
from graft.tuning.values import TuneRequest

SPLIT = "split.json"
_PART = 0.1
"""Share of the examples that is kept back for each part that is not given."""
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
        grounded: How retrieval-aware examples came about; None where the files' own are learnt.
        longest_answer: Tokens of the longest answer that is learnt.
        notes: What was decided on the way, in words.
    """

    base: Base | HostedBase
    run: TrainRun
    trainer: Trainer
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    held_out: tuple[Example, ...]
    canaries: tuple[Canary, ...]
    files: tuple[DataFile, ...]
    preflight: Preflight
    grounded: Grounded | None
    longest_answer: int
    notes: tuple[str, ...]


def prepare(
    request: TuneRequest,
    base: Base | HostedBase,
    settings: Settings,
    folder: Path,
    *,
    examples: Sequence[Example] | None = None,
    open_shelf: Callable[[CountTokens], Shelf] | None = None,
    price_usd: float | None = None,
    tell: Callable[[str], object] = lambda what: None,
) -> Prepared:
    """Read, split, encode, look ahead.

    Args:
        folder: Of the run; the split is frozen there, so that the same request has the same parts again.
        examples: Instead of those of the file `request.train`.
        open_shelf: Opens the collection of a request that is retrieval-aware.
        price_usd: Of a million trained tokens at a hosted base's provider.
    Raises:
        ReadError, UsageError, LimitExceeded: A file cannot be read.
        TrainingError: A line is no example, does not fit the model's context, or no question became an example.
        ModelError: The base cannot be opened.
    """
    tell("read the examples")
    files, given = _given(request, settings, examples)
    grounded = None
    if request.retrieval_aware is None:
        parts, notes = _parts(given, settings.tuning.seed, folder / SPLIT)
    else:
        if open_shelf is None:
            raise UsageError("retrieval-aware examples need a workspace", fix="Workspace.tune")
        grounded = ground(
            given,
            open_shelf(token_counter(base, settings)),
            folder,
            collection=request.retrieval_aware,
            base=base.name,
            settings=settings.retrieval_aware,
            seed=settings.tuning.seed,
            tell=tell,
        )
        parts, notes = dict(grounded.parts), [*grounded.notes]
    if not parts["held-out"]:
        notes.append("nothing was kept back, or is left, to measure the tuned model on")
    train = parts["train"]
    canaries: tuple[Canary, ...] = ()
    if request.canaries:
        if isinstance(base, HostedBase):
            raise UsageError(f"canaries cannot be probed in {base.name!r}, a hosted model", fix="--canaries 0")
        planted = plant(train, request.canaries, seed=_CANARY_SEED)
        train, canaries = planted.examples, planted.canaries
    tell("encode them")
    ahead = look_ahead(base, train, parts["dev"], settings, folder / "run", price_usd=price_usd)
    return Prepared(
        base=base,
        run=ahead.run,
        trainer=ahead.trainer,
        train=parts["train"],
        dev=parts["dev"],
        held_out=parts["held-out"],
        canaries=canaries,
        files=tuple(files),
        preflight=ahead.preflight,
        grounded=grounded,
        longest_answer=ahead.longest_answer,
        notes=(*notes, *ahead.notes),
    )


def _given(
    request: TuneRequest, settings: Settings, examples: Sequence[Example] | None
) -> tuple[list[DataFile], dict[str, tuple[Example, ...]]]:
    """The files, and what each holds, by part."""
    files: list[DataFile] = []
    given: dict[str, tuple[Example, ...]] = {}
    for part, role, path in (
        ("train", "training", request.train),
        ("dev", "dev", request.dev),
        ("held-out", "held out", request.held_out),
    ):
        if path is None:
            continue
        if part == "train" and examples is not None:
            given[part] = tuple(examples)
            continue
        asked = None if request.retrieval_aware is None else questions_in(Path(path))
        given[part] = _read(path, request.mapping, settings) if asked is None else asked
        files.append(DataFile(role=role, path=path, sha256=file_sha256(Path(path))))
    return files, given


def _parts(
    given: Mapping[str, tuple[Example, ...]], seed: int, frozen: Path
) -> tuple[dict[str, tuple[Example, ...]], list[str]]:
    """Train, dev and held out; what was not given is split off the training examples."""
    parts: dict[str, tuple[Example, ...]] = {"train": (), "dev": (), "held-out": (), **given}
    absent = [part for part in ("dev", "held-out") if part not in given]
    if not absent:
        return parts, []
    if len(parts["train"]) < LEAST_TO_SPLIT:
        return parts, [f"{len(parts['train'])} examples are too few to keep some back"]
    parts |= _split(parts["train"], absent, seed, frozen)
    kept = " and ".join(f"{len(parts[part])} for {'dev' if part == 'dev' else 'the proof'}" for part in absent)
    return parts, [f"{kept} were kept back from the training examples; the lists are in {frozen.name}"]


def _read(path: str, mapping: Mapping[str, str] | None, settings: Settings) -> tuple[Example, ...]:
    reading = read_examples(path, mapping=mapping, limits=settings.dataset)
    errors = [finding for finding in reading.findings if finding.severity is Severity.ERROR]
    if errors or not reading.examples:
        first = f": line {errors[0].line}: {errors[0].message}" if errors else ""
        count = sum(reading.counts[code] for code in {finding.code for finding in errors})
        raise TrainingError(
            f"{path} has {count or 'no'} lines that {'are no' if count else 'hold'} examples{first}",
            fix=f"graft dataset check {path}",
        )
    return reading.examples


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
        dev, test = (_PART if part in absent else 0.0 for part in ("dev", "held-out"))
        split = split_examples(examples, fractions=(1 - dev - test, dev, test), seed=seed)
        frozen.parent.mkdir(parents=True, exist_ok=True)
        part = frozen.with_suffix(".part")
        part.write_text(json.dumps(split.to_json()) + "\n", encoding="utf-8")
        part.replace(frozen)
        ids = split.ids
    wanted = {"train": "train", **{part: "test" if part == "held-out" else part for part in absent}}
    return {part: tuple(by_id[one] for one in ids[name]) for part, name in wanted.items()}


def with_overrides(settings: Settings, given: Mapping[str, object]) -> Settings:
    """Settings with some values of [tuning] replaced; the values are checked as those of graft.toml are."""
    from graft.settings import resolve

    changed = resolve({"tuning": dict(given)}, where="graft tune").tuning
    return replace(settings, tuning=replace(settings.tuning, **{key: getattr(changed, key) for key in given}))
