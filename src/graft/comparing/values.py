"""What an experiment leaves behind, as values with one JSON form.

Scores and metrics are from 0 to 1. It does not know how they came about or how they are shown.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from graft.errors import UsageError
from graft.evaluation.questions import Kind
from graft.evaluation.statistics import Estimate

VERSION = 1
SCORE = "score"
"""The metric that decides: of each question the one figure of its kind."""

Verdict = Literal["better", "worse", "no significant difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFigures:
    """Milliseconds over the questions that were answered; None where an arm has no such part."""

    retrieve_p50: float | None
    retrieve_p95: float | None
    first_token_p50: float | None
    first_token_p95: float | None
    total_p50: float | None
    total_p95: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFigures:
    """Mean tokens of a question: what the model read and what it wrote."""

    prompt: float
    completion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTime:
    """What making an arm's model took, once.

    Attributes:
        cost_usd: A provider's price; None where it is unknown, as for a machine of one's own.
        train_tokens: Of the training; None where the run does not tell.
        joules: Of the processor; None where no counter can be read.
    """

    cost_usd: float | None
    train_tokens: int | None
    seconds: float
    joules: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """What an arm answers once facts in the documents have changed.

    Attributes:
        new, old: Questions answered with the new and with the old fact, of `questions`.
        knew: Those answered with the old fact when it was still true: an arm that never knew it cannot be stale.
        after_ms: From the changed file to its being findable; None for an arm that reads no documents.
    """

    questions: int
    new: int
    old: int
    knew: int
    after_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of answering, and how it did.

    Attributes:
        model: "" for a control.
        about: What the arm is, in words: its prompt, its adapter, its examples.
        seed: Of its training; None where nothing was trained here.
        control: It needs no model.
        metrics: By name, over the questions that a metric fits; "score" over all.
        failed: Questions that ended in an error; they count as 0.
        declined: Questions to which it said that there is no answer.
        error: The first failure, where every question failed; else None.
        cost_usd_per_1000: Of 1,000 questions; None where the price is unknown, as for a machine of one's own.
        one_time_cost_usd: 0 where nothing is trained; None where the price is unknown.
    """

    name: str
    model: str
    about: str
    seed: int | None
    control: bool
    metrics: Mapping[str, Estimate]
    by_kind: Mapping[str, Mapping[str, Estimate]]
    failed: int
    error: str | None
    latency_ms: LatencyFigures
    tokens: TokenFigures
    cost_usd_per_1000: float | None
    one_time: OneTime | None
    one_time_cost_usd: float | None
    declined: int = 0
    freshness: Freshness | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two arms on the same questions.

    Attributes:
        difference, low, high: Arm a's mean less arm b's, with the paired 95% interval.
        p, p_holm: Of the paired permutation test; corrected over all pairs of this metric.
        detectable: The least difference that so many questions show in 4 of 5 cases.
        verdict: On a: "better" only where p_holm < .05.
    """

    a: str
    b: str
    metric: str
    questions: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    detectable: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair:
    """Two arms' replies, shown to a judge in both orders.

    Attributes:
        preference: Mean share of a; .5 is none. None where the judge said nothing usable.
        agreement: Share of questions on which both orders gave one winner.
        first_place: Share of decisions for the reply shown first; .5 is unbiased.
        failed: Questions without a judgement.
    """

    a: str
    b: str
    judge: str
    preference: Estimate | None
    agreement: Estimate | None
    first_place: Estimate | None
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCitation:
    """A statement of a reply and the range that a machine held it against; `quote` is None where none speaks of it.

    Attributes:
        verdict: "supported", "partly" or "unsupported".
        evidence: Whether the range meets the question's evidence; None where the question has none.
    """

    claim: str
    verdict: str
    document: str | None
    start: int | None
    end: int | None
    page: int | None
    quote: str | None
    opposed: bool
    evidence: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What of the expected was among the passages before an arm, from 0 to 1.

    Attributes:
        expected: Checksum of what was looked for: a question file that changed is looked up no more.
    """

    expected: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmReply:
    """What one arm said to one question.

    Attributes:
        reply: As it is scored, without markers; "" where it failed.
        mode: "model", "control", or of an answer from documents "generated", "quoted", "abstained".
        draft: What the model wrote before the check, where that is not the reply.
        declined: It says that there is no answer, or nothing at all; told when it is scored.
        recall: None where it had no passages, or nobody knows what should be in them.
        scores: By metric, "score" among them.
        unmeasured: Metrics that could not say anything, and why.
        error: Why it failed, else None.
        first_token_ms, total_ms: Since the question was put, so that retrieval is part of them.
    """

    reply: str
    mode: str
    draft: str = ""
    declined: bool = False
    recall: Recall | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    citations: tuple[ShownCitation, ...] = ()
    error: str | None = None
    retrieve_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A question and every arm's reply, by the arm's name.

    Attributes:
        evidence: (document, quote) pairs of the question file.
    """

    id: str
    question: str
    kind: Kind
    answers: tuple[str, ...]
    evidence: tuple[tuple[str, str], ...]
    replies: Mapping[str, ArmReply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A whole experiment.

    Attributes:
        created: UTC, ISO 8601.
        settings: All that is needed to repeat it; `settings["command"]` is its command line.
        questions: That were asked, `kinds` of each kind.
        sample: What so many questions can and cannot show, in words.
        verdict: Sentences; the first says what to do.
        findings: What stands out in the replies, and whoever decides should know.
        partial: Why it stopped before its last question, else None.
        cost_usd: Of all replies so far; None where a price is unknown.
    """

    version: int
    created: str
    settings: Mapping[str, Any]
    questions: int
    kinds: Mapping[str, int]
    warnings: tuple[str, ...]
    sample: str
    arms: tuple[Arm, ...]
    pairs: tuple[Pair, ...]
    judged: tuple[JudgedPair, ...]
    records: tuple[Record, ...]
    verdict: str
    partial: str | None
    cost_usd: float | None
    findings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        made = _plain(self)
        assert isinstance(made, dict)
        return made

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            UsageError: It is none, or of another version.
        """
        if given.get("version") != VERSION:
            raise UsageError(
                f"version {given.get('version')!r} of a comparison; this is version {VERSION}",
                fix="graft compare makes it anew",
            )
        try:
            made: Self = from_plain(cls, given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"no comparison: {error}", fix="graft compare makes it anew") from error
        return made

    def arm(self, name: str) -> Arm:
        """One arm by name."""
        return next(arm for arm in self.arms if arm.name == name)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """What `to_json` wrote, as the type that it was; unknown keys are passed over, missing ones keep their default.

    >>> from_plain(Estimate, {"mean": 0.5, "low": 0, "high": 1})
    Estimate(mean=0.5, low=0, high=1)
    """
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inside:
            return None
        return from_plain(next(one for one in inside if one is not type(None)), value)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        made: Any = kind
        given = (f for f in dataclasses.fields(kind) if f.name in value or f.default is dataclasses.MISSING)
        return made(**{f.name: from_plain(hints[f.name], value[f.name]) for f in given})
    if origin is tuple:
        each = inside[:1] * len(value) if inside[-1:] == (...,) else inside
        return tuple(from_plain(one, inner) for one, inner in zip(each, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: from_plain(inside[1], inner) for key, inner in value.items()}
    return value
