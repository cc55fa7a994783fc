"""Held-out examples -> questions that prove a model, and the prompts that an export is held against.

They are kept in the run's folder: the files that they came from may change. It does not know models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graft.citing import without_markers
from graft.dataset import Example
from graft.dataset.reading import read_examples
from graft.dataset.writing import write_examples
from graft.evaluation.questions import Question, QuestionSet, from_examples
from graft.evaluation.scoring import DECIDES, METRICS
from graft.models import Message

FILE = "held-out.jsonl"
MOST_PROMPTS = 50
MOST_TOKENS = 12_000
"""Of all prompts together; each is read five times, twice of them at 150 tokens/s, so at most some four minutes."""
_LONGEST = 1_700
_LONGEST_REPLY = 256
"""Tokens of a prompt, and of a reply, that an exported model is asked with, in a context of 2,048."""
_SHORTEST_REPLY = 32
_WRITING = 4
"""A token written takes as long as about so many read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What an export is asked, and how its replies are scored; both empty where nothing was held out.

    Attributes:
        words: Which metrics those are.
        reply_tokens: Most tokens of a reply: the longest right answer has room.
    """

    prompts: tuple[tuple[Message, ...], ...]
    metric: Callable[[int, str], float] | None
    words: str
    reply_tokens: int = _SHORTEST_REPLY


def held_out_questions(examples: Sequence[Example], *, train: Sequence[Example]) -> QuestionSet:
    """Held-out examples as questions. Of a retrieval-aware one the answer without its citation is right too.

    Args:
        train: Helps to tell labels from short answers.
    """
    found = from_examples(examples, train=train)
    questions = tuple(
        replace(question, answers=_right(question.answers)) if "passages_from" in question.extra else question
        for question in found.questions
    )
    return QuestionSet(questions, found.kind_reason)


def keep_held_out(questions: QuestionSet, folder: Path) -> None:
    """Write them into a run's folder."""
    write_examples(
        folder / FILE,
        [
            Example(
                id=question.id,
                messages=(*question.messages, Message("assistant", question.answers[0])),
                extra={**question.extra, "kind": question.kind},
            )
            for question in questions.questions
        ],
    )


def read_check(folder: Path, count_tokens: Callable[[Sequence[Message]], int]) -> Check:
    """The prompts of a run's held-out examples, as many as a few minutes allow, and the task's metric."""
    path = folder / FILE
    if not path.is_file() or not path.stat().st_size:
        return Check(prompts=(), metric=None, words="general prompts, as no example was held out")
    chosen: list[Question] = []
    left, reply = MOST_TOKENS, _SHORTEST_REPLY
    for question in held_out_questions(read_examples(path).examples, train=()).questions:
        tokens = count_tokens(question.messages)
        answer = min(count_tokens((Message("assistant", question.answers[0]),)), _LONGEST_REPLY)
        cost = tokens + _WRITING * answer
        if tokens <= _LONGEST and cost <= left and len(chosen) < MOST_PROMPTS:
            chosen.append(question)
            left -= cost
            reply = max(reply, answer)

    def metric(number: int, reply: str) -> float:
        question = chosen[number]
        return METRICS[DECIDES[question.kind]](reply, question.answers)

    if not chosen:
        return Check(prompts=(), metric=None, words="general prompts, as the held-out ones are too long")
    names = sorted({DECIDES[question.kind] for question in chosen})
    return Check(
        prompts=tuple(question.messages for question in chosen),
        metric=metric,
        words=f"{len(chosen)} held-out prompts, {' and '.join(names)}",
        reply_tokens=reply,
    )


def _right(answers: tuple[str, ...]) -> tuple[str, ...]:
    plain = tuple(without_markers(answer).strip() for answer in answers)
    return tuple(dict.fromkeys((*answers, *(answer for answer in plain if answer))))
