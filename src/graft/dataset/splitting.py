"""Examples -> train, dev and test: labels in the same shares, nothing related on two sides, frozen as ids.

Related are examples of one source, near-duplicates, and in a question file the turns of one conversation; each such
group goes to one side whole. The lists of ids are written beside the file and used again for as long as the file has
the same bytes. It does not know what is measured on the parts.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graft.dataset.examples import Example
from graft.dataset.labels import LabelCounts
from graft.dataset.leakage import input_text
from graft.dataset.near import components, near_links, signatures, stacked
from graft.dataset.reading import read_examples
from graft.dataset.writing import write_examples, write_lines
from graft.errors import GraftError, UsageError
from graft.settings import DatasetSettings

PARTS = ("train", "dev", "test")
_SIZE_WEIGHT = 0.5
"""How much a part's size counts beside a label's share of it, so that rare labels together fill every part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Frozen lists of ids.

    Attributes:
        sha256: Of the file's bytes that the ids are of.
        fractions: Of train, dev and test, as asked for.
        ids: Part -> ids, in the file's order.
    """

    seed: int
    sha256: str
    fractions: tuple[float, float, float]
    ids: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """As it is written: seed, sha256, fractions, and a list for each part."""
        return {"seed": self.seed, "sha256": self.sha256, "fractions": self.fractions, **self.ids}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFiles:
    """What was written.

    Attributes:
        reused: Whether the lists were frozen before.
        files: Part -> its file of examples.
        unread: Lines that are no examples, and so are in no part.
    """

    split: Split
    frozen: Path
    files: Mapping[str, Path]
    reused: bool
    unread: int


def split_file(
    path: Path | str,
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    mapping: Mapping[str, str] | None = None,
    output: Path | str | None = None,
    renew: bool = False,
    limits: DatasetSettings | None = None,
    questions: Sequence[Example] | None = None,
) -> SplitFiles:
    """Split a file, or take up its frozen split; writes `FILE.splits.json` and `FILE.train.jsonl` and so on.

    Args:
        output: Folder for what is written; beside the file by default.
        renew: Forget a split that was frozen before.
        questions: Those of a question file, in its order; its lines are then written as they are, kinds are what is
            evened out.
    Raises:
        UsageError: Fractions that make no parts; or the frozen split is of other bytes, fractions or seed.
        ReadError, LimitExceeded: The file cannot be read, or the parts not written.
    """
    file = Path(path)
    folder = file.parent if output is None else Path(output)
    frozen = folder / f"{file.name}.splits.json"
    examples: Sequence[Example]
    lines: dict[str, Mapping[str, Any]] | None = None
    if questions is None:
        reading = read_examples(file, mapping=mapping, limits=limits)
        examples, sha256, unread, labels = reading.examples, reading.sha256, reading.unread, None
    else:
        examples, labels = _conversations(questions), [str(one.extra.get("kind")) for one in questions]
        data = file.read_bytes()
        sha256, unread = hashlib.sha256(data).hexdigest(), 0
        rows = (json.loads(line) for line in data.decode("utf-8-sig").splitlines() if line.strip())
        lines = dict(zip((one.id for one in questions), rows, strict=True))
    split = None if renew or not frozen.exists() else load_split(frozen)
    reused = split is not None
    if split is None:
        split = split_examples(examples, fractions=fractions, seed=seed, sha256=sha256, labels=labels)
        write_lines(frozen, [split.to_json()])
    _refuse_other(split, frozen, sha256, fractions, seed)
    by_id = {example.id: example for example in examples}
    if by_id.keys() != {id for part in split.ids.values() for id in part}:
        raise UsageError(f"{frozen.name} was frozen with another --map", fix="give the same --map, or --renew")
    files = {}
    for part in PARTS:
        files[part] = folder / f"{file.name.removesuffix('.gz')}.{part}.jsonl"
        if lines is None:
            write_examples(files[part], (by_id[id] for id in split.ids[part]))
        else:
            write_lines(files[part], (lines[id] for id in split.ids[part]))
    return SplitFiles(split=split, frozen=frozen, files=files, reused=reused, unread=unread)


def _conversations(questions: Sequence[Example]) -> list[Example]:
    """The same with the conversation that each belongs to as its source, where it states none."""
    before = {one.id: one.extra["after"] for one in questions if one.extra.get("after") is not None}

    def begins(name: str) -> str:
        while name in before:
            name = str(before[name])
        return name

    return [replace(one, source=str(one.extra.get("source") or begins(one.id))) for one in questions]


def split_examples(
    examples: Sequence[Example],
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    sha256: str = "",
    threshold: float | None = None,
    labels: Sequence[str] | None = None,
) -> Split:
    """Divide examples; the same examples, fractions and seed give the same parts.

    Args:
        labels: What is evened out, one for each example; by default its answer, where answers are labels.
    Raises:
        UsageError: Fractions do not add up to 1, or there are fewer examples than parts.
    """
    if any(not 0 <= fraction <= 1 for fraction in fractions) or abs(sum(fractions) - 1) > 1e-6 or not fractions[0]:
        raise UsageError(
            f"fractions {fractions} do not add up to 1, or leave no train part", fix="--parts 0.8,0.1,0.1"
        )
    wanted = [part for part, fraction in zip(PARTS, fractions, strict=True) if fraction]
    groups = related(examples, threshold=threshold)
    if len(groups) < len(wanted):
        raise UsageError(
            f"{len(examples)} examples in {len(groups)} unrelated groups cannot fill {len(wanted)} parts; "
            "examples of one source, and near-duplicates, stay together",
            fix="add examples, or --parts 0.5,0.5,0",
        )
    placed = _placed(groups, labels or _labels(examples), fractions, random.Random(seed))
    ids: dict[str, tuple[str, ...]] = {
        part: tuple(example.id for row, example in enumerate(examples) if placed[row] == at)
        for at, part in enumerate(PARTS)
    }
    return Split(seed=seed, sha256=sha256, fractions=fractions, ids=ids)


def related(examples: Sequence[Example], *, threshold: float | None = None) -> list[list[int]]:
    """Rows that must stay on one side together: one source, or nearly one input, directly or through others."""
    limit = DatasetSettings().near_duplicate if threshold is None else threshold
    marks = stacked(signatures(input_text(example) for example in examples))
    links: list[tuple[int, int]] = [(a, b) for a, b in near_links(marks, threshold=limit).tolist()]
    first: dict[str, int] = {}
    for row, example in enumerate(examples):
        if example.source is not None:
            links.append((first.setdefault(example.source, row), row))
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(components(len(examples), links)):
        groups[group].append(row)
    return list(groups.values())


def load_split(path: Path | str) -> Split:
    """Read frozen lists.

    Raises:
        UsageError: It is not a file of frozen lists, or names an id twice.
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        ids = {part: tuple(map(str, told[part])) for part in PARTS}
        train, dev, test = map(float, told["fractions"])
        split = Split(seed=int(told["seed"]), sha256=str(told["sha256"]), fractions=(train, dev, test), ids=ids)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a frozen split: {error}", fix=f"remove {path}, or --renew") from error
    if len({id for part in ids.values() for id in part}) != sum(map(len, ids.values())):
        raise UsageError(f"{path} names an id twice", fix=f"remove {path}, or --renew")
    return split


