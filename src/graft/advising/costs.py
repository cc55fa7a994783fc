"""needs, prices and measured tokens -> what each arm costs to build and by the month, line by line.

A price that is not known makes its line unknown (None), and with it every sum that it is part of; never 0. It does
not know which arm is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graft.advising.arms import ARMS, costed_as, is_tuned, retrieves
from graft.advising.machines import gpu_for_training, served, training_hours
from graft.advising.model_prices import ModelPrice, model_price
from graft.advising.needs import Needs
from graft.advising.prices import Prices
from graft.advising.report import MeasuredArm, Report

Hosting = Literal["hosted", "self"]

CHUNK_TOKENS = 256
"""Of a passage as it is stored."""
DIMENSIONS = {"hosted": 1536, "self": 384}
"""Numbers of a vector: of common hosted embedders, and of the one that Graft ships."""
_BYTES_BESIDE = 2_000
"""Of a stored passage beside its vector: the text and where it stands."""
CHANGED_A_MONTH = {"none": 0.0, "never": 0.0, "yearly": 0.02, "monthly": 0.1, "weekly": 0.2, "daily": 0.5}
"""Share of the documents that is embedded anew in a month; an assumption."""
RETUNED_A_MONTH = {"none": 0.0, "never": 0.0, "yearly": 1 / 12, "monthly": 1.0, "weekly": 52 / 12, "daily": 365 / 12}
"""How often a model that holds the facts in its weights must learn them anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to get a thing: at v questions a month the greater of `least_usd` and fixed + per question x v."""

    fixed_usd: float = 0.0
    per_question_usd: float = 0.0
    least_usd: float = 0.0

    def usd(self, questions: float) -> float:
        return max(self.least_usd, self.fixed_usd + self.per_question_usd * questions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing to pay for.

    Attributes:
        because: What was multiplied, and where the price is from.
        ways: The cheapest is taken at each volume; none where a price is not known.
    """

    what: str
    because: str
    ways: tuple[Way, ...]

    def usd(self, questions: float = 0.0) -> float | None:
        """In US dollars at so many questions a month; None where a price is not known."""
        return min((way.usd(questions) for way in self.ways), default=None)


def priced(what: str, because: str, fixed: float | None = 0.0, each: float | None = 0.0, least: float = 0.0) -> Line:
    """A line with one way: `fixed` and `each` question, `least` a month; None is a price that is not known.

    >>> priced("a store", "by use", each=0.01, least=50).usd(1_000), priced("a run", "not known", None).usd()
    (50, None)
    """
    if fixed is None or each is None:
        return Line(what=what, because=because, ways=())
    return Line(what=what, because=because, ways=(Way(fixed_usd=fixed, per_question_usd=each, least_usd=least),))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCost:
    """What an arm costs, run by others ("hosted") or on rented machines ("self")."""

    arm: str
    hosting: Hosting
    initial: tuple[Line, ...]
    monthly: tuple[Line, ...]

    def initial_usd(self) -> float | None:
        """To build it."""
        return total(line.usd() for line in self.initial)

    def monthly_usd(self, questions: float) -> float | None:
        """At so many questions a month."""
        return total(line.usd(questions) for line in self.monthly)

    def to_json(self, questions: float) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "hosting": self.hosting,
            "initial_usd": self.initial_usd(),
            "monthly_usd": self.monthly_usd(questions),
            "initial": [{"what": x.what, "usd": x.usd(), "because": x.because} for x in self.initial],
            "monthly": [{"what": x.what, "usd": x.usd(questions), "because": x.because} for x in self.monthly],
        }


def total(parts: Iterator[float | None]) -> float | None:
    """The sum; None where a part is unknown.

    >>> total(iter([1.0, None])), total(iter([]))
    (None, 0.0)
    """
    found = list(parts)
    return None if None in found else sum((part for part in found if part is not None), 0.0)


def arm_costs(needs: Needs, prices: Prices, *, hosting: Hosting, report: Report | None = None) -> tuple[ArmCost, ...]:
    """Each of `ARMS`, in their order.

    Args:
        report: Its measured tokens and costs stand before what was answered and estimated.
    """
    return tuple(_Bill(needs, prices, hosting, arm, _measured(report, arm)).cost() for arm in ARMS)


def _measured(report: Report | None, arm: str) -> MeasuredArm | None:
    """The arm itself, or the one measured in its stead."""
    if report is None:
        return None
    found = report.arm(arm)
    return found or next((one for one in report.arms if costed_as(one.name) == arm), None)


