"""a report of `graft compare` -> what was measured of each arm, checked key by key.

Only the keys that advice needs are read; others may stand beside them. It does not know how a report is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from graft.advising.reading import number, read_table, text
from graft.errors import UsageError

VERSION = 1
METRIC = "score"
"""The one figure by which arms are ranked."""
FIX = "graft compare, which writes such a report"

Verdict = Literal["better", "worse", "no significant difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredArm:
    """One arm; `score` with its interval, tokens as means per question.

    Attributes:
        latency_ms: Half of the answers took less; None where nothing was timed.
        cost_usd_per_1000, one_time_cost_usd: None where unknown.
    """

    name: str
    score: float
    low: float
    high: float
    latency_ms: float | None
    cost_usd_per_1000: float | None
    one_time_cost_usd: float | None
    prompt_tokens: float
    answer_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPair:
    """a against b by one metric; `verdict` is a's, `difference` a - b, `p_holm` after Holm's correction."""

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    p_holm: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `graft compare` measured on `questions` questions.

    Attributes:
        failed: Arms that answered no question, and why; they are none of `arms`.
        verdict: What the report itself says, first what to do; "" where it says nothing.
        facts: What it counted that a question of `needs` asks for, by the question's key.
        model: The base of its arms; "" where it does not say.
    """

    arms: tuple[MeasuredArm, ...]
    pairs: tuple[MeasuredPair, ...]
    questions: int
    failed: Mapping[str, str] = field(default_factory=dict)
    verdict: str = ""
    facts: Mapping[str, int] = field(default_factory=dict)
    model: str = ""

    def arm(self, name: str) -> MeasuredArm | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def worse(self, name: str, than: str) -> bool:
        """Whether it was shown that `name` scores less: a pair that was not compared shows nothing."""
        for pair in self.pairs:
            if pair.metric == METRIC and {pair.a, pair.b} == {name, than}:
                return pair.verdict == ("worse" if pair.a == name else "better")
        return False


def read_report(path: str | Path) -> Report:
    """A report's file.

    Raises:
        UsageError: It cannot be read, is of another version, or lacks or mistypes a key; names which.
    """
    return report_from(read_table(path, what="a report of graft compare", fix=FIX), name=str(path))


def report_from(given: Mapping[str, Any], *, name: str = "report") -> Report:
    """A report from its JSON object.

    Raises:
        UsageError: As `read_report`.
    """
    version = _key(given, "version", name)
    if isinstance(version, bool) or version != VERSION:
        raise UsageError(f"{name} has version {version!r}; this Graft reads {VERSION}", fix=FIX)
    arms = tuple(_arm(one, f"{name}: arms[{n}]") for n, one in enumerate(_list(given, "arms", name)))
    if not arms:
        raise UsageError(f"{name} has no arms: nothing was measured", fix=FIX)
    names = [arm.name for arm in arms]
    for one in names:
        if names.count(one) > 1:
            raise UsageError(f"{name} has two arms named {one!r}", fix=FIX)
    pairs = tuple(_pair(one, f"{name}: pairs[{n}]", names) for n, one in enumerate(_list(given, "pairs", name)))
    questions = _number(given, "questions", name, low=1, high=1e9)
    failed = {one["name"]: str(one["error"]) for one in given["arms"] if one.get("error") is not None}
    if len(failed) == len(arms):
        raise UsageError(f"{name}: every arm failed on every question: {next(iter(failed.values()))}", fix=FIX)
    return Report(
        arms=tuple(arm for arm in arms if arm.name not in failed),
        pairs=tuple(pair for pair in pairs if pair.a not in failed and pair.b not in failed),
        questions=int(questions),
        failed=failed,
        verdict=_text_of(given.get("verdict")),
        facts=_facts(given.get("settings")),
        model=_text_of(_inside(given.get("settings"), "request", "model")),
    )


def _facts(settings: object) -> dict[str, int]:
    """What was counted: tokens of the documents, and examples where some were given."""
    tokens, examples = _inside(settings, "documents", "tokens"), _inside(settings, "examples")
    found = {}
    if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0:
        found["corpus_tokens"] = tokens
    if isinstance(examples, int) and not isinstance(examples, bool) and examples > 0:
        found["examples"] = examples
    return found


def _inside(given: object, *keys: str) -> object:
    for key in keys:
        given = given.get(key) if isinstance(given, Mapping) else None
    return given


def _text_of(given: object) -> str:
    return given if isinstance(given, str) else ""


def _arm(given: object, where: str) -> MeasuredArm:
    name = text(_key(given, "name", where), name=f"{where} name", fix=FIX)
    score = _key(_key(given, "metrics", where), METRIC, f"{where} metrics")
    tokens = _key(given, "tokens", where)
    return MeasuredArm(
        name=name,
        score=_number(score, "mean", f"{where} {METRIC}", low=-1e9),
        low=_number(score, "low", f"{where} {METRIC}", low=-1e9),
        high=_number(score, "high", f"{where} {METRIC}", low=-1e9),
        latency_ms=_known(_key(given, "latency_ms", where), "total_p50", f"{where} latency_ms"),
        cost_usd_per_1000=_known(given, "cost_usd_per_1000", where),
        one_time_cost_usd=_known(given, "one_time_cost_usd", where),
        prompt_tokens=_number(tokens, "prompt", f"{where} tokens"),
        answer_tokens=_number(tokens, "completion", f"{where} tokens"),
    )


def _pair(given: object, where: str, arms: list[str]) -> MeasuredPair:
    a, b = (text(_key(given, key, where), name=f"{where} {key}", fix=FIX) for key in ("a", "b"))
    for name in (a, b):
        if name not in arms:
            raise UsageError(f"{where} compares {name!r}, which is no arm; have {', '.join(arms)}", fix=FIX)
    verdict = _key(given, "verdict", where)
    if verdict not in get_args(Verdict):
        raise UsageError(f"{where} verdict = {verdict!r} is none of {', '.join(get_args(Verdict))}", fix=FIX)
    return MeasuredPair(
        a=a,
        b=b,
        metric=text(_key(given, "metric", where), name=f"{where} metric", fix=FIX),
        difference=_number(given, "difference", where, low=-1e9),
        low=_number(given, "low", where, low=-1e9),
        high=_number(given, "high", where, low=-1e9),
        p_holm=_number(given, "p_holm", where, high=1.0),
        verdict=verdict,
    )


def _key(given: object, key: str, where: str) -> Any:
    if not isinstance(given, Mapping):
        raise UsageError(f"{where} is not an object with {key!r} in it", fix=FIX)
    if key not in given:
        raise UsageError(f"{where} lacks {key!r}", fix=FIX)
    return given[key]


def _list(given: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = _key(given, key, where)
    if not isinstance(found, list):
        raise UsageError(f"{where}: {key} is not a list", fix=FIX)
    return found


def _number(given: object, key: str, where: str, *, low: float = 0.0, high: float = 1e15) -> float:
    return number(_key(given, key, where), name=f"{where} {key}", fix=FIX, low=low, high=high)


def _known(given: object, key: str, where: str) -> float | None:
    return None if _key(given, key, where) is None else _number(given, key, where)
