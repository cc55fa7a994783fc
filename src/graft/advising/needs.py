"""an answers file (JSON or TOML) -> what is needed: the questions that the decision and its costs turn on.

The questions stand in one table, `QUESTIONS`, and `Needs` has a field for each. It does not know what an
answer leads to.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from graft.advising.reading import number, read_table, text
from graft.errors import UsageError

FIX = "graft advise --example > answers.toml, and edit it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question.

    Attributes:
        kind: "choice" is one of `choices`, "several" any of them, "number" lies between `low` and `high`,
            "text" is a name.
        deciding: Whether it decides, or only goes into the estimate of costs.
    """

    key: str
    asked: str
    kind: Literal["choice", "several", "number", "text"]
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1e12
    whole: bool = True
    deciding: bool = True


def _choice(key: str, asked: str, *choices: str, **more: Any) -> Question:
    return Question(key=key, asked=asked, kind="choice", choices=choices, **more)


def _number(key: str, asked: str, **more: Any) -> Question:
    return Question(key=key, asked=asked, kind="number", **more)


QUESTIONS: tuple[Question, ...] = (
    _choice(
        "knowledge",
        "How often do the facts of yours that answers rest on change (none: answers rest on no facts of yours)?",
        "none",
        "never",
        "yearly",
        "monthly",
        "weekly",
        "daily",
    ),
    _choice("sources", "Must an answer show where it comes from?", "no", "useful", "required"),
    _number("corpus_tokens", "How many tokens do your documents have (a page has about 500; 0: no documents)?"),
    Question(
        key="teach",
        asked="What of the model's behaviour must change?",
        kind="several",
        choices=("format", "style", "terminology", "skill"),
    ),
    _number("examples", "How many examples of right answers do you have, or will you make?"),
    _choice("latency", "How soon must an answer be there?", "seconds", "second", "instant"),
    _number("questions_per_month", "How many questions a month?"),
    _choice("private", "Do the documents hold what must not enter a model's weights?", "no", "yes"),
    _choice(
        "base_model",
        "May the model be changed (switched: newer ones replace it; unchanged: it stays as its maker ships it)?",
        "tunable",
        "switched",
        "unchanged",
    ),
    _choice("start", "When must it work?", "months", "weeks", "days"),
    _choice("expertise", "How much does your team know of training models?", "experienced", "some", "none"),
    _number("budget_usd", "What may it cost to build, in US dollars?"),
    _choice("hosting", "Who runs the model?", "hosted", "self", deciding=False),
    Question(
        key="model",
        asked="Hosted model, by LiteLLM's name",
        kind="text",
        deciding=False,
    ),
    Question(
        key="tuned_model",
        asked="LiteLLM's name for the price of the tuned one, where its provider bills it by tokens (else empty)",
        kind="text",
        deciding=False,
    ),
    _number(
        "training_usd_per_million",
        "What that provider takes for a million trained tokens, in US dollars (0: not known)",
        whole=False,
        deciding=False,
    ),
    Question(key="embedder", asked="Hosted embedder, by LiteLLM's name", kind="text", deciding=False),
    _number(
        "model_billions",
        "Billions of parameters of the model that you would run or tune",
        low=0.01,
        high=10_000,
        whole=False,
        deciding=False,
    ),
    _number("prompt_tokens", "Tokens of a question with its instructions", low=1, high=1e7, deciding=False),
    _number("passage_tokens", "Tokens of the passages that retrieval adds to it", high=1e7, deciding=False),
    _number("answer_tokens", "Tokens of an answer", low=1, high=1e7, deciding=False),
    _number("example_tokens", "Tokens of one example", low=1, high=1e7, deciding=False),
    _number("shots", "Examples in the prompt, where the model is shown some", high=10_000, deciding=False),
    _number("epochs", "How often tuning goes through the examples", low=0.1, high=1000, whole=False, deciding=False),
    _number("months", "Over how many months what it costs to build is spread", low=1, high=1200, deciding=False),
)
"""Those that decide in the order in which they are asked; choices stand from what asks for least to most."""