def _refuse_other(split: Split, frozen: Path, sha256: str, fractions: tuple[float, float, float], seed: int) -> None:
    if split.sha256 != sha256:
        raise GraftError(
            f"the file has changed since {frozen.name} was frozen; its test part may by now be known",
            fix="--renew makes a new split; figures of the old one no longer compare",
        )
    if (split.seed, split.fractions) != (seed, fractions):
        parts = ",".join(map(str, split.fractions))
        raise UsageError(
            f"{frozen.name} was frozen with --seed {split.seed} --parts {parts}",
            fix="leave them as they were, or --renew",
        )


def _labels(examples: Sequence[Example]) -> list[str]:
    """Each example's label; one for all where answers are not labels."""
    counts = LabelCounts()
    for example in examples:
        counts.add(example.answer)
    labelled = bool(counts.labels())
    return [example.answer.strip() if labelled else "" for example in examples]


def _placed(
    groups: Sequence[Sequence[int]],
    labels: Sequence[str],
    fractions: tuple[float, float, float],
    chance: random.Random,
) -> dict[int, int]:
    """Part of each row: large groups first, each where its labels, then examples of any label, lack most.

    Source: after Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", ECML 2011.
    """
    totals = Counter(labels)
    lacking = {label: [count * fraction for fraction in fractions] for label, count in totals.items()}
    room = [len(labels) * fraction for fraction in fractions]
    size = list(room)
    parts = [at for at, fraction in enumerate(fractions) if fraction]
    order = list(groups)
    chance.shuffle(order)
    # Rare labels before frequent ones: these can still even the sizes out.
    order.sort(key=lambda group: (-len(group), min(totals[labels[row]] for row in group)))
    placed: dict[int, int] = {}
    for number, group in enumerate(order):
        here = Counter(labels[row] for row in group)
        empty = [at for at in parts if room[at] == size[at]]
        among = empty if len(empty) >= len(order) - number else parts  # no part is left empty
        lack = {at: sum(n * lacking[label][at] for label, n in here.items()) / len(group) for at in among}
        best = max(among, key=lambda at: lack[at] + _SIZE_WEIGHT * room[at] / size[at])
        for label, n in here.items():
            lacking[label][best] -= n
        room[best] -= len(group)
        placed.update(dict.fromkeys(group, best))
    return placed
