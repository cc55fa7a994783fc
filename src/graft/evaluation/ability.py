"""Public test sets, or the small one that is shipped -> questions as lm-evaluation-harness asks them.

Prompts and formulas are those of lm-evaluation-harness 0.4.13 (task files named below), zero-shot, so figures
can be held against published ones. The harness itself is no dependency: it brings 30 packages and fetches
its data from a hub, and these formulas are ten lines. It does not know models.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from graft.errors import UsageError
from graft.evaluation.likelihood import Likelihood, Prompted

T = TypeVar("T")
Rule = Literal["acc", "acc_norm", "last_word"]
_TEXT_CHARACTERS = 1_500
"""Of a general text: some 350 tokens, so that it fits the shortest contexts."""
_LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class AbilityQuestion:
    """Attributes:
    requests: One with all choices, or one for each choice (Winogrande); in order of the choices.
    choices: Their texts without the space before them.
    gold: Index of the right one.
    """

    id: str
    requests: tuple[Prompted, ...]
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True, slots=True)
class AbilityTask:
    """Attributes:
    rule: What the task's own figure is: see `right`.
    """

    name: str
    rule: Rule
    questions: tuple[AbilityQuestion, ...]


def right(question: AbilityQuestion, found: Sequence[Likelihood], rule: Rule) -> float:
    """1 where the model is right.

    acc: the right choice is the likeliest. acc_norm: it is after dividing log-likelihoods by the choices'
    characters. last_word: every token of the only choice is the likeliest. The first of equals counts.

    Source: lm_eval.api.task.ConfigurableTask.process_results, 0.4.13.
    """
    if rule == "last_word":
        return float(found[0].greedy)
    divisors = [len(choice) if rule == "acc_norm" else 1 for choice in question.choices]
    values = [one.log_probability / divisor for one, divisor in zip(found, divisors, strict=True)]
    return float(values.index(max(values)) == question.gold)


def ability_tasks(data: Path | None, *, limit: int, seed: int = 0) -> list[AbilityTask]:
    """The tasks found in `data`/ability, and the shipped general questions; `limit` drawn from each.

    Raises:
        UsageError: A limit below 1, or a file is damaged.
    """
    if limit < 1:
        raise UsageError(f"a limit of {limit} leaves no question", fix="--limit 50")
    tasks = [_general()]
    folder = None if data is None else data / "ability"
    if folder is not None and folder.is_dir():
        for name, (rule, read) in _FILES.items():
            path = folder / f"{name}.jsonl"
            if path.is_file():
                tasks.append(_task(name, rule, _jsonl(path), read))
        if (folder / "mmlu_test").is_dir():
            tasks.append(_mmlu(folder / "mmlu_test"))
    return [AbilityTask(task.name, task.rule, _drawn(task.questions, limit, seed)) for task in tasks]


def general_texts(data: Path | None, *, limit: int, seed: int = 0) -> list[str]:
    """Passages of general English: the shipped ones, or of LAMBADA (novels) and BoolQ (encyclopaedia)."""
    texts = [str(row["text"]) for row in _shipped("texts")]
    folder = None if data is None else data / "ability"
    if folder is not None and (folder / "lambada_openai.jsonl").is_file() and (folder / "boolq.jsonl").is_file():
        novels = [f"{row['context']} {row['continuation']}" for row in _jsonl(folder / "lambada_openai.jsonl")]
        passages = [
            str(row["query"]).removeprefix("Passage: ").rsplit("\nQuestion: ", 1)[0]
            for row in _jsonl(folder / "boolq.jsonl")
        ]
        half = (limit + 1) // 2
        texts = [*_drawn(novels, half, seed), *_drawn(list(dict.fromkeys(passages)), limit - half, seed)]
    whole = _drawn(texts, limit, seed)
    return [t if len(t) <= _TEXT_CHARACTERS else t[:_TEXT_CHARACTERS].rsplit(" ", 1)[0] for t in whole]


def general_prompts(*, limit: int | None = None) -> list[str]:
    """Requests of many kinds, shipped; what a base model answers to them is what it should still answer."""
    return [str(row["prompt"]) for row in _shipped("prompts")][:limit]


def _general() -> AbilityTask:
    return _task("general", "acc_norm", _shipped("questions"), _arc)


def _arc(row: Mapping[str, Any]) -> AbilityQuestion:
    """arc/arc_easy.yaml."""
    query = row["query"] if "query" in row else f"Question: {row['question']}"
    return _choices(f"{query}\nAnswer:", row["choices"], row["gold"])


def _boolq(row: Mapping[str, Any]) -> AbilityQuestion:
    """super_glue/boolq/default.yaml: the passage without a word before it."""
    return _choices(f"{str(row['query']).removeprefix('Passage: ')}\nAnswer:", row["choices"], row["gold"])


def _piqa(row: Mapping[str, Any]) -> AbilityQuestion:
    """piqa/piqa.yaml."""
    return _choices(f"{str(row['query']).rstrip()}\nAnswer:", row["choices"], row["gold"])


def _bare(row: Mapping[str, Any]) -> AbilityQuestion:
    """openbookqa.yaml and commonsense_qa/default.yaml: the query holds all that is asked."""
    return _choices(str(row["query"]), row["choices"], row["gold"])


def _winogrande(row: Mapping[str, Any]) -> AbilityQuestion:
    """winogrande/default.yaml: the ending is scored after each way to fill the gap."""
    requests = tuple(Prompted(str(option), (f" {row['continuation']}",)) for option in row["context_options"])
    return AbilityQuestion("", requests, tuple(row["context_options"]), int(row["gold"]))


def _lambada(row: Mapping[str, Any]) -> AbilityQuestion:
    """lambada/lambada_openai.yaml."""
    return _choices(str(row["context"]), [row["continuation"]], 0)


def _choices(context: str, choices: Sequence[str], gold: int) -> AbilityQuestion:
    if not 0 <= int(gold) < len(choices):
        raise ValueError(f"no choice {gold}")
    return AbilityQuestion(
        "", (Prompted(context, tuple(f" {choice}" for choice in choices)),), tuple(choices), int(gold)
    )


_FILES: Mapping[str, tuple[Rule, Callable[[Mapping[str, Any]], AbilityQuestion]]] = {
    "arc_easy": ("acc_norm", _arc),
    "arc_challenge": ("acc_norm", _arc),
    "boolq": ("acc", _boolq),
    "piqa": ("acc_norm", _piqa),
    "winogrande": ("acc", _winogrande),
    "commonsense_qa": ("acc", _bare),
    "openbook_qa": ("acc_norm", _bare),
    "lambada_openai": ("last_word", _lambada),
}


def _mmlu(folder: Path) -> AbilityTask:
    """mmlu/default/_default_template_yaml, without the line that names the subject."""
    rows = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for question, *choices, letter in csv.reader(file):
                listed = "".join(f"\n{mark}. {choice}" for mark, choice in zip(_LETTERS, choices, strict=True))
                rows.append({"query": f"{question.strip()}{listed}\nAnswer:", "gold": _LETTERS.index(letter)})
    return _task("mmlu", "acc", [{**row, "choices": _LETTERS} for row in rows], _bare)


def _task(
    name: str, rule: Rule, rows: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], AbilityQuestion]
) -> AbilityTask:
    questions = []
    for number, row in enumerate(rows, start=1):
        try:
            one = read(row)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UsageError(
                f"{name}, question {number} is damaged: {error!r}", fix="fetch the data again"
            ) from error
        questions.append(AbilityQuestion(f"{name}-{number}", one.requests, one.choices, one.gold))
    return AbilityTask(name, rule, tuple(questions))


def _drawn(items: Sequence[T], limit: int, seed: int) -> tuple[T, ...]:
    """`limit` at random, in the file's order; the same for the same seed."""
    if len(items) <= limit:
        return tuple(items)
    return tuple(items[i] for i in sorted(random.Random(seed).sample(range(len(items)), limit)))


def _shipped(name: str) -> list[dict[str, Any]]:
    text = (files("graft.evaluation") / "general" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", fix="fetch the data again") from error
