"""two models + prompts -> do they give the same answers? Agreement token by token, and the task's metric.

One string never decides: a base in 4 bits and its float copy part on near ties, and after the first difference two
replies drift. So the second model is led through the first one's replies, and asked at every token for its own
choice. It does not know where the models came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from graft.models.protocol import GenerateOptions, Message, Model, Reply, complete

Metric = Callable[[int, str], float]
"""Index of the prompt and a reply -> its score, higher is better."""

LEAST_AGREEMENT = 0.92
"""Of tokens. Measured on SmolLM2-135M against the adapter on its 4-bit base: the same weights in float32 .954-.980,
F16 and Q8_0 .978; with the adapter left out .10-.83."""
REPLY_TOKENS = 32
LEAST_PROMPTS = 12
"""Fewer leave the agreement to chance: over three prompts the same weights in float32 gave .917."""
_RESAMPLES = 2_000
_SHOWN = 3
_UNIT = re.compile(r"\w+|[^\w\s]")

GENERAL_PROMPTS: tuple[tuple[Message, ...], ...] = tuple(
    (Message("user", text),)
    for text in (
        "What is the capital of Italy?",
        "Name three fruits.",
        "Explain rain in one sentence.",
        "Write two lines about the sea.",
        "What is 12 times 12?",
        "Translate 'good morning' into French.",
        "Give me a synonym of 'happy'.",
        "What does a baker do?",
        "Summarise: The meeting was moved from Monday to Thursday because the room was taken.",
        "Is a whale a fish? Answer yes or no and say why.",
        "Return JSON with the keys name and age for Ana, who is 31.",
        "Correct this sentence: He go to school yesterday.",
    )
)
"""For an export without examples of the task; better are held-out prompts of the task itself."""


@runtime_checkable
class Led(Protocol):
    """A model that can be led through a reply; llama.cpp's and a checkpoint can."""

    def agreement(self, messages: Sequence[Message], answer: str) -> tuple[bool, ...]:
        """Whether each token of `answer` is the one this model would have chosen after those before it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricParity:
    """The task's metric of both, and b - a with its interval: 95%, paired bootstrap over the prompts."""

    a: float
    b: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.b - self.a


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two replies to one prompt, where they differ."""

    prompt: str
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How far b answers as a does.

    Attributes:
        prompts, same: Asked, and answered with the very same text; general prompts that were added count too.
        until_divergence: Mean share of a's words that b repeats before they part.
        agreement: Share of a's tokens that b would have chosen too; None where b cannot be led.
        metric: None where none was given.
        words: The verdict, with its figures.
        differences: The first few replies that differ.
    """

    a: str
    b: str
    prompts: int
    same: int
    until_divergence: float
    agreement: float | None
    metric: MetricParity | None
    passed: bool
    words: str
    differences: tuple[Difference, ...]


def parity(
    a: Model,
    b: Model,
    prompts: Sequence[Sequence[Message]],
    metric: Metric | None = None,
    *,
    reply_tokens: int = REPLY_TOKENS,
    least_agreement: float = LEAST_AGREEMENT,
) -> ParityReport:
    """Ask both the same, greedily and without cached prompts.

    Fewer than `LEAST_PROMPTS` are filled up with general ones, which the metric leaves out. Passed where b agrees on
    at least `least_agreement` of the tokens (where it cannot be led: of the words before they part), and the interval
    of the metric's difference holds 0.

    Args:
        a: The yardstick.
        reply_tokens: Most tokens of a reply.
    Raises:
        ModelError: A model cannot answer.
    """
    options = GenerateOptions(max_tokens=reply_tokens, cache_prompt=False)
    asked = (*prompts, *GENERAL_PROMPTS[: max(0, LEAST_PROMPTS - len(prompts))])
    said_a = [complete(a, prompt, options) for prompt in asked]
    said_b = [complete(b, prompt, options) for prompt in asked]
    pairs = [(one.text, other.text) for one, other in zip(said_a, said_b, strict=True)]
    agreement = _agreement(b, asked, said_a, said_b) if isinstance(b, Led) else None
    until = float(np.mean([_shared(one, other) for one, other in pairs]))
    measured = None if metric is None else _compare(metric, pairs[: len(prompts)])
    reasons = list(_against(until if agreement is None else agreement, least_agreement, measured))
    differences = [
        Difference(prompt=prompt[-1].content, a=one, b=other)
        for prompt, (one, other) in zip(asked, pairs, strict=True)
        if one != other
    ]
    same = len(pairs) - len(differences)
    return ParityReport(
        a=a.name,
        b=b.name,
        prompts=len(pairs),
        same=same,
        until_divergence=until,
        agreement=agreement,
        metric=measured,
        passed=not reasons,
        words=_words(a.name, b.name, same, len(pairs), agreement, measured, reasons),
        differences=tuple(differences[:_SHOWN]),
    )


def _agreement(
    model: Led, prompts: Sequence[Sequence[Message]], replies: Sequence[Reply], own: Sequence[Reply]
) -> float:
    """Share of the tokens, the one that ends a reply among them: a model that never stops does not agree.

    Whether the end is agreed on shows in the second model's own reply, where that comes as far.
    """
    led: list[bool] = []
    for prompt, reply, other in zip(prompts, replies, own, strict=True):
        if reply.text:
            led += model.agreement(prompt, reply.text)
        if reply.finish_reason == "stop" and other.text.startswith(reply.text):
            led.append(other.text == reply.text and other.finish_reason == "stop")
    return float(np.mean(led)) if led else 1.0


def _shared(a: str, b: str) -> float:
    """Share of the longer reply's words that come before the first difference; 1 where there is none."""
    if a == b:
        return 1.0
    first, second = _UNIT.findall(a), _UNIT.findall(b)
    equal = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        equal += 1
    return equal / max(len(first), len(second), 1)


def _compare(metric: Metric, pairs: Sequence[tuple[str, str]]) -> MetricParity:
    scores = np.array([(metric(i, one), metric(i, other)) for i, (one, other) in enumerate(pairs)])  # (n, 2)
    differences = scores[:, 1] - scores[:, 0]
    chosen = np.random.default_rng(0).integers(0, len(pairs), (_RESAMPLES, len(pairs)))
    low, high = np.percentile(differences[chosen].mean(axis=1), [2.5, 97.5])
    return MetricParity(a=float(scores[:, 0].mean()), b=float(scores[:, 1].mean()), low=float(low), high=float(high))


def _against(agreement: float, least: float, metric: MetricParity | None) -> list[str]:
    reasons = []
    if agreement < least:
        reasons.append(f"{agreement:.1%} of the tokens agree, at least {least:.0%} must")
    if metric is not None and not metric.low <= 0 <= metric.high:
        reasons.append(
            f"the metric goes from {metric.a:.3f} to {metric.b:.3f} "
            f"({metric.difference:+.3f}, between {metric.low:+.3f} and {metric.high:+.3f})"
        )
    return reasons


def _words(
    a: str, b: str, same: int, of: int, agreement: float | None, metric: MetricParity | None, reasons: Sequence[str]
) -> str:
    if reasons:
        return f"{b} does not answer as {a} does: {'; '.join(reasons)}; {same} of {of} replies are the same"
    parts = [f"{same} of {of} replies are the same"]
    if agreement is not None:
        parts.append(f"{agreement:.1%} of the tokens agree")
    if metric is not None:
        parts.append(f"the metric is {metric.a:.3f} and {metric.b:.3f}, no significant difference")
    return f"{b} answers as {a} does: {', '.join(parts)}"
