"""A tuned model + its base -> what it lost elsewhere, line by line, in figures and plain words.

Three views, because each misses what another sees: questions with choices, the perplexity of general text,
and how far the tuned model has moved from its base on the base's own answers. It does not know how a model
was made or where its files are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graft.errors import UsageError
from graft.evaluation.ability import AbilityTask, Rule, ability_tasks, general_prompts, general_texts, right
from graft.evaluation.likelihood import Likelihood, Prompted, Scorer
from graft.evaluation.statistics import (
    Comparison,
    Estimate,
    compare,
    compare_ratios,
    holm,
    ratio_interval,
)
from graft.models import Message

Verdict = Literal["loss", "possible loss", "no loss seen", "possible gain", "gain"]
_SIGNIFICANT = 0.05
_SAME_VOICE, _OTHER_VOICE = 0.95, 0.85  # top-1 agreement above and below which the words say so


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure of the tuned model (a) against its base (b).

    Attributes:
        metric: "acc", "acc_norm", "last_word" (shares), or "perplexity": then the comparison is of the
            mean negative log-likelihood of a token, in nats, and less is better.
        p_adjusted: The comparison's p-value after Holm's correction for all lines.
        words: The line in plain words.
    """

    task: str
    metric: str
    comparison: Comparison
    p_adjusted: float
    verdict: Verdict
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """How differently the tuned model would have continued the base's own greedy answers.

    Attributes:
        kl: Mean over tokens of KL(base || tuned), in nats; 0 is the same distribution.
        agreement: Share of tokens on which both would say the same.
    """

    prompts: int
    tokens: int
    kl: Estimate
    agreement: Estimate
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """All lines; `overall` pools all questions with choices, by each task's own rule."""

    tuned: str
    base: str
    overall: Line
    lines: tuple[Line, ...]
    divergence: Divergence
    seconds: float


@dataclass(frozen=True, slots=True)
class RegressionProgress:
    """What is being done, and how much of it is."""

    stage: str
    done: int
    total: int


Tell = Callable[[RegressionProgress], object]


def regress(
    tuned: Scorer,
    base: Scorer,
    *,
    data: Path | None = None,
    limit: int = 50,
    answer_tokens: int = 48,
    seed: int = 0,
    progress: Tell = lambda _: None,
) -> Regression:
    """Measure both on the same questions, texts and answers.

    Args:
        data: Folder that holds `ability/`; without it the shipped questions and texts alone are used.
        limit: Questions drawn from each task, and general texts.
        answer_tokens: Most tokens of each of the base's answers.
    Raises:
        UsageError: The two have different vocabularies, or the limit is below 1.
    """
    if tuned.vocabulary != base.vocabulary:
        raise UsageError(
            f"{tuned.name} has {tuned.vocabulary:,} tokens and {base.name} {base.vocabulary:,}: not its base",
            fix="--against the model that it was tuned from",
        )
    started = time.perf_counter()
    tasks = ability_tasks(data, limit=limit, seed=seed)
    texts = general_texts(data, limit=limit, seed=seed)
    ours, theirs = (
        [_answers(scorer, task, _stage(progress, f"{task.name}, {who}", len(task.questions))) for task in tasks]
        for scorer, who in ((tuned, "tuned"), (base, "base"))
    )
    found = [_text_line(tuned, base, texts, seed, progress)]
    pooled: list[tuple[list[float], list[float]]] = []
    for task, mine, other in zip(tasks, ours, theirs, strict=True):
        for rule in _rules(task):
            a = [right(q, f, rule) for q, f in zip(task.questions, mine, strict=True)]
            b = [right(q, f, rule) for q, f in zip(task.questions, other, strict=True)]
            found.append(_share_line(task.name, rule, compare(a, b, seed=seed)))
            if rule == task.rule:
                pooled.append((a, b))
    lines = _with_verdicts(found)
    overall = compare([x for a, _ in pooled for x in a], [x for _, b in pooled for x in b], seed=seed)
    return Regression(
        tuned=tuned.name,
        base=base.name,
        overall=_with_verdicts([_share_line("all questions", "right", overall)])[0],
        lines=tuple(lines),
        divergence=divergence(tuned, base, answer_tokens=answer_tokens, seed=seed, progress=progress),
        seconds=time.perf_counter() - started,
    )


def divergence(
    tuned: Scorer,
    base: Scorer,
    *,
    prompts: Sequence[str] | None = None,
    answer_tokens: int = 48,
    seed: int = 0,
    progress: Tell = lambda _: None,
) -> Divergence:
    """The base answers general requests; both say at each token of these answers what they expect.

    KL of each token over the whole vocabulary, in float64. Intervals resample prompts, since the tokens of
    one answer go together.
    """
    asked = [base.chat_tokens([Message("user", prompt)]) for prompt in prompts or general_prompts()]
    answers = base.continued(asked, answer_tokens, _stage(progress, "the base answers", len(asked)))
    tell = _stage(progress, "both are compared on its answers", len(asked))
    rows = []
    for done, (prompt, answer) in enumerate(zip(asked, answers, strict=True), start=1):
        if answer:
            kl, same = _token_divergence(tuned.logits(prompt, answer), base.logits(prompt, answer))
            rows.append((kl.sum(), same.sum(), len(answer)))
        tell(done)
    columns = np.array(rows, dtype=np.float64)
    kl_mean = ratio_interval(columns[:, 0], columns[:, 2], seed=seed)
    agreement = ratio_interval(columns[:, 1], columns[:, 2], seed=seed)
    return Divergence(
        prompts=len(rows),
        tokens=int(columns[:, 2].sum()),
        kl=kl_mean,
        agreement=agreement,
        words=_voice(kl_mean, agreement),
    )


