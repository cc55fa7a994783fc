"""A question file, or held-out examples -> questions with references and a kind.

The kind decides the metrics. Where a file does not state it, it is inferred from the references, for all
questions alike, and the reason is kept to be shown. It does not know models.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast, get_args

from graft.dataset import Example
from graft.errors import LimitExceeded, UsageError
from graft.evaluation.structured import NotJson, parse_json
from graft.models import Message

Kind = Literal["short", "label", "json", "sql", "text", "unanswerable"]

MAX_QUESTIONS = 200_000
_MAX_LINE_BYTES = 10_000_000
_LABEL_CHARACTERS = 60
_SHORT_WORDS = 10
_MOST_LABELS = 300
_NEARLY_ALL = 0.95
_SQL = re.compile(r"\A\s*(select|with)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked and what counts as right.

    Attributes:
        messages: The prompt; for a follow-up, with the turns before it and their reference answers.
        answers: References, the first being the usual one; may be empty where `kind` is "unanswerable".
        extra: What else its line held (evidence, ...), kept as it was.
    """

    id: str
    messages: tuple[Message, ...]
    answers: tuple[str, ...]
    kind: Kind
    extra: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The last turn."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Attributes:
    kind_reason: Why these kinds, in words.
    left_out: Ids of those that have no answer and do not say that they are unanswerable.
    """

    questions: tuple[Question, ...]
    kind_reason: str
    left_out: tuple[str, ...] = ()


def read_questions(path: Path, *, limit: int | None = None) -> QuestionSet:
    """A question file, or a file of OpenAI chat examples, one JSON object a line.

    Args:
        limit: Only the first so many; what they follow up is read too.
    Raises:
        UsageError: The file cannot be read, is empty, or a line is no question; names the line. No question has an
            answer or says that it is unanswerable.
        LimitExceeded: More than 200,000 lines, or a line over 10 MB.
    """
    rows = list(_rows(path))
    if not rows:
        raise UsageError(f"{path} holds no question", fix='write one {"question": ..., "answers": [...]} a line')
    if "messages" in rows[0][1]:
        examples = [_example(row, f"{path}:{line}") for line, row in rows[:limit]]
        return from_examples(examples)
    read = [_read(row, f"{path}:{line}") for line, row in rows]
    repeated = [name for name, count in Counter(q.id for q in read).items() if count > 1]
    if repeated:
        raise UsageError(f"{path}: id {repeated[0]!r} occurs twice", fix="give every question an id of its own")
    questions = _with_history(read, path)[:limit]
    stated = sum("kind" in row for _, row in rows)
    if stated == len(rows):
        return QuestionSet(tuple(questions), "the file states the kinds")
    kind, reason = infer_kind([q.answers[0] for q in read if q.answers])
    settled = [q if "kind" in q.extra else replace(q, kind=kind) for q in questions]
    kept = tuple(q for q in settled if q.answers or "kind" in q.extra)
    left_out = tuple(q.id for q in settled if not (q.answers or "kind" in q.extra))
    if not kept:
        raise UsageError(
            f"{path}: no question has an answer, {left_out[0]!r} for one",
            fix='add "answers", or state "kind": "unanswerable" where the documents hold none',
        )
    reason = f"{reason}; the file states the kind of {stated} of {len(rows)}"
    if left_out:
        reason += f"; {len(left_out)} without answers are left out, {left_out[0]!r} for one"
    return QuestionSet(kept, reason, left_out)


def from_examples(examples: Sequence[Example], *, train: Sequence[Example] = ()) -> QuestionSet:
    """Held-out examples as questions: their last turn is the reference.

    Args:
        train: The examples that were learnt from, which help to tell labels from short answers.
    """
    kind, reason = infer_kind([e.answer for e in (*examples, *train)])
    questions = []
    for example in examples:
        stated = example.extra.get("kind")
        own = cast(Kind, stated) if stated in get_args(Kind) else kind
        questions.append(
            Question(id=example.id, messages=example.prompt, answers=(example.answer,), kind=own, extra=example.extra)
        )
    return QuestionSet(tuple(questions), reason)


def infer_kind(answers: Sequence[str]) -> tuple[Kind, str]:
    """The kind of a set of reference answers, and why.

    >>> infer_kind(["yes", "no", "yes", "no", "yes", "no", "no"])
    ('label', '2 distinct short answers among 7: labels')
    >>> infer_kind(['{"a": 1}', '{"a": 2}'])[0], infer_kind(["SELECT 1"])[0], infer_kind(["in Paris", "1912"])[0]
    ('json', 'sql', 'short')
    """
    n = len(answers)
    if n == 0:
        return "unanswerable", "no question has an answer"
    if _share(answers, _is_object) >= _NEARLY_ALL:
        return "json", f"the answers of {n} are JSON objects"
    if _share(answers, lambda answer: _SQL.match(answer) is not None) >= _NEARLY_ALL:
        return "sql", f"the answers of {n} are SQL queries"
    distinct = {" ".join(answer.split()).casefold() for answer in answers}
    short = all(len(answer) <= _LABEL_CHARACTERS for answer in distinct)
    if short and len(distinct) <= _MOST_LABELS and 3 * len(distinct) <= n:
        return "label", f"{len(distinct)} distinct short answers among {n}: labels"
    words = median(len(answer.split()) for answer in answers)
    if words <= _SHORT_WORDS:
        return "short", f"the median answer has {words:g} words: short answers"
    return "text", f"the median answer has {words:g} words: free text"


def _share(answers: Sequence[str], holds: Any) -> float:
    return sum(bool(holds(answer)) for answer in answers) / len(answers)


def _is_object(answer: str) -> bool:
    try:
        return isinstance(parse_json(answer), dict)
    except NotJson:
        return False


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > _MAX_LINE_BYTES or number > MAX_QUESTIONS:
                    raise LimitExceeded(
                        f"{path}:{number}: the limits are {MAX_QUESTIONS:,} lines of {_MAX_LINE_BYTES:,} bytes",
                        fix="split the file",
                    )
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", fix="--questions FILE.jsonl") from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON in UTF-8: {error}", fix="one JSON object a line") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not a JSON object", fix="one JSON object a line")
    return value


def _read(row: dict[str, Any], where: str) -> Question:
    text, answers, kind = row.get("question"), row.get("answers", []), row.get("kind", "short")
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f'{where} has no "question"', fix='{"question": "...", "answers": ["..."]}')
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise UsageError(f'{where}: "answers" is not a list of texts', fix='"answers": ["...", "..."]')
    if kind not in get_args(Kind):
        raise UsageError(f"{where}: kind {kind!r}; have {', '.join(get_args(Kind))}", fix='"kind": "short"')
    if not answers and "kind" in row and kind != "unanswerable":
        raise UsageError(f"{where} has no answers", fix='add "answers", or state "kind": "unanswerable"')
    known = {"id", "question", "answers"}
    return Question(
        id=str(row.get("id") or where.rsplit(":", 1)[-1]),
        messages=(Message("user", text),),
        answers=tuple(answers),
        kind=cast(Kind, kind),
        extra={key: value for key, value in row.items() if key not in known},
    )


def _with_history(read: Sequence[Question], path: Path) -> list[Question]:
    """Follow-ups with the conversation before them, answered as the references say."""
    by_id = {question.id: question for question in read}
    whole = []
    for question in read:
        turns, seen, at = list(question.messages), {question.id}, question
        while (before := at.extra.get("after")) is not None:
            if before not in by_id or before in seen:
                wrong = "goes in a circle" if before in seen else "is not there"
                raise UsageError(
                    f"{path}: {question.id!r} follows up {before!r}, which {wrong}",
                    fix='"after": the id of an earlier question',
                )
            at = by_id[before]
            seen.add(before)
            said = at.answers[0] if at.answers else "That is not known."
            turns[:0] = [*at.messages, Message("assistant", said)]
        whole.append(replace(question, messages=tuple(turns)))
    return whole


def _example(row: dict[str, Any], where: str) -> Example:
    try:
        messages = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
        ends = messages[-1].role == "assistant" and len(messages) > 1
        if not ends or not all(isinstance(m.content, str) and isinstance(m.role, str) for m in messages):
            raise TypeError
    except (TypeError, KeyError, IndexError) as error:
        raise UsageError(
            f"{where} is not a conversation that ends with the assistant", fix="graft dataset check FILE"
        ) from error
    extra = {key: value for key, value in row.items() if key not in ("messages", "id", "source")}
    source = row.get("source")
    name = str(row.get("id") or where.rsplit(":", 1)[-1])
    return Example(
        id=name, messages=messages, source=None if source is None else str(source), origin=where, extra=extra
    )