@dataclass(frozen=True, slots=True)
class _Bill:
    """The lines of one arm."""

    needs: Needs
    prices: Prices
    hosting: Hosting
    arm: str
    measured: MeasuredArm | None

    def cost(self) -> ArmCost:
        initial: list[Line] = []
        monthly: list[Line] = [*self._asking()]
        if self.arm == "few-shot":
            initial.append(self._curation(min(self.needs.shots, self.needs.examples)))
        if retrieves(self.arm):
            initial += [self._days("setting up retrieval", self.prices.work.retrieval_days), self._embedding()]
            monthly += [self._store(), self._keeping_up(), self._upkeep("retrieval")]
        if is_tuned(self.arm):
            initial += [*self._tuning(), self._days("setting up tuning", self.prices.work.tuning_days)]
            monthly += [*self._retuning(), self._upkeep("the tuned model")]
        return ArmCost(arm=self.arm, hosting=self.hosting, initial=tuple(initial), monthly=tuple(monthly))

    # asking the model

    def _asking(self) -> Sequence[Line]:
        """The questions themselves, and what retrieval or examples add to each prompt."""
        found, needs = self.measured, self.needs
        if self.hosting == "hosted" and found is not None and found.cost_usd_per_1000 is not None:
            each = found.cost_usd_per_1000 / 1000
            return [priced("asking the model", "measured by graft compare", each=each)]
        answer = needs.answer_tokens if found is None else found.answer_tokens
        whole = self._prompt() if found is None else found.prompt_tokens
        told = "" if found is None else ", measured"
        if self._by_the_hour():
            return [self._gpu(whole, answer, told)]
        plain = min(needs.prompt_tokens, whole)
        lines = [self._tokens("question and answer", plain, answer, f"{plain:,.0f} + {answer:,.0f} tokens{told}")]
        if whole > plain:
            added = "examples in the prompt" if self.arm == "few-shot" else "added prompt tokens"
            lines.append(self._tokens(added, whole, answer, f"{whole - plain:,.0f} tokens{told}", without=plain))
        return lines

    def _prompt(self) -> float:
        shots = min(self.needs.shots, self.needs.examples) if self.arm == "few-shot" else 0
        passages = self.needs.passage_tokens if retrieves(self.arm) else 0
        return self.needs.prompt_tokens + passages + shots * self.needs.example_tokens

    def _gpu(self, prompt: float, answer: float, told: str) -> Line:
        """GPUs by the hour: always on, however few the questions."""
        needs = self.needs
        options = served(prompt, answer, needs.model_billions, self.prices)
        ways = {
            one.name: Way(per_question_usd=one.usd_per_question, least_usd=one.least_usd_per_month) for one in options
        }
        on = min(options, key=lambda one: ways[one.name].usd(needs.questions_per_month))
        because = (
            f"{on.gpus} {on.name} at ${on.gpu.usd_per_hour:,.2f} an hour ({on.gpu.told}), always on, more where "
            f"questions need them; {prompt:,.0f} + {answer:,.0f} tokens{told}"
        )
        return Line(what="the model's GPU", because=because, ways=tuple(ways.values()))

    def _tokens(self, what: str, prompt: float, answer: float, tokens: str, *, without: float = 0.0) -> Line:
        """A request by the token; or what its prompt's tokens beyond `without` add to it."""
        name = self.needs.tuned_model if is_tuned(self.arm) else self.needs.model
        price = self._price(name)
        if price is None:
            return priced(what, f"{tokens}; price of {name!r} not known", None)
        each = price.usd(prompt, answer) - (price.usd(without, answer) if without else 0.0)
        return priced(what, f"{tokens} of {name} ({price.source})", each=each)

    def _by_the_hour(self) -> bool:
        """Whether the model runs on a GPU that is rented: one's own, or a tuned one that is not billed by tokens."""
        return self.hosting == "self" or (is_tuned(self.arm) and not self.needs.tuned_model)

    def _price(self, name: str) -> ModelPrice | None:
        return model_price(name, yours=self.prices.models)

    # retrieval

    def _days(self, what: str, days: float) -> Line:
        work = self.prices.work
        because = f"{days:g} d of {work.hours_per_day:g} h at ${work.usd_per_hour:g} ({work.told})"
        return priced(what, because, days * work.hours_per_day * work.usd_per_hour)

    def _embedding(self) -> Line:
        return self._embedded("embedding the documents", float(self.needs.corpus_tokens), 0.0)

    def _keeping_up(self) -> Line:
        changed = self.needs.corpus_tokens * CHANGED_A_MONTH[self.needs.knowledge]
        return self._embedded("embedding changes and questions", changed, float(self.needs.prompt_tokens))

    def _embedded(self, what: str, tokens: float, per_question: float) -> Line:
        if self.hosting == "self":
            return priced(what, "on the store's own machine")
        price = self._price(self.needs.embedder)
        if price is None:
            return priced(what, f"price of {self.needs.embedder!r} not known", None)
        told = f"{tokens:,.0f} tokens" + (f" and {per_question:,.0f} a question" if per_question else "")
        because = f"{told} of {self.needs.embedder} ({price.source})"
        return priced(what, because, price.usd(tokens, 0), price.usd(per_question, 0))

    def _store(self) -> Line:
        passages = self.needs.corpus_tokens / CHUNK_TOKENS
        gb = passages * (DIMENSIONS[self.hosting] * 4 + _BYTES_BESIDE) / 1e9
        if self.hosting == "self":
            server = self.prices.server
            because = f"{gb:,.2f} GB on servers of {server.disk_gb:g} GB ({server.told})"
            return priced("the store", because, server.usd_per_month * max(1.0, gb / server.disk_gb))
        store = self.prices.vector_store
        written = passages * CHANGED_A_MONTH[self.needs.knowledge]
        return priced(
            "the store",
            f"{gb:,.2f} GB, by what is kept, read and written, at least ${store.least_usd_per_month:g} a month "
            f"({store.told})",
            gb * store.usd_per_gb_month + written / 1e6 * store.usd_per_million_writes,
            max(0.25, gb) / 1e6 * store.usd_per_million_reads,  # a read unit for each GB that is searched
            store.least_usd_per_month,
        )

    def _upkeep(self, of: str) -> Line:
        work = self.prices.work
        because = f"{work.upkeep_hours_per_month:g} h at ${work.usd_per_hour:g} ({work.told})"
        return priced(f"upkeep of {of}", because, work.upkeep_hours_per_month * work.usd_per_hour)

    # tuning

    def _curation(self, examples: int) -> Line:
        work = self.prices.work
        hours = examples * work.curation_minutes_per_example / 60
        because = f"{examples:,} examples, {hours:,.1f} h at ${work.usd_per_hour:g} ({work.told})"
        return priced("curating examples", because, hours * work.usd_per_hour)

    def _tuning(self) -> Sequence[Line]:
        return [self._curation(self.needs.examples), self._run(), self._evaluation()]

    def _evaluation(self) -> Line:
        work = self.prices.work
        because = f"{work.evaluation_hours:g} h at ${work.usd_per_hour:g} ({work.told})"
        return priced("evaluation", because, work.evaluation_hours * work.usd_per_hour)

    def _run(self) -> Line:
        """One training run."""
        needs, prices, what = self.needs, self.prices, "a training run"
        if self.measured is not None and self.measured.one_time_cost_usd is not None:
            return priced(what, "measured by graft compare", self.measured.one_time_cost_usd)
        tokens = needs.examples * needs.example_tokens * needs.epochs
        if self.hosting == "self":
            name, gpus = gpu_for_training(needs.model_billions, prices)
            gpu = prices.gpu[name]
            hours = training_hours(tokens, needs.model_billions, gpu, gpus, prices)
            because = f"{tokens:,.0f} tokens, {hours:,.1f} h of {gpus} {name} ({gpu.told})"
            return priced(what, because, hours * gpus * gpu.usd_per_hour)
        if needs.tuned_model:
            known = needs.training_usd_per_million or None
            because = f"{tokens:,.0f} tokens of {needs.tuned_model}" + ("" if known else "; price not known")
            return priced(what, because, None if known is None else tokens / 1e6 * known)
        hosted = prices.hosted_tuning
        if needs.model_billions > hosted.up_to_billions:
            because = f"price over {hosted.up_to_billions:g} billion parameters not known ({hosted.told})"
            return priced(what, because, None)
        because = f"{tokens:,.0f} tokens at ${hosted.usd_per_million_tokens:g} a million ({hosted.told})"
        return priced(what, because, tokens / 1e6 * hosted.usd_per_million_tokens)

    def _retuning(self) -> Sequence[Line]:
        """Facts in the weights grow old; with retrieval beside them they stand in the documents."""
        often = 0.0 if retrieves(self.arm) else RETUNED_A_MONTH[self.needs.knowledge]
        run, evaluation = self._run().usd(), self._evaluation().usd()
        if not often:
            return []
        cost = None if run is None or evaluation is None else often * (run + evaluation)
        because = f"{often:,.2g} runs a month with their evaluation: facts change {self.needs.knowledge}"
        return [priced("tuning anew", because, cost)]
