"""Contestants x questions -> every reply, each kept as soon as it is there; within a budget.

One question goes to all arms before the next, so that whatever ends a run leaves whole questions. A reply that is
kept is taken from there, with the latency and the cost that it had. It does not know how replies are scored.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graft.comparing.arms import Contestant, kept_form
from graft.comparing.values import ArmReply, from_plain
from graft.errors import GraftError, ModelError, UsageError
from graft.evaluation.questions import Question
from graft.evaluation.recording import KeptLines
from graft.models import GenerateOptions, Message, Model, Reply, Usage, complete

GIVE_UP = 10
"""An arm that failed on its first so many questions is not asked any more."""
_SAMPLED = 5
_TIMED = "Tell how a harbour works, from the lighthouse to the last crane. " * 12
_TIMED_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Milliseconds that a model takes for each token that it reads, and that it writes, on this machine."""

    prompt_ms: float
    reply_ms: float


def speed_of(model: Model) -> Speed:
    """Timed on one short reply, which takes about a second.

    Raises:
        ModelError: The model cannot answer.
    """
    options = GenerateOptions(max_tokens=_TIMED_TOKENS, temperature=0.0, cache_prompt=False)
    said = complete(model, [Message("user", _TIMED)], options)
    written = max(1, said.usage.output_tokens - 1)
    return Speed(
        prompt_ms=said.first_token_ms / max(1, said.usage.input_tokens),
        reply_ms=max(0.0, said.total_ms - said.first_token_ms) / written,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEstimate:
    """What an arm will take at most.

    Attributes:
        kept: Questions whose replies are there already.
        cost_usd: Of those still to be asked; 0 where nobody is paid, None where the price is unknown.
        seconds: Of those still to be asked, on this machine; None where the model was not timed.
    """

    arm: str
    questions: int
    kept: int
    prompt_tokens: int
    reply_tokens: int
    cost_usd: float | None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareProgress:
    """How far an experiment is."""

    stage: str
    done: int = 0
    total: int = 0
    failed: int = 0
    spent_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """What was said.

    Attributes:
        rows: Of each question that every arm was asked, the replies by arm.
        spent_usd: Of all replies whose price is known, those kept before included, those of other experiments not.
        partial: Why not all questions were asked, else None.
    """

    rows: tuple[Mapping[str, ArmReply], ...]
    spent_usd: float
    partial: str | None


def ahead(
    contestants: Sequence[Contestant],
    questions: Sequence[Question],
    kept: KeptLines,
    *,
    speeds: Mapping[str, Speed] | None = None,
) -> list[ArmEstimate]:
    """What asking will take, from the prompts of a few questions; it asks no model.

    Local models and the search are loaded by this, so that the first question is not charged with it.

    Args:
        speeds: Of the models that were timed, by name; replies that are kept tell it better.
    """
    step = max(1, len(questions) // _SAMPLED)
    sample = questions[::step][:_SAMPLED]
    found = []
    for one in contestants:
        known = [reply for question in questions if (reply := kept.get(_key(one, question))) is not None]
        there = len(known)
        left = len(questions) - there
        try:
            mean = sum(map(one.prompt_tokens, sample)) / len(sample)
        except GraftError:  # asking will tell the same of each question, and that is a result
            mean = 0.0
        tokens = Usage(round(mean * left), one.reply_tokens * left)
        found.append(
            ArmEstimate(
                arm=one.name,
                questions=len(questions),
                kept=there,
                prompt_tokens=tokens.input_tokens,
                reply_tokens=tokens.output_tokens,
                cost_usd=0.0 if one.price is None or not left else one.price(tokens),
                seconds=_seconds(one, left, tokens, known, (speeds or {}).get(one.model)),
            )
        )
    return found


def _seconds(
    one: Contestant, left: int, tokens: Usage, kept: Sequence[Mapping[str, Any]], speed: Speed | None
) -> float | None:
    """Of what is still to be asked: by the replies that are kept where there are some, else by the model's speed."""
    if one.control or not left:
        return 0.0
    took = [reply["total_ms"] for reply in kept if reply.get("total_ms") is not None]
    if len(took) >= _SAMPLED:
        return float(left * sum(took) / len(took) / 1000)
    if speed is None:
        return None
    return (tokens.input_tokens * speed.prompt_ms + tokens.output_tokens * speed.reply_ms) / 1000


def require_budget(estimates: Sequence[ArmEstimate], budget_usd: float | None) -> None:
    """Refuse a budget that allows nothing, or that nobody can keep.

    Raises:
        UsageError: The price of an arm is unknown, or the budget is 0 and an arm costs something.
    """
    if budget_usd is None:
        return
    for one in estimates:
        if one.cost_usd is None:
            raise UsageError(
                f"the price of the arm {one.arm!r} is unknown, so a budget cannot be kept",
                fix="leave out --budget, or the arm: --arms; --limit bounds the number of questions",
            )
        if one.cost_usd > 0 and budget_usd == 0:
            raise UsageError(
                f"the budget is 0 and the arm {one.arm!r} costs up to ${one.cost_usd:.4f}",
                fix=f"--budget {max(0.01, sum(e.cost_usd or 0 for e in estimates)):.2f}, or a local model",
            )


def ask_all(
    contestants: Sequence[Contestant],
    questions: Sequence[Question],
    kept: KeptLines,
    *,
    budget_usd: float | None = None,
    first_question_usd: float = 0.0,
    progress: Callable[[CompareProgress], object] = lambda seen: None,
) -> Replied:
    """Ask everything that is not kept yet. A question on which an arm fails is a result.

    Args:
        first_question_usd: What one question is thought to cost; later the dearest so far is.
    """
    rows: list[Mapping[str, ArmReply]] = []
    failures: Counter[str] = Counter()
    spent, dearest = 0.0, first_question_usd
    for question in questions:
        if budget_usd is not None and spent + dearest > budget_usd + 1e-12:
            partial = f"the budget of ${budget_usd:.4g} ends it after {len(rows)} of {len(questions)} questions"
            return Replied(rows=tuple(rows), spent_usd=spent, partial=partial)
        row = {}
        for one in contestants:
            row[one.name] = _reply(one, question, kept, given_up=failures[one.name] == len(rows) >= GIVE_UP)
            failures[one.name] += row[one.name].error is not None
        rows.append(row)
        cost = sum(row[one.name].cost_usd or 0.0 for one in contestants if kept.is_own(_key(one, question)))
        spent, dearest = spent + cost, max(cost, dearest if len(rows) > 1 else 0.0)
        progress(
            CompareProgress(
                stage="asking",
                done=len(rows),
                total=len(questions),
                failed=failures.total(),
                spent_usd=spent,
            )
        )
    return Replied(rows=tuple(rows), spent_usd=spent, partial=None)


def _reply(one: Contestant, question: Question, kept: KeptLines, *, given_up: bool) -> ArmReply:
    key = _key(one, question)
    there = kept.get(key)
    if there is not None:
        known: ArmReply = from_plain(ArmReply, there)
        return known
    if given_up:
        return _failed(f"not asked: the arm failed on the first {GIVE_UP} questions")
    try:
        said = one.replies(question)
    except GraftError as error:  # tried again when the run is resumed
        return _failed(str(error))
    kept.put(key, kept_form(said))
    return said


def _failed(error: str) -> ArmReply:
    return ArmReply(reply="", mode="failed", error=error)


def _key(one: Contestant, question: Question) -> str:
    turns = [[turn.role, turn.content] for turn in question.messages]
    return hashlib.sha256(json.dumps([one.configuration, turns]).encode()).hexdigest()


class Metered:
    """A model that counts what it costs and refuses once a budget is used up.

    Args:
        budget_usd: None is no limit.
    """

    def __init__(self, model: Model, budget_usd: float | None) -> None:
        self._model, self._budget_usd = model, budget_usd
        self.spent_usd = 0.0

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    @property
    def context_tokens(self) -> int:
        """The model's."""
        return self._model.context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Model.count_tokens`."""
        return self._model.count_tokens(messages)

    def stream(self, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
        """See `Model.stream`.

        Raises:
            ModelError: The budget is spent.
        """
        if self._budget_usd is not None and self.spent_usd >= self._budget_usd > 0:
            raise ModelError("the budget is spent", fix="raise --budget; what was judged is kept")
        reply = yield from self._model.stream(messages, options)
        self.spent_usd += reply.cost_usd or 0.0
        return reply
