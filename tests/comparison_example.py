"""An experiment as it could have been: the samples' questions, drawn scores, and figures computed from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from graft.comparing.values import (
    SCORE,
    VERSION,
    Arm,
    ArmReply,
    Comparison,
    Freshness,
    JudgedPair,
    LatencyFigures,
    OneTime,
    Pair,
    Record,
    ShownCitation,
    TokenFigures,
)
from graft.evaluation.statistics import Estimate, compare, holm, mean_interval, sample_says

QUESTIONS = Path(__file__).parent.parent / "samples" / "questions.jsonl"
ASKED = 60

# name: chance of a right answer, milliseconds, tokens read, written, dollars for 1,000 questions, dollars once
ARMS: Mapping[str, tuple[float, float, int, int, float | None, float | None]] = {
    "base": (0.08, 640, 61, 44, 0.021, 0.0),
    "rag": (0.71, 1480, 1120, 58, 0.2035, 0.0),
    "few-shot": (0.12, 910, 540, 40, 0.105, 0.0),
    "tuned": (0.22, 610, 58, 21, 0.018, 34.5),
    "tuned+rag": (0.76, 1390, 1105, 27, 0.182, 34.5),
    "nearest-vote": (0.20, 3, 0, 0, 0.0, 0.0),
    "best-sentence": (0.48, 21, 0, 0, 0.0, 0.0),
}
CONTROLS = ("nearest-vote", "best-sentence")
READ = ("rag", "tuned+rag", "best-sentence")


def example(*, questions: int = ASKED, arms: Sequence[str] = tuple(ARMS)) -> Comparison:
    """A whole comparison, the same every time."""
    random = np.random.default_rng(7)
    asked = _asked(questions)
    hardness = random.uniform(-0.25, 0.25, questions)
    scores = {name: (random.uniform(size=questions) < ARMS[name][0] + hardness).astype(float) for name in arms}
    records = tuple(_record(line, {name: scores[name][i] for name in arms}) for i, line in enumerate(asked))
    kinds = [record.kind for record in records]
    pairs = _pairs(scores)
    return Comparison(
        version=VERSION,
        created="2026-11-23T10:30:00Z",
        settings={
            "command": "graft compare --questions samples/questions.jsonl --train train.jsonl --model smollm2-135m",
            "model": "smollm2-135m",
            "retrieval": {"k": 6, "dense_weight": 0.7},
            "seeds": [0],
            "max_tokens": 256,
            "budget_usd": None,
        },
        questions=questions,
        kinds={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        warnings=(
            "2 questions are left out, leave-uk (as leave-aldermoor) and van-hire (as van-hire-2): asked before in "
            "the same words",
            "1 question is left out, canteen-price: learnt from examples.jsonl, in the same words or nearly",
        ),
        sample=_sample(scores),
        arms=tuple(_arm(name, scores[name], kinds) for name in arms),
        pairs=pairs,
        judged=(_judged(),) if {"rag", "tuned+rag"} <= set(arms) else (),
        records=records,
        verdict=(
            "Use retrieval: tuned+rag and rag answer best, with no significant difference between them, and tuning "
            "costs $34.50 more before the first question."
        ),
        partial=None,
        cost_usd=0.0318,
    )


def _asked(questions: int) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    return [{**lines[i % len(lines)], "id": f"{lines[i % len(lines)]['id']}-{i}"} for i in range(questions)]


def _record(line: Mapping[str, object], scores: Mapping[str, float]) -> Record:
    answers = tuple(str(answer) for answer in _list(line.get("answers")))
    evidence = tuple((str(one["document"]), str(one["quote"])) for one in _list(line.get("evidence")))
    return Record(
        id=str(line["id"]),
        question=str(line["question"]),
        kind=str(line["kind"]),
        answers=answers,
        evidence=evidence,
        replies={name: _reply(name, right, answers, evidence) for name, right in scores.items()},
    )


def _list(given: object) -> list[dict[str, object]]:
    return given if isinstance(given, list) else []


def _reply(name: str, right: float, answers: Sequence[str], evidence: Sequence[tuple[str, str]]) -> ArmReply:
    _, ms, read, written, _, _ = ARMS[name]
    told = answers[0] if answers else "That is not in your documents."
    wrong = "That is not in your documents." if name in READ else "It depends on your contract; ask your manager."
    document, quote = evidence[0] if evidence else ("policies/annual-leave.md", "Aldermoor | 27 | in addition")
    source = ShownCitation(
        claim=told,
        verdict="supported" if right else "unsupported",
        document=document,
        start=1204,
        end=1204 + len(quote),
        page=None,
        quote=quote,
        opposed=False,
        evidence=bool(right),
    )
    return ArmReply(
        reply=f"According to the handbook: {told}." if right else wrong,
        mode="control" if name in CONTROLS else "generated" if name in READ else "model",
        scores={SCORE: right, "citation precision": right} if name in READ else {SCORE: right},
        citations=(source,) if name in READ and (right or name == "rag") else (),
        retrieve_ms=12.0 if name in READ else None,
        first_token_ms=ms / 4,
        total_ms=ms,
        prompt_tokens=read,
        completion_tokens=written,
    )


def _arm(name: str, scores: np.ndarray, kinds: Sequence[str]) -> Arm:
    _, ms, read, written, each, once = ARMS[name]
    of_kind = {
        kind: {SCORE: mean_interval([s for s, k in zip(scores, kinds, strict=True) if k == kind])}
        for kind in dict.fromkeys(kinds)
    }
    metrics = {SCORE: mean_interval(scores)}
    if name in READ:
        metrics["citation precision"] = Estimate(mean=0.8125, low=0.69, high=0.89)
    tuned = name.startswith("tuned")
    return Arm(
        name=name,
        model="" if name in CONTROLS else "smollm2-135m",
        about="six passages of the documents in the prompt" if name in READ else "the question alone",
        seed=0 if tuned else None,
        control=name in CONTROLS,
        metrics=metrics,
        by_kind=of_kind,
        failed=1 if name == "few-shot" else 0,
        error=None,
        latency_ms=LatencyFigures(
            retrieve_p50=12.0 if name in READ else None,
            retrieve_p95=19.0 if name in READ else None,
            first_token_p50=None if name in CONTROLS else ms / 4,
            first_token_p95=None if name in CONTROLS else ms / 3,
            total_p50=ms,
            total_p95=ms * 1.8,
        ),
        tokens=TokenFigures(prompt=read, completion=written),
        cost_usd_per_1000=each,
        one_time=OneTime(cost_usd=once, train_tokens=105_600, seconds=252.0) if tuned else None,
        one_time_cost_usd=once,
        freshness=Freshness(questions=8, new=7, old=0, knew=7, after_ms=430.0)
        if name == "rag"
        else Freshness(questions=8, new=0, old=5, knew=5, after_ms=None)
        if name == "tuned"
        else None,
    )


def _pairs(scores: Mapping[str, np.ndarray]) -> tuple[Pair, ...]:
    found = [(a, b, compare(scores[a], scores[b])) for a, b in combinations(scores, 2)]
    corrected = holm([one.p_value for *_, one in found])
    return tuple(
        Pair(
            a=a,
            b=b,
            metric=SCORE,
            questions=one.questions,
            difference=one.difference,
            low=one.low,
            high=one.high,
            p=one.p_value,
            p_holm=p,
            detectable=one.detectable,
            verdict="no significant difference" if p >= 0.05 else "better" if one.difference > 0 else "worse",
        )
        for (a, b, one), p in zip(found, corrected, strict=True)
    )


def _sample(scores: Mapping[str, np.ndarray]) -> str:
    if not {"rag", "tuned+rag"} <= set(scores):
        return ""
    return sample_says(compare(scores["rag"], scores["tuned+rag"]))


def _judged() -> JudgedPair:
    return JudgedPair(
        a="tuned+rag",
        b="rag",
        judge="smollm2-135m",
        preference=Estimate(mean=0.54, low=0.43, high=0.65),
        agreement=Estimate(mean=0.71, low=0.58, high=0.81),
        first_place=Estimate(mean=0.63, low=0.54, high=0.71),
        failed=2,
    )
