"""A model + questions -> every answer, its scores, and the figures with intervals.

A question on which the model fails is a recorded result that counts as wrong. It does not know retrieval: any
Model will do, one that retrieves too. Nor does it know where results are kept; see `recording.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graft.dataset import Example
from graft.errors import GraftError, UsageError
from graft.evaluation.baselines import most_common, nearest_vote
from graft.evaluation.questions import Kind, Question, QuestionSet, from_examples
from graft.evaluation.scoring import METRICS, Scores, pooled, score, scored_by
from graft.evaluation.sql import SqlRunner
from graft.evaluation.statistics import Estimate, mean_interval
from graft.models import GenerateOptions, Message, Model, Reply, complete


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """How to ask and to score.

    Attributes:
        max_tokens: Of one answer.
        system: Put before every prompt that has no system turn of its own.
        adapter: Path of a LoRA (GGUF), sent with every request.
        metrics: Instead of those of each question's kind.
        language: Of the answers, for articles: "en", "de", ...
        database: SQLite file that SQL is executed on.
        parallel: Questions asked at once, where the model can.
        seed: Of the intervals.
    """

    max_tokens: int = 256
    system: str | None = None
    adapter: str | None = None
    metrics: tuple[str, ...] = ()
    language: str = "en"
    database: Path | None = None
    parallel: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One question's result.

    Attributes:
        output: What the model said; "" where it failed.
        error: Why it failed, else None.
        scores: By metric, from 0 to 1.
        unmeasured: Metrics that could not say anything, and why: not the model's fault, so not counted.
        cost_usd: None where the price is unknown.
    """

    id: str
    kind: Kind
    question: str
    answers: tuple[str, ...]
    output: str
    error: str | None
    scores: Mapping[str, float]
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    first_token_ms: float | None = None
    total_ms: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds, over the questions that were answered; None where there is none."""

    first_token_p50: float | None
    first_token_p95: float | None
    total_p50: float | None
    total_p95: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a model can do on these questions.

    Attributes:
        metrics: Mean over the questions that a metric fits, with its 95% interval.
        kinds: Questions of each kind, and `kind_reason` why they are taken for that.
        by_kind: The same metrics within each kind.
        baselines: What needs no model, where there are labels: {name: {metric: figure}}.
        failed: Questions without an answer; they count as wrong.
        cut_short: Answers that max_tokens ended.
        cost_usd: Of all questions; None where any price is unknown.
    """

    model: str
    questions: int
    metrics: Mapping[str, Estimate]
    kinds: Mapping[str, int]
    kind_reason: str
    by_kind: Mapping[str, Mapping[str, Estimate]]
    baselines: Mapping[str, Mapping[str, Estimate]]
    records: tuple[Record, ...]
    failed: int
    unmeasured: int
    cut_short: int
    latency_ms: Latency
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """Questions done, of how many, and how many of those failed."""

    done: int
    total: int
    failed: int


def evaluate(
    model: Model,
    questions: QuestionSet | Sequence[Example],
    *,
    options: EvaluateOptions | None = None,
    train: Sequence[Example] = (),
    judge: Model | None = None,
    progress: Callable[[EvaluationProgress], object] = lambda _: None,
) -> Evaluation:
    """Ask everything at temperature 0 without a prompt cache, and score it.

    Args:
        model: Wrap it in a `RecordedModel` to resume where a run was ended.
        train: Labelled examples, for the vote of the nearest that is shown beside label tasks.
        judge: Model for the metric "judged".
    Raises:
        UsageError: No questions, an unknown metric, one without what it needs, no SQLite file.
    """
    options = options or EvaluateOptions()
    asked = questions if isinstance(questions, QuestionSet) else from_examples(questions, train=train)
    _check(asked.questions, options, judge)
    replies: list[Reply | GraftError] = []
    failed = 0
    with SqlRunner(options.database) if options.database else nullcontext() as runner:
        for reply in _replies(model, asked.questions, options):
            replies.append(reply)
            failed += isinstance(reply, GraftError)
            progress(EvaluationProgress(len(replies), len(asked.questions), failed))
        scores = Scores(language=options.language, runner=runner, judge=judge)
        records = [
            _record(question, reply, options.metrics, scores)
            for question, reply in zip(asked.questions, replies, strict=True)
        ]
    return _evaluation(model.name, asked, tuple(records), train, options)


def _check(questions: Sequence[Question], options: EvaluateOptions, judge: Model | None) -> None:
    if not questions:
        raise UsageError("no questions to ask", fix="--questions FILE.jsonl")
    for name in options.metrics:
        if name not in METRICS:
            raise UsageError(f"no metric {name!r}; have {', '.join(METRICS)}", fix="--metric NAME")
    if "judged" in options.metrics and judge is None:
        raise UsageError("the metric 'judged' needs a model that judges", fix="--judge MODEL")
    if "execution" in options.metrics and options.database is None:
        raise UsageError("the metric 'execution' needs a database", fix="--database FILE.sqlite")


