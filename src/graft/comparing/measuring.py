"""Replies -> figures of each arm, and each pair held against each other.

It does not ask any arm; only a judge is a model here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from graft.comparing.arms import Contestant
from graft.comparing.citations import cited, expected_of, places_of, with_evidence
from graft.comparing.values import (
    SCORE,
    Arm,
    ArmReply,
    JudgedPair,
    LatencyFigures,
    Pair,
    Record,
    TokenFigures,
    Verdict,
)
from graft.comparing.verdict import ranked
from graft.evaluation import evaluating
from graft.evaluation.judging import Pair as JudgePair
from graft.evaluation.judging import judge_pairs
from graft.evaluation.metrics import abstention
from graft.evaluation.questions import Question
from graft.evaluation.scoring import DECIDES, Scores, score, scored_by
from graft.evaluation.statistics import Comparison, Estimate, compare, holm, mean_interval, sample_says
from graft.models import Model

SIGNIFICANT = 0.05
LOWER_IS_BETTER = frozenset({"conflicts"})


def records_of(
    questions: Sequence[Question], rows: Sequence[Mapping[str, ArmReply]], needs: Scores
) -> tuple[Record, ...]:
    """Every reply with its scores, of the questions that were asked."""
    found = []
    for question, row in zip(questions, rows, strict=False):
        places = places_of(question)
        told = {name: with_evidence(reply, places) for name, reply in row.items()}
        replies = {name: _scored(question, reply, places, needs) for name, reply in told.items()}
        found.append(
            Record(
                id=question.id,
                question=question.text,
                kind=question.kind,
                answers=question.answers,
                evidence=places,
                replies=replies,
            )
        )
    return tuple(found)


def _scored(question: Question, reply: ArmReply, evidence: Sequence[tuple[str, str]], needs: Scores) -> ArmReply:
    names = scored_by(question, (), needs)
    if reply.error is not None:
        return replace(reply, scores=dict.fromkeys((SCORE, *names, "abstention_accuracy"), 0.0))
    figures, unmeasured = score(question, reply.reply, names, needs)
    declined = reply.mode == "abstained" or abstention(reply.reply, ()) == 1.0
    scores = {
        SCORE: figures.get("execution", figures.get(DECIDES[question.kind], 0.0)),
        **figures,
        "abstention_accuracy": float(declined == (question.kind == "unanswerable")),
        **cited(reply, evidence),
    }
    if reply.recall is not None and reply.recall.expected != expected_of(question):
        reply = replace(reply, recall=None)
    if reply.recall is not None:
        scores["context_recall"] = reply.recall.share
    return replace(reply, scores=scores, unmeasured=unmeasured, declined=declined)


def arm_of(one: Contestant, records: Sequence[Record], *, seed: int = 0) -> Arm:
    """One arm's figures."""
    replies = [record.replies[one.name] for record in records]
    rows = [_evaluated(record, record.replies[one.name]) for record in records]
    answered = [reply for reply in replies if reply.error is None]
    costs = [reply.cost_usd for reply in answered]
    known = [cost for cost in costs if cost is not None]
    kinds = sorted({record.kind for record in records})
    return Arm(
        name=one.name,
        model=one.model,
        about=one.about,
        seed=one.seed,
        control=one.control,
        metrics=evaluating.estimates(rows, seed=seed),
        by_kind={kind: evaluating.estimates([r for r in rows if r.kind == kind], seed=seed) for kind in kinds},
        failed=len(replies) - len(answered),
        error=replies[0].error if replies and not answered else None,
        latency_ms=_latency(answered),
        tokens=TokenFigures(
            prompt=_mean([reply.prompt_tokens for reply in answered]),
            completion=_mean([reply.completion_tokens for reply in answered]),
        ),
        cost_usd_per_1000=1000 * _mean(known) if known and len(known) == len(costs) else None,
        one_time=one.one_time,
        one_time_cost_usd=_once(one),
        declined=sum(reply.declined for reply in answered),
    )


def fitness(name: str, records: Sequence[Record]) -> Estimate | None:
    """The share of an arm's answers that are right by the mildest metric there is; None where none can tell.

    F1 and ROUGE-L are low for a right answer in many words, so an answer that holds the expected one, or that a judge
    calls right, is right here. Free text is left out where no judge read it.
    """
    told = [record.replies[name].scores for record in records if not _open(record, name)]
    mild = [max(scores.get(metric, 0.0) for metric in (SCORE, "contained", "judged")) for scores in told]
    return mean_interval(mild) if mild else None


