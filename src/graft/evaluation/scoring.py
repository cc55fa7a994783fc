"""A question + an answer -> its figure by every metric of the question's kind; many -> pooled figures.

It does not know models, but for one that judges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from graft.evaluation import metrics, structured
from graft.evaluation.judging import judge_answer
from graft.evaluation.questions import Kind, Question
from graft.evaluation.sql import SqlRunner, execution_match
from graft.evaluation.statistics import Estimate, ratio_interval
from graft.models import Model

Metric = Callable[[str, Sequence[str]], float]

METRICS: Mapping[str, Metric] = {
    "exact_match": metrics.exact_match,
    "token_f1": metrics.token_f1,
    "contained": metrics.contained,
    "accuracy": metrics.label_accuracy,
    "valid_json": structured.valid_json,
    "field_f1": structured.field_f1,
    "slot_f1": structured.slot_f1,
    "rouge_l": metrics.rouge_l,
    "abstained": metrics.abstention,
    "execution": metrics.exact_match,  # replaced by running the query; here so that the name is known
    "judged": metrics.exact_match,  # replaced by asking the judge
}
_IN_A_LANGUAGE: Mapping[str, Callable[..., Metric]] = {
    "exact_match": partial(partial, metrics.exact_match),
    "token_f1": partial(partial, metrics.token_f1),
    "contained": partial(partial, metrics.contained),
}

BY_KIND: Mapping[Kind, tuple[str, ...]] = {
    "short": ("exact_match", "token_f1", "contained"),
    "label": ("accuracy",),
    "json": ("valid_json", "field_f1"),
    "sql": ("exact_match",),
    "text": ("rouge_l", "token_f1"),
    "unanswerable": ("abstained",),
}

DECIDES: Mapping[Kind, str] = {
    "short": "token_f1",
    "label": "accuracy",
    "json": "field_f1",
    "sql": "exact_match",
    "text": "rouge_l",
    "unanswerable": "abstained",
}
"""The one figure of each kind that decides where kinds are mixed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What metrics need beyond the texts."""

    language: str = "en"
    runner: SqlRunner | None = None
    judge: Model | None = None


def scored_by(question: Question, chosen: Sequence[str], needs: Scores) -> tuple[str, ...]:
    """The metrics of a question: those chosen, else those of its kind and what is at hand."""
    if chosen:
        return tuple(chosen)
    names = BY_KIND[question.kind]
    if question.kind == "sql" and needs.runner is not None:
        names = ("execution", *names)
    if question.kind == "json" and structured.are_slots(question.answers):
        names = (*names, "slot_f1")
    if needs.judge is not None and question.answers and question.kind in ("short", "text"):
        names = (*names, "judged")
    return names


def score(
    question: Question, answer: str, names: Sequence[str], needs: Scores
) -> tuple[dict[str, float], dict[str, str]]:
    """Figures by metric, and for those that could not say anything the reason."""
    figures: dict[str, float] = {}
    unmeasured: dict[str, str] = {}
    for name in names:
        if name == "execution" and needs.runner is not None:
            verdict = execution_match(answer, question.answers, needs.runner)
            figure, reason = verdict.score, verdict.error
        elif name == "judged" and needs.judge is not None:
            judgement = judge_answer(needs.judge, question.text, answer, question.answers)
            figure, reason = None if judgement.right is None else float(judgement.right), judgement.error
        else:
            metric = _IN_A_LANGUAGE[name](language=needs.language) if name in _IN_A_LANGUAGE else METRICS[name]
            figure, reason = metric(answer, question.answers), None
        if figure is None:
            unmeasured[name] = reason or "no result"
        else:
            figures[name] = figure
    return figures, unmeasured


def pooled(
    answered: Sequence[tuple[str, str, Sequence[str]]], names: Collection[str], *, seed: int = 0
) -> dict[str, Estimate]:
    """Figures that are no mean over questions: macro F1 of labels, micro F1 of slots.

    Args:
        answered: (kind, output, references) of each question.
    """
    found = {}
    labels = [(output, answers) for kind, output, answers in answered if kind == "label"]
    if "accuracy" in names and labels:
        found["macro_f1"] = metrics.macro_f1([o for o, _ in labels], [a for _, a in labels], seed=seed)
    if "slot_f1" in names:
        counts = [structured.slot_counts(output, answers) for kind, output, answers in answered if kind == "json"]
        if any(count.wanted or count.said for count in counts):
            found["slot_f1"] = ratio_interval(
                [2 * count.right for count in counts], [count.said + count.wanted for count in counts], seed=seed
            )
    return found