def _replies(model: Model, questions: Sequence[Question], options: EvaluateOptions) -> Iterator[Reply | GraftError]:
    """In the order of the questions. A usage error ends all; other failures are results."""
    generate = GenerateOptions(
        max_tokens=options.max_tokens, temperature=0.0, adapter=options.adapter, cache_prompt=False
    )

    def ask(question: Question) -> Reply | GraftError:
        try:
            return complete(model, _prompt(question, options.system), generate)
        except UsageError:
            raise
        except GraftError as error:
            return error

    if options.parallel <= 1:
        yield from map(ask, questions)
        return
    pool = ThreadPoolExecutor(options.parallel)
    try:
        yield from pool.map(ask, questions)
    finally:
        pool.shutdown(cancel_futures=True)


def _prompt(question: Question, system: str | None) -> tuple[Message, ...]:
    if system is None or question.messages[0].role == "system":
        return question.messages
    return (Message("system", system), *question.messages)


def _record(question: Question, reply: Reply | GraftError, metrics: Sequence[str], scores: Scores) -> Record:
    names = scored_by(question, metrics, scores)
    if isinstance(reply, GraftError):
        return Record(
            id=question.id,
            kind=question.kind,
            question=question.text,
            answers=question.answers,
            output="",
            error=str(reply),
            scores=dict.fromkeys(names, 0.0),
        )
    measured, unmeasured = score(question, reply.text, names, scores)
    return Record(
        id=question.id,
        kind=question.kind,
        question=question.text,
        answers=question.answers,
        output=reply.text,
        error=None,
        scores=measured,
        unmeasured=unmeasured,
        finish_reason=reply.finish_reason,
        input_tokens=reply.usage.input_tokens,
        output_tokens=reply.usage.output_tokens,
        first_token_ms=reply.first_token_ms,
        total_ms=reply.total_ms,
        cost_usd=reply.cost_usd,
    )


def _evaluation(
    name: str, asked: QuestionSet, records: tuple[Record, ...], train: Sequence[Example], options: EvaluateOptions
) -> Evaluation:
    kinds = sorted({record.kind for record in records})
    costs = [record.cost_usd for record in records if record.error is None]
    return Evaluation(
        model=name,
        questions=len(records),
        metrics=estimates(records, seed=options.seed),
        kinds={kind: sum(r.kind == kind for r in records) for kind in kinds},
        kind_reason=asked.kind_reason,
        by_kind={kind: estimates([r for r in records if r.kind == kind], seed=options.seed) for kind in kinds},
        baselines=_baselines(asked.questions, train, options.seed),
        records=records,
        failed=sum(record.error is not None for record in records),
        unmeasured=sum(bool(record.unmeasured) for record in records),
        cut_short=sum(record.finish_reason == "length" for record in records),
        latency_ms=_latency(records),
        input_tokens=sum(record.input_tokens for record in records),
        output_tokens=sum(record.output_tokens for record in records),
        cost_usd=None if not costs or None in costs else sum(cost for cost in costs if cost is not None),
    )


def estimates(records: Sequence[Record], *, seed: int = 0) -> dict[str, Estimate]:
    """Each metric over the questions that it fits: means, and figures pooled over all (macro and slot F1)."""
    names = dict.fromkeys(name for record in records for name in (*record.scores, *record.unmeasured))
    figures = {name: [r.scores[name] for r in records if name in r.scores] for name in names}
    found = {name: mean_interval(values, seed=seed) for name, values in figures.items() if values}
    return {**found, **pooled([(r.kind, r.output, r.answers) for r in records if r.answers], names, seed=seed)}


def _baselines(questions: Sequence[Question], train: Sequence[Example], seed: int) -> dict[str, dict[str, Estimate]]:
    labelled = [question for question in questions if question.kind == "label"]
    if not labelled:
        return {}
    usual = most_common([e.answer for e in train] or [q.answers[0] for q in labelled])
    said = {"most_common_label": [usual] * len(labelled)}
    if train:
        said["nearest_vote"] = nearest_vote(train, [question.text for question in labelled])
    shown = {}
    for name, outputs in said.items():
        rights = [METRICS["accuracy"](output, q.answers) for output, q in zip(outputs, labelled, strict=True)]
        triples = [("label", output, q.answers) for output, q in zip(outputs, labelled, strict=True)]
        shown[name] = {"accuracy": mean_interval(rights, seed=seed), **pooled(triples, ("accuracy",), seed=seed)}
    return shown


def _latency(records: Sequence[Record]) -> Latency:
    def percentile(values: Sequence[float | None], share: float) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.percentile(known, share)) if known else None

    first, total = [r.first_token_ms for r in records], [r.total_ms for r in records]
    return Latency(
        first_token_p50=percentile(first, 50),
        first_token_p95=percentile(first, 95),
        total_p50=percentile(total, 50),
        total_p95=percentile(total, 95),
    )
