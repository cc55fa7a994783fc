"""needs, a report, prices -> one recommendation with its reasons, costs, and the command that would settle it.

What was measured outranks the rules. It does not know how advice is shown.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any, Literal

from graft.advising.arms import Approach, approach_of, costed_as, is_tuned, retrieves
from graft.advising.breaking_even import BreakEven, break_evens
from graft.advising.costs import ArmCost, Hosting, arm_costs
from graft.advising.evidence import Evidence, excluded, settled
from graft.advising.model_prices import table_source
from graft.advising.needs import Needs, needs_from
from graft.advising.prices import Prices, shipped_prices
from graft.advising.report import Report
from graft.advising.rules import ENOUGH, Weighed, weigh
from graft.extras import install

_LATENCY_MS = {"seconds": None, "second": 1000.0, "instant": 200.0}
_FITS_A_PROMPT = 50_000
_FEW_QUESTIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What small systems are said to cost beside the user's own estimate; US dollars."""

    what: str
    low: float
    high: float
    yours: float | None
    source: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do, and why.

    Attributes:
        approach, arm: What to do, and the arm of `graft compare` that does it.
        basis: "measurement" where a report decided.
        sentence: The recommendation for people.
        evidence: What the report says of each arm; empty without one.
        costs: Of every arm, run by others ("hosted") and on rented machines ("self").
        break_even: Of every pair of arms, as `needs.hosting` has it.
        cautions: What speaks against it, or is not known.
        compare: The command that would settle it.
    """

    needs: Needs
    approach: Approach
    arm: str
    basis: Literal["measurement", "rules"]
    sentence: str
    weighed: Weighed
    evidence: tuple[Evidence, ...]
    hosted: tuple[ArmCost, ...]
    self_hosted: tuple[ArmCost, ...]
    break_even: tuple[BreakEven, ...]
    references: tuple[Reference, ...]
    cautions: tuple[str, ...]
    compare: str

    @property
    def costs(self) -> tuple[ArmCost, ...]:
        """As `needs.hosting` has it."""
        return self.hosted if self.needs.hosting == "hosted" else self.self_hosted

    @property
    def cost(self) -> ArmCost:
        """Of the recommended arm."""
        return next(cost for cost in self.costs if cost.arm == costed_as(self.arm))

    def to_json(self) -> dict[str, Any]:
        """Plain values; an unknown amount is None."""
        volume = self.needs.questions_per_month
        return {
            "recommendation": {"approach": self.approach, "arm": self.arm, "sentence": self.sentence},
            "basis": self.basis,
            "scores": {
                "retrieval": self.weighed.retrieval,
                "tuning": self.weighed.tuning,
                "enough": ENOUGH,
                "rules_say": self.weighed.approach,
            },
            "criteria": [move.to_json() for move in self.weighed.moves],
            "evidence": [one.to_json() for one in self.evidence],
            "costs": [cost.to_json(volume) for cost in (*self.hosted, *self.self_hosted)],
            "break_even": [pair.to_json() for pair in self.break_even],
            "references": [reference.to_json() for reference in self.references],
            "cautions": list(self.cautions),
            "compare": self.compare,
            "needs": self.needs.to_json(),
        }


def advise(needs: Needs, report: Report | None = None, prices: Prices | None = None) -> Advice:
    """Recommend retrieval, tuning, both or neither.

    Without a report, each criterion moves retrieval and tuning by points (`rules`), and 3 are enough for either; with
    both, the model is tuned first and retrieval goes with the tuned model. With a report, the arm that costs least
    among those not shown to be worse than the best is recommended, of the arms that the needs allow: rules then only
    stand beside it. Costs use the report's measured tokens, and what the report counted stands for the answer: the
    size of the documents, the number of examples.

    Args:
        prices: Instead of those that Graft ships.
    """
    prices = prices or shipped_prices()
    said_before = needs
    if report is not None and report.facts:
        needs = needs_from({**needs.to_json(), **report.facts})
    costs: dict[Hosting, tuple[ArmCost, ...]] = {
        hosting: arm_costs(needs, prices, hosting=hosting, report=report) for hosting in ("hosted", "self")
    }
    chosen = costs["hosted" if needs.hosting == "hosted" else "self"]
    by_arm = {cost.arm: cost for cost in chosen}
    weighed = weigh(needs, rag=by_arm["rag"], tuned=by_arm["tuned"])
    evidence = settled(report, needs, chosen) if report else None
    arm = evidence.arm if evidence else _arm(weighed.approach, needs)
    approach = (approach_of(arm) if evidence else None) or weighed.approach
    said = evidence.sentence if evidence else _by_rules(weighed)
    return Advice(
        needs=needs,
        approach=approach,
        arm=arm,
        basis="measurement" if evidence else "rules",
        sentence=(_by_report(report, arm) if report and evidence else "")
        + f"{_what_to_do(approach, arm, needs)}: {said}",
        weighed=weighed,
        evidence=evidence.arms if evidence else (),
        hosted=costs["hosted"],
        self_hosted=costs["self"],
        break_even=break_evens(chosen, months=needs.months),
        references=_references(needs, by_arm, prices),
        cautions=(
            *_corrections(said_before, needs),
            *_cautions(needs, report, evidence is not None, arm, weighed, by_arm),
        ),
        compare=_compare(needs, "" if report is None else report.model),
    )


def _corrections(said: Needs, counted: Needs) -> tuple[str, ...]:
    """Answers that are not what was counted, and answers that nobody seems to have given."""
    found = [
        f"{key} is {getattr(counted, key):,} by the report, not {getattr(said, key):,} as answered"
        for key in ("corpus_tokens", "examples")
        if getattr(said, key) != getattr(counted, key)
    ]
    if said == Needs():
        found.append("every answer is the usual one: edit them, for they decide what the report leaves open")
    return tuple(found)


def _arm(approach: Approach, needs: Needs) -> str:
    if approach == "neither":
        return "few-shot" if needs.teach and needs.examples and needs.shots else "base"
    return {"retrieval": "rag", "tuning": "tuned", "both": "tuned+rag"}[approach]


def _what_to_do(approach: Approach, arm: str, needs: Needs) -> str:
    if approach != "neither":
        return {
            "retrieval": "Retrieve, with the model as it is",
            "tuning": "Tune the model, without retrieval",
            "both": "Do both: tune first, then retrieve with the tuned model",
        }[approach]
    if arm == "few-shot":
        return f"Neither: show the model {min(needs.shots, needs.examples)} examples in the prompt"
    if needs.knowledge != "none" and 0 < needs.corpus_tokens <= _FITS_A_PROMPT:
        return "Neither: put the documents into the prompt"
    return "Neither: use the model as it is"


def _by_rules(weighed: Weighed) -> str:
    return (
        f"your answers give retrieval {weighed.retrieval} and tuning {weighed.tuning} points, {ENOUGH} are enough; "
        "nothing was measured"
    )


def _references(needs: Needs, costs: dict[str, ArmCost], prices: Prices) -> tuple[Reference, ...]:
    said, rag, tuned = prices.reference, costs["rag"], costs["tuned"]
    rows = (
        ("building retrieval", said.retrieval_build_usd, rag.initial_usd()),
        ("a month of retrieval", said.retrieval_month_usd, rag.monthly_usd(needs.questions_per_month)),
        ("a tuning run with its data and evaluation", said.tuning_run_usd, tuned.initial_usd()),
    )
    return tuple(
        Reference(what=what, low=low, high=high, yours=yours, source=said.told) for what, (low, high), yours in rows
    )


def _cautions(
    needs: Needs, report: Report | None, measured: bool, arm: str, weighed: Weighed, costs: dict[str, ArmCost]
) -> tuple[str, ...]:
    found: list[str] = []
    if report is not None and not measured:
        found.append("no arm of the report does what you require, so the rules decided")
    if report is not None:
        found += [
            f"{name} answered no question, so nothing is known of it: {why}" for name, why in report.failed.items()
        ]
    if report is not None and measured:
        found += _of_the_report(report, needs, arm, weighed)
    elif reason := excluded(arm, needs):
        found.append(f"{arm} {reason}; measure it before you rely on it")
    found += _of_the_costs(needs, costs[costed_as(arm)])
    if needs.hosting == "hosted" and table_source() is None:
        found.append(f"LiteLLM is not installed, so prices of hosted models are unknown: {install('hosted')}")
    return tuple(found)


def _of_the_report(report: Report, needs: Needs, arm: str, weighed: Weighed) -> list[str]:
    found, chosen, limit = [], report.arm(arm), _LATENCY_MS[needs.latency]
    assert chosen is not None
    for one in report.arms:
        if approach_of(one.name) is None and not report.worse(one.name, than=arm):
            found.append(f"{one.name}, which is no arm that Graft tunes or retrieves for, is not shown to be worse")
        elif one.score > chosen.score and (reason := excluded(one.name, needs)):
            found.append(f"{one.name} scored more ({one.score:.3g}), but it {reason}")
    if weighed.approach != approach_of(arm):
        found.append(f"the rules alone would have said {weighed.approach}")
    if limit is not None and chosen.latency_ms is not None and chosen.latency_ms > limit:
        found.append(
            f"half of its answers took over {chosen.latency_ms:,.0f} ms where measured; you want {limit:,.0f}"
        )
    if report.questions < _FEW_QUESTIONS:
        found.append(f"{report.questions} questions show only large differences")
    return found


def _by_report(report: Report, arm: str) -> str:
    """What the report itself says to do, where that is not to use this arm."""
    first = _first(report.verdict)
    if not first or first == f"Use {arm}":
        return ""
    return f"{first}. Of what is not shown to be worse, this costs least. "


def _first(verdict: str) -> str:
    """Its first sentence.

    >>> _first("Not decided: 1.5 points. More.")
    'Not decided: 1.5 points'
    """
    return re.split(r"\.(?:\s|$)", verdict, maxsplit=1)[0]


def _of_the_costs(needs: Needs, cost: ArmCost) -> list[str]:
    initial, monthly = cost.initial_usd(), cost.monthly_usd(needs.questions_per_month)
    if initial is None or monthly is None:
        lines = [line.because for line in (*cost.initial, *cost.monthly) if line.usd() is None]
        return [f"what {cost.arm} costs is not known: {lines[0]}"]
    if initial > needs.budget_usd:
        return [f"building {cost.arm} is estimated at ${initial:,.0f}, over your ${needs.budget_usd:,}"]
    return []


def _compare(needs: Needs, model: str) -> str:
    """The command that measures the arms which the needs leave open.

    Args:
        model: That was measured before; else the one of the settings, which needs no option.
    """
    arms = [arm for arm in ("base", "few-shot", "rag", "tuned", "tuned+rag") if _possible(arm, needs)]
    hosted = needs.hosting == "hosted" and needs.model and not any(map(is_tuned, arms))
    words = ["graft", "compare", "--questions", "questions.jsonl"]
    if needs.examples:
        words += ["--train", "examples.jsonl"]
    base = model or (f"litellm/{needs.model.removeprefix('litellm/')}" if hosted else "")
    return shlex.join([*words, *(["--model", base] if base else []), "--arms", ",".join(arms)])


def _possible(arm: str, needs: Needs) -> bool:
    if retrieves(arm) and not needs.corpus_tokens:
        return False
    if is_tuned(arm):
        return needs.examples > 0 and needs.private == "no" and needs.base_model != "unchanged"
    return arm != "few-shot" or (needs.examples > 0 and needs.shots > 0)