def _open(record: Record, name: str) -> bool:
    return record.kind == "text" and "judged" not in record.replies[name].scores


def _once(one: Contestant) -> float | None:
    """Dollars to make its model: nothing where none is made, unknown where nobody says."""
    if not one.tuned:
        return 0.0
    return None if one.one_time is None else one.one_time.cost_usd


def _evaluated(record: Record, reply: ArmReply) -> evaluating.Record:
    return evaluating.Record(
        id=record.id,
        kind=record.kind,
        question=record.question,
        answers=record.answers,
        output=reply.reply,
        error=reply.error,
        scores=reply.scores,
        unmeasured=reply.unmeasured,
    )


def _latency(replies: Sequence[ArmReply]) -> LatencyFigures:
    def share(values: Sequence[float | None], percent: float) -> float | None:
        known = [value for value in values if value is not None]
        return round(float(np.percentile(known, percent)), 3) if known else None

    retrieve = [reply.retrieve_ms for reply in replies]
    first = [reply.first_token_ms for reply in replies]
    total = [reply.total_ms for reply in replies]
    return LatencyFigures(
        retrieve_p50=share(retrieve, 50),
        retrieve_p95=share(retrieve, 95),
        first_token_p50=share(first, 50),
        first_token_p95=share(first, 95),
        total_p50=share(total, 50),
        total_p95=share(total, 95),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def pairs_of(arms: Sequence[Arm], records: Sequence[Record], *, seed: int = 0) -> tuple[Pair, ...]:
    """Every two arms by every metric that both have; two controls are not held against each other.

    p-values are corrected over all pairs of a metric.
    """
    found: list[Pair] = []
    metrics = dict.fromkeys(name for arm in arms for name in (SCORE, *arm.metrics))
    for metric in metrics:
        compared = []
        for a, b in combinations(arms, 2):
            shown = None if a.control and b.control else held_together(a.name, b.name, metric, records, seed=seed)
            if shown is not None:
                compared.append((a.name, b.name, shown))
        corrected = holm([shown.p_value for _, _, shown in compared])
        for (first, second, shown), p_holm in zip(compared, corrected, strict=True):
            found.append(_pair(first, second, metric, shown, p_holm))
    return tuple(found)


def held_together(a: str, b: str, metric: str, records: Sequence[Record], *, seed: int = 0) -> Comparison | None:
    """Two arms on the questions on which both have the metric; None where there is none."""
    both = [(record.replies[a].scores, record.replies[b].scores) for record in records]
    figures = [(one[metric], other[metric]) for one, other in both if metric in one and metric in other]
    if not figures:
        return None
    return compare([one for one, _ in figures], [other for _, other in figures], seed=seed)


def _pair(a: str, b: str, metric: str, shown: Comparison, p_holm: float) -> Pair:
    gain = -shown.difference if metric in LOWER_IS_BETTER else shown.difference
    verdict: Verdict = "no significant difference"
    if p_holm < SIGNIFICANT and gain != 0:
        verdict = "better" if gain > 0 else "worse"
    return Pair(
        a=a,
        b=b,
        metric=metric,
        questions=shown.questions,
        difference=shown.difference,
        low=max(-1.0, shown.low),  # where no question differs the bound on what could have may lie beyond
        high=min(1.0, shown.high),
        p=shown.p_value,
        p_holm=p_holm,
        detectable=shown.detectable,
        verdict=verdict,
    )


def sample_words(arms: Sequence[Arm], records: Sequence[Record]) -> str:
    """What so many questions can show, for the two best arms; "" where there are not two."""
    best = ranked(arms)[:2]
    shown = held_together(best[0].name, best[1].name, SCORE, records) if len(best) == 2 else None
    return "" if shown is None else sample_says(shown)


def judged_pairs(arms: Sequence[Arm], records: Sequence[Record], judge: Model) -> tuple[JudgedPair, ...]:
    """The best arm against every other with a model, on short and free answers, in both orders."""
    order = ranked(arms)
    open_ended = [record for record in records if record.kind in ("short", "text")]
    found = []
    for other in order[1:]:
        shown = [
            JudgePair(
                record.id,
                record.question,
                record.replies[order[0].name].reply,
                record.replies[other.name].reply,
                record.answers,
            )
            for record in open_ended
        ]
        if not shown:
            continue
        told = judge_pairs(judge, shown)
        found.append(
            JudgedPair(
                a=order[0].name,
                b=other.name,
                judge=told.judge,
                preference=told.preference,
                agreement=told.agreement,
                first_place=told.first_place,
                failed=told.failed,
            )
        )
    return tuple(found)