def _token_divergence(
    tuned: NDArray[np.float32], base: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """KL(base || tuned) and whether the likeliest tokens agree. Shapes: (tokens, vocabulary) -> (tokens,)."""
    q, p = _log_softmax(tuned), _log_softmax(base)
    return (np.exp(p) * (p - q)).sum(axis=-1), q.argmax(axis=-1) == p.argmax(axis=-1)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    found: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return found


def _answers(scorer: Scorer, task: AbilityTask, tell: Callable[[int], object]) -> list[list[Likelihood]]:
    """Each question's choices' likelihoods, in order."""
    requests = [request for question in task.questions for request in question.requests]
    share = len(task.questions) / max(1, len(requests))
    found = iter(scorer.likelihoods(requests, lambda done: tell(int(done * share))))
    return [[one for _ in question.requests for one in next(found)] for question in task.questions]


def _rules(task: AbilityTask) -> tuple[Rule, ...]:
    """A task's own rule, and the plain one beside acc_norm as the harness gives both."""
    return ("acc", "acc_norm") if task.rule == "acc_norm" else (task.rule,)


def _text_line(tuned: Scorer, base: Scorer, texts: Sequence[str], seed: int, progress: Tell) -> Line:
    requests = [Prompted("", (text,)) for text in texts]
    mine = tuned.likelihoods(requests, _stage(progress, "general text, tuned", len(texts)))
    other = base.likelihoods(requests, _stage(progress, "general text, base", len(texts)))
    compared = compare_ratios(
        [-one.log_probability for (one,) in mine],
        [-one.log_probability for (one,) in other],
        [one.tokens for (one,) in other],
        seed=seed,
    )
    return Line(
        task="general text", metric="perplexity", comparison=compared, p_adjusted=1, verdict="no loss seen", words=""
    )


def _share_line(task: str, metric: str, compared: Comparison) -> Line:
    return Line(task=task, metric=metric, comparison=compared, p_adjusted=1, verdict="no loss seen", words="")


def _with_verdicts(lines: Sequence[Line]) -> list[Line]:
    adjusted = holm([line.comparison.p_value for line in lines])
    judged = []
    for line, p in zip(lines, adjusted, strict=True):
        verdict = _verdict(line, p)
        judged.append(replace(line, p_adjusted=p, verdict=verdict, words=_words(line, verdict, len(lines))))
    return judged


def _verdict(line: Line, p_adjusted: float) -> Verdict:
    sign = -1 if line.metric == "perplexity" else 1
    low, high = sorted((sign * line.comparison.low, sign * line.comparison.high))
    if low <= 0 <= high:
        return "no loss seen"
    if high < 0:
        return "loss" if p_adjusted < _SIGNIFICANT else "possible loss"
    return "gain" if p_adjusted < _SIGNIFICANT else "possible gain"


def _words(line: Line, verdict: Verdict, lines: int) -> str:
    """One line for people, its difference in points, or in per cent of perplexity."""
    c = line.comparison
    if line.metric == "perplexity":
        moved, low, high, seen = (100 * (exp(value) - 1) for value in (c.difference, c.low, c.high, c.detectable))
        unit, figures = "%", f"perplexity {exp(c.b):.1f} -> {exp(c.a):.1f}, "
    else:
        moved, low, high, seen = (100 * value for value in (c.difference, c.low, c.high, c.detectable))
        unit, figures = " points", f"{100 * c.b:.1f}% -> {100 * c.a:.1f}%, "
    change = "unchanged" if abs(moved) < 0.05 else f"{'up' if moved > 0 else 'down'} by {abs(moved):.1f}{unit}"
    chance = f" (alone; among {lines} lines it may be chance)" if verdict.startswith("possible") else ""
    shows = f"; this sample would show {seen:.2g}{unit}" if verdict == "no loss seen" else ""
    return f"{figures}{change} [{low:+.1f}, {high:+.1f}]: {verdict}{chance}{shows}"


def _voice(kl: Estimate, agreement: Estimate) -> str:
    if agreement.mean >= _SAME_VOICE:
        judged = "it speaks as its base does"
    elif agreement.mean >= _OTHER_VOICE:
        judged = "it speaks somewhat differently from its base"
    else:
        judged = "it speaks clearly differently from its base on requests that it was not tuned for"
    return (
        f"agrees with its base on {100 * agreement.mean:.1f}% of tokens "
        f"[{100 * agreement.low:.1f}, {100 * agreement.high:.1f}], "
        f"KL {kl.mean:.3f} nats a token [{kl.low:.3f}, {kl.high:.3f}]: {judged}"
    )


def _stage(progress: Tell, stage: str, total: int) -> Callable[[int], object]:
    return lambda done: progress(RegressionProgress(stage, done, total))