BY_KEY: Mapping[str, Question] = {question.key: question for question in QUESTIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """An answer to each of `QUESTIONS`; where none was given, that of a small question-answering system.

    Raises:
        UsageError: An answer is not one that exists; names the key and what does.
    """

    knowledge: str = "yearly"
    sources: str = "useful"
    corpus_tokens: int = 1_000_000
    teach: tuple[str, ...] = ()
    examples: int = 200
    latency: str = "seconds"
    questions_per_month: int = 10_000
    private: str = "no"
    base_model: str = "tunable"
    start: str = "weeks"
    expertise: str = "some"
    budget_usd: int = 10_000
    hosting: str = "hosted"
    model: str = "together_ai/meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
    tuned_model: str = ""
    training_usd_per_million: float = 0.0
    embedder: str = "text-embedding-3-small"
    model_billions: float = 8.0
    prompt_tokens: int = 150
    passage_tokens: int = 1_500
    answer_tokens: int = 150
    example_tokens: int = 300
    shots: int = 5
    epochs: float = 3.0
    months: int = 12

    def __post_init__(self) -> None:
        for question in QUESTIONS:
            object.__setattr__(self, question.key, checked(question, getattr(self, question.key)))

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"teach": list(self.teach)}


def checked(question: Question, value: object) -> Any:
    """An answer in its proper type.

    Raises:
        UsageError: It is none that exists; names the key and what does.
    """
    key = question.key
    if question.kind == "number":
        found = number(value, name=key, fix=FIX, low=question.low, high=question.high)
        if question.whole and found != int(found):
            raise UsageError(f"{key} = {value!r} is not a whole number", fix=FIX)
        return int(found) if question.whole else found
    if question.kind == "several":
        return _several(question, value)
    said = text(value, name=key, fix=FIX)
    if question.kind == "choice" and said not in question.choices:
        raise UsageError(f"{key} = {said!r} is no answer; have {', '.join(question.choices)}", fix=FIX)
    return said.strip()


def _several(question: Question, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{question.key} is a list, any of {', '.join(question.choices)}", fix=FIX)
    for one in value:
        if not isinstance(one, str) or one not in question.choices:
            raise UsageError(f"{question.key} has no {one!r}; have {', '.join(question.choices)}", fix=FIX)
    return tuple(choice for choice in question.choices if choice in value)


def needs_from(answers: Mapping[str, object]) -> Needs:
    """Answers by key; those that are missing keep their default.

    Raises:
        UsageError: A key or an answer does not exist; names what does.
    """
    for key in answers:
        if key not in BY_KEY:
            close = difflib.get_close_matches(str(key), BY_KEY, n=1)
            meant = f"; did you mean {close[0]!r}? Have " if close else "; have "
            raise UsageError(f"no question {key!r}{meant}{', '.join(BY_KEY)}", fix=FIX)
    return Needs(**answers)  # type: ignore[arg-type]  # Needs checks each


def read_needs(path: str | Path) -> Needs:
    """An answers file.

    Raises:
        UsageError: It cannot be read, or a key or an answer does not exist.
        LimitExceeded: It is too large to be one.
    """
    return needs_from(read_table(path, what="an answers file", fix=FIX))


def example_answers() -> str:
    """An answers file in TOML, each question above its default.

    >>> needs_from(__import__("tomllib").loads(example_answers())) == Needs()
    True
    """
    usual = Needs()
    parts = ["# Answers for: graft advise --answers FILE. What is left out keeps the value shown here."]
    for question in QUESTIONS:
        told = f" ({', '.join(question.choices)})" if question.choices else ""
        value = getattr(usual, question.key)
        shown = json.dumps(list(value) if isinstance(value, tuple) else value)
        parts.append(f"# {question.asked}{told}\n{question.key} = {shown}")
    return "\n\n".join(parts) + "\n"
