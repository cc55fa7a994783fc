"""Examples held against other files -> which of them the model must not see in training.

Dev and test parts are compared by input, exactly and nearly, and by source; benchmarks also by runs of
words that stand in a longer text. It does not know which of the two sides ought to change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graft.dataset.examples import Example
from graft.dataset.findings import Finding, Severity
from graft.dataset.formats import BadLine, example_of, guess_mapping, shape_of
from graft.dataset.lines import count_lines, lines_of, opened
from graft.dataset.near import Signatures, near_across, normalised, signatures, stacked
from graft.dataset.reading import Reader
from graft.errors import UsageError
from graft.settings import DatasetSettings

_QUESTION_KEYS = ("question", "query", "prompt", "context", "text", "input", "instruction")
LEAK_FIX = "remove it from one of the two files, or the measure will flatter the model"

_RUN = 13
"""Words of a benchmark's question in a row that are no chance (Brown et al. 2020, appendix C)."""
_LEAST_RUN = 8
"""A question of so many words is looked for whole; a shorter one only as a whole input."""


@dataclass(slots=True)
class Others:
    """What one other file holds, as far as it is compared.

    Attributes:
        benchmark: Whether it holds questions to be reported on rather than a part of the same data.
        inputs: Normalised input's hash -> line.
        runs: Number of words -> hashes of runs of so many words.
    """

    name: str
    benchmark: bool
    inputs: dict[int, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    runs: dict[int, dict[int, int]] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)
    signatures: Signatures | None = None


def read_others(path: Path, *, benchmark: bool, limits: DatasetSettings) -> Others:
    """Read a file that examples are held against: examples in any format, or questions.

    Raises:
        UsageError: It holds neither.
        LimitExceeded, ReadError: As for any file of examples.
    """
    others = Others(path.name, benchmark)
    texts: list[str] = []
    for line, text, source in _texts(path, limits):
        others.inputs.setdefault(hash(normalised(text)), line)
        others.lines.append(line)
        texts.append(text)
        if source is not None and not benchmark:
            others.sources.setdefault(source, line)
        if benchmark:
            _add_runs(others, text, line)
    if not texts:
        raise UsageError(f"{path.name} holds neither examples nor questions", fix="give a file of examples")
    others.signatures = stacked(signatures(texts))
    return others


def input_text(example: Example) -> str:
    """What is compared: the turns before the answer, but not the system's, which many share."""
    return "\n".join(turn.content for turn in example.prompt if turn.role != "system")


def exact_leaks(example: Example, line: int, text: str, others: Others) -> Iterator[Finding]:
    """The same input, the same source, or a benchmark's words in the text of any turn."""
    kind = "benchmark" if others.benchmark else "split"
    plain = hash(normalised(text))
    if plain in others.inputs:
        yield _leak(f"leak-{kind}", f"the same input is {others.name}:{others.inputs[plain]}", example, line)
        return
    if example.source is not None and example.source in others.sources:
        place = f"{others.name}:{others.sources[example.source]}"
        message = f"made from the source {example.source!r}, as is {place}"
        yield _leak("leak-source", message, example, line, fix="graft dataset split keeps a source on one side")
    if others.runs:
        found = _run_of(others, "\n".join(turn.content for turn in example.messages))
        if found is not None:
            yield _leak("leak-words", f"holds a question of {others.name}:{found} word for word", example, line)


def near_leaks(of: Signatures, others: Others, *, threshold: float) -> Iterator[tuple[int, str, str]]:
    """Row, code and message of inputs that nearly equal one of the other file's."""
    if others.signatures is None:
        return
    kind = "benchmark" if others.benchmark else "split"
    for row, other in near_across(of, others.signatures, threshold=threshold):
        message = f"nearly the same input is {others.name}:{others.lines[other]}"
        yield int(row), f"leak-{kind}-near", message


def _leak(code: str, message: str, example: Example, line: int, *, fix: str = "") -> Finding:
    return Finding(
        code=code,
        severity=Severity.ERROR,
        message=message,
        fix=fix or LEAK_FIX,
        line=line,
        id=example.id,
    )


def _texts(path: Path, limits: DatasetSettings) -> Iterator[tuple[int, str, str | None]]:
    """Line, input and source of each example or question; lines that are neither are passed over."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv", ".json")):
        for line, example in Reader(path, limits=limits):
            yield line, input_text(example), example.source
        return
    count_lines(path, limits)
    with opened(path) as file:
        for line, _, raw in lines_of(file, limits.max_line_mb << 20):
            try:
                value = json.loads(raw or b"")
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and (text := _text_of(value, line)):
                source = value.get("source")
                yield line, text, None if source is None else str(source)


def _text_of(value: dict[str, Any], line: int) -> str:
    if shape_of(value) is not None or (guess_mapping(list(value)) and "question" not in value):
        try:
            return input_text(example_of(value, origin=str(line), mapping=_mapping(value)))
        except BadLine:
            pass
    return next((value[key] for key in _QUESTION_KEYS if isinstance(value.get(key), str)), "")


def _mapping(value: dict[str, Any]) -> dict[str, str] | None:
    return None if shape_of(value) else guess_mapping(list(value))


def _add_runs(others: Others, text: str, line: int) -> None:
    words = normalised(text).split()
    if len(words) >= _LEAST_RUN:
        length = min(_RUN, len(words))
        runs = others.runs.setdefault(length, {})
        for at in range(len(words) - length + 1):
            runs.setdefault(hash(tuple(words[at : at + length])), line)


def _run_of(others: Others, text: str) -> int | None:
    words = normalised(text).split()
    for length, runs in others.runs.items():
        for at in range(len(words) - length + 1):
            line = runs.get(hash(tuple(words[at : at + length])))
            if line is not None:
                return line
    return None
