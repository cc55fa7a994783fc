"""Advice: needs and measurements in, a recommendation out; money beside LiteLLM's own arithmetic."""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.advising import (
    QUESTIONS,
    Needs,
    Prices,
    advise,
    needs_from,
    read_needs,
    read_prices,
    read_report,
    report_from,
    shipped_prices,
)
from graft.advising.breaking_even import break_even, monthly_total
from graft.advising.costs import ArmCost, Way, arm_costs, priced
from graft.advising.machines import training_hours
from graft.advising.model_prices import litellm_table, model_price
from graft.advising.needs import BY_KEY, example_answers
from graft.advising.rules import weigh
from graft.errors import GraftError, UsageError

DOCS = Path(__file__).parent.parent / "docs" / "advising.md"
DECIDING = [question for question in QUESTIONS if question.deciding]


def any_value(question: Any) -> st.SearchStrategy[Any]:
    if question.kind == "choice":
        return st.sampled_from(question.choices)
    if question.kind == "several":
        return st.lists(st.sampled_from(question.choices), unique=True).map(tuple)
    if question.kind == "text":
        return st.sampled_from(["", "gpt-4.1-mini", "no such model", "text-embedding-3-small"])
    if question.whole:
        return st.integers(math.ceil(question.low), int(question.high))
    return st.floats(question.low, question.high)


any_needs = st.builds(Needs, **{question.key: any_value(question) for question in QUESTIONS})


def figures(name: str, score: float, *, cost: float | None = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "metrics": {"score": {"mean": score, "low": score - 0.1, "high": score + 0.1}},
        "latency_ms": {"total_p50": 900.0},
        "cost_usd_per_1000": cost,
        "one_time_cost_usd": None,
        "tokens": {"prompt": 400.0, "completion": 50.0},
        **more,
    }


def pair(a: str, b: str, verdict: str) -> dict[str, Any]:
    return {
        "a": a, "b": b, "metric": "score", "verdict": verdict,
        "difference": 0.2, "low": 0.1, "high": 0.3, "p_holm": 0.01,
    }  # fmt: skip


def report_of(*arms: dict[str, Any], pairs: tuple[dict[str, Any], ...] = (), questions: int = 200) -> dict[str, Any]:
    return {"version": 1, "arms": list(arms), "pairs": list(pairs), "questions": questions}


# money, beside LiteLLM


@pytest.fixture(scope="module")
def litellm() -> Any:
    from graft.models.hosted import _litellm

    return _litellm()  # it is part of the `test` extra; imported so, it reads the table in its package, as we do


def priced_models() -> list[str]:
    """Chat models that LiteLLM itself can name the provider of, evenly over its table."""
    found = [
        name
        for name, entry in litellm_table().items()
        if entry.get("mode") == "chat"
        and (provider := entry.get("litellm_provider"))
        in ("openai", "anthropic", "gemini", "mistral", "groq", "together_ai", "dashscope")
        and (provider in ("openai", "anthropic") or name.startswith(f"{provider}/"))
        and model_price(name) is not None
    ]
    return found[:: len(found) // 50][:50]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Item '.*' on TypedDict class:UserWarning")
def test_costs_agree_with_litellm_on_fifty_models(litellm: Any) -> None:
    compared = tiered = 0
    for name in priced_models():
        price = model_price(name)
        assert price is not None
        tiered += len(price.tiers) > 1
        for prompt, answer in ((1_234, 567), (300_000, 2_000)):
            usage = litellm.Usage(prompt_tokens=prompt, completion_tokens=answer, total_tokens=prompt + answer)
            theirs = litellm.completion_cost(litellm.ModelResponse(model=name, usage=usage), model=name)
            ours = price.usd(prompt, answer)
            assert ours == pytest.approx(theirs, rel=1e-6), name
            assert abs(ours - theirs) < 0.0001, name  # a hundredth of a cent
        compared += 1
    assert compared == 50 and tiered >= 3


def test_unknown_prices_stay_unknown_in_every_sum() -> None:
    free = next(
        name
        for name, entry in litellm_table().items()
        if entry.get("mode") == "chat"
        and entry.get("input_cost_per_token") == entry.get("output_cost_per_token") == 0
    )
    per_hour = next(name for name, entry in litellm_table().items() if entry.get("off_peak_pricing"))
    for name in ("no/such-model", free, per_hour, ""):
        assert model_price(name) is None, name
    advice = advise(Needs(model="no/such-model"))
    costs = {cost.arm: cost for cost in advice.hosted}
    for arm in ("base", "few-shot", "rag"):
        assert costs[arm].monthly_usd(1) is None and costs[arm].monthly_usd(0) is None
    told = advice.to_json()
    assert [c["monthly_usd"] for c in told["costs"] if c["hosting"] == "hosted"][:3] == [None] * 3
    assert any("no/such-model" in caution for caution in advice.cautions)
    pairs = {(one.a, one.b): one for one in advice.break_even}
    assert pairs["rag", "tuned"].cheapest is None and "not known" in pairs["rag", "tuned"].words
    assert all(cost.monthly_usd(1) is not None for cost in advice.self_hosted)


def test_prices_are_unknown_without_litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    litellm_table.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    try:
        advice = advise(Needs())
        assert model_price("gpt-4.1-mini") is None
        assert advice.hosted[0].monthly_usd(10) is None
        assert any("LiteLLM is not installed" in caution for caution in advice.cautions)
    finally:
        litellm_table.cache_clear()


def test_a_name_with_graft_s_own_prefix_is_the_same_model() -> None:
    names = ("gpt-4.1-mini", "openai/gpt-4.1-mini", "litellm/openai/gpt-4.1-mini")
    (usd,) = {price.usd(1000, 100) for name in names if (price := model_price(name))}
    assert usd == pytest.approx(1000 * 4e-7 + 100 * 1.6e-6)
    assert model_price("mistral/gpt-4.1-mini") is None


# rules


def test_every_question_is_a_field_and_every_deciding_one_a_rule() -> None:
    assert [question.key for question in QUESTIONS] == [field.name for field in fields(Needs)]
    assert [move.key for move in weigh(Needs()).moves] == [question.key for question in DECIDING]


def documented_rules() -> list[tuple[str, int, int]]:
    rows = re.findall(r"^\| `([^`]+)` \| (-?\d) \| (-?\d) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return [(answer, int(retrieval), int(tuning)) for answer, retrieval, tuning in rows]


@pytest.mark.parametrize(("answer", "retrieval", "tuning"), documented_rules())
def test_a_documented_rule_moves_as_documented(answer: str, retrieval: int, tuning: int) -> None:
    needs = needs_from(tomllib.loads(answer))
    costs = {cost.arm: cost for cost in arm_costs(needs, shipped_prices(), hosting="hosted")}
    key = answer.split(" =")[0]
    (move,) = [move for move in weigh(needs, rag=costs["rag"], tuned=costs["tuned"]).moves if move.key == key]
    assert (move.retrieval, move.tuning) == (retrieval, tuning)
    assert (move.reason == "moves nothing") == (not retrieval and not tuning)


def test_every_choice_that_moves_something_is_documented() -> None:
    documented = {answer for answer, *_ in documented_rules()}
    seen = 0
    for question in DECIDING:
        for choice in question.choices:
            value = [choice] if question.kind == "several" else choice
            (move,) = [m for m in weigh(needs_from({question.key: value})).moves if m.key == question.key]
            if move.retrieval or move.tuning:
                seen += 1
                assert f"{question.key} = {json.dumps(value)}" in documented
    assert seen >= 15


RISING = {
    "knowledge": (1, -1), "sources": (1, 0), "corpus_tokens": (1, 0), "examples": (0, 1), "latency": (-1, 1),
    "questions_per_month": (0, 1), "private": (1, -1), "start": (1, -1), "expertise": (0, -1), "budget_usd": (1, 1),
}  # fmt: skip
"""Which way more of it moves (retrieval, tuning); 0: not at all."""


@pytest.mark.parametrize("key", RISING)
@given(needs=any_needs, data=st.data())
@settings(max_examples=40, deadline=None)
def test_more_of_a_criterion_only_moves_in_its_direction(key: str, needs: Needs, data: st.DataObject) -> None:
    question = BY_KEY[key]
    values = data.draw(st.lists(any_value(question), min_size=2, max_size=2))
    if key == "knowledge" and "none" in values:  # no facts at all: nothing to find, and nothing to learn
        values = ["never", "daily"]
    less, more = sorted(values, key=question.choices.index if question.choices else float)
    costs = arm_costs(needs, shipped_prices(), hosting="self")
    before, after = (weigh(replace(needs, **{key: value}), rag=costs[2], tuned=costs[3]) for value in (less, more))
    for way, direction in zip(("retrieval", "tuning"), RISING[key], strict=True):
        moved = getattr(after, way) - getattr(before, way)
        assert moved * direction >= 0 if direction else moved == 0


@given(needs=any_needs, more=st.sampled_from(BY_KEY["teach"].choices))
@settings(max_examples=40, deadline=None)
def test_more_to_teach_never_speaks_against_tuning(needs: Needs, more: str) -> None:
    taught = replace(needs, teach=(*needs.teach, more))
    assert weigh(taught).tuning >= weigh(needs).tuning and weigh(taught).retrieval == weigh(needs).retrieval


def test_the_four_answers_can_all_be_had() -> None:
    tuning: dict[str, Any] = {"teach": ("format", "style", "skill"), "examples": 2_000}
    assert advise(Needs()).arm == "rag"
    assert advise(Needs(knowledge="none", sources="no", **tuning)).arm == "tuned"
    both = advise(Needs(**tuning))
    assert both.arm == "tuned+rag" and "tune first" in both.sentence
    assert advise(Needs(knowledge="none", sources="no")).arm == "base"
    few = advise(Needs(knowledge="none", sources="no", teach=("format",)))
    assert few.arm == "few-shot" and "5 examples in the prompt" in few.sentence
    small = advise(Needs(knowledge="never", corpus_tokens=20_000, sources="no"))
    assert small.approach == "neither" and "documents into the prompt" in small.sentence


def test_the_command_leaves_out_what_cannot_be() -> None:
    assert advise(Needs(private="yes")).compare.endswith("--arms base,few-shot,rag")
    assert advise(Needs(corpus_tokens=0, examples=0)).compare.endswith("--arms base")
    assert "--train" not in advise(Needs(examples=0)).compare


# costs


@given(needs=any_needs, volumes=st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)))
@settings(max_examples=60, deadline=None)
def test_more_questions_never_cost_less(needs: Needs, volumes: tuple[int, int]) -> None:
    low, high = sorted(volumes)
    for hosting in ("hosted", "self"):
        less = arm_costs(replace(needs, questions_per_month=low), shipped_prices(), hosting=hosting)  # type: ignore[arg-type]
        more = arm_costs(replace(needs, questions_per_month=high), shipped_prices(), hosting=hosting)  # type: ignore[arg-type]
        for cheap, dear in zip(less, more, strict=True):
            a, b = cheap.monthly_usd(low), dear.monthly_usd(high)
            assert (a is None) == (b is None)
            assert a is None or b is None or 0 <= a <= b * (1 + 1e-9)


@given(needs=any_needs)
@settings(max_examples=40, deadline=None)
def test_any_answers_give_advice_in_plain_json(needs: Needs) -> None:
    told = json.loads(json.dumps(advise(needs).to_json(), allow_nan=False))
    assert told["recommendation"]["arm"] in ("base", "few-shot", "rag", "tuned", "tuned+rag")
    assert needs_from(told["needs"]) == needs


def test_retrieval_costs_what_its_prices_multiply_to() -> None:
    needs = Needs(model="gpt-4.1-mini", knowledge="never", questions_per_month=1_000_000)
    lines = {line.what: line for line in arm_costs(needs, shipped_prices(), hosting="hosted")[2].monthly}
    assert lines["question and answer"].usd(1e6) == pytest.approx(1e6 * (150 * 4e-7 + 150 * 1.6e-6))
    assert lines["added prompt tokens"].usd(1e6) == pytest.approx(1e6 * 1500 * 4e-7)
    gb = 1_000_000 / 256 * (1536 * 4 + 2000) / 1e9
    assert lines["the store"].usd(0) == 50
    assert lines["the store"].usd(1e8) == pytest.approx(gb * 0.33 + 1e8 * 0.25 / 1e6 * 16)
    assert lines["embedding changes and questions"].usd(1e6) == pytest.approx(1e6 * 150 * 2e-8)


def test_training_hours_follow_the_arithmetic() -> None:
    prices = shipped_prices()
    gpu = prices.gpu["a100"]
    hours = training_hours(1e9, 8, gpu, 1, prices) - prices.training.setup_hours
    assert hours == pytest.approx(1e9 * 6 * 8e9 / (312e12 * 0.3) / 3600)
    assert training_hours(1e9, 16, gpu, 1, prices) - prices.training.setup_hours == pytest.approx(2 * hours)


def test_facts_that_change_make_a_tuned_model_pay_again_but_not_one_that_retrieves() -> None:
    def monthly(knowledge: str) -> tuple[float, float]:
        costs = {cost.arm: cost for cost in arm_costs(Needs(knowledge=knowledge), shipped_prices(), hosting="self")}
        tuned, both = (costs[arm].monthly_usd(0) for arm in ("tuned", "tuned+rag"))
        assert tuned is not None and both is not None
        return tuned, both

    assert monthly("daily")[0] > monthly("weekly")[0] > monthly("never")[0]
    assert monthly("daily")[1] == monthly("never")[1]


def test_a_provider_s_training_price_is_unknown_unless_it_is_given() -> None:
    tuned = Needs(tuned_model="ft:gpt-4.1-mini-2025-04-14")
    assert arm_costs(tuned, shipped_prices(), hosting="hosted")[3].initial_usd() is None
    given = arm_costs(replace(tuned, training_usd_per_million=5.0), shipped_prices(), hosting="hosted")[3]
    (run,) = [line for line in given.initial if line.what == "a training run"]
    assert run.usd() == pytest.approx(200 * 300 * 3 / 1e6 * 5.0)
    large = arm_costs(Needs(model_billions=70), shipped_prices(), hosting="hosted")[3]
    assert large.initial_usd() is None and arm_costs(Needs(model_billions=70), shipped_prices(), hosting="self")


rates = st.floats(0, 0.01).map(lambda rate: round(rate, 6))
amounts = st.integers(0, 5_000).map(float)
ways = st.builds(Way, fixed_usd=amounts, per_question_usd=rates, least_usd=amounts)


@given(parts=st.tuples(*[st.tuples(amounts, st.lists(ways, min_size=1, max_size=3))] * 2), at=st.floats(0, 1e9))
@settings(max_examples=300, deadline=None)
def test_the_break_even_says_which_costs_less_at_every_volume(parts: Any, at: float) -> None:
    a, b = (
        ArmCost(
            arm=name,
            hosting="self",
            initial=(priced("once", "", initial),),
            monthly=(replace(priced("by the month", ""), ways=tuple(options)), priced("more", "", 1.0, 1e-4)),
        )
        for name, (initial, options) in zip("ab", parts, strict=True)
    )
    found = break_even(a, b, months=12)
    assert found.cheapest is not None and found.cheapest[0][0] == 0
    assert list(found.volumes) == sorted(found.volumes)
    said = [arm for start, arm in found.cheapest if start <= at][-1]
    left, right = (monthly_total(cost, at, 12) for cost in (a, b))
    assert left is not None and right is not None
    if abs(left - right) > 1e-6 * (left + right):
        assert said == ("a" if left < right else "b")


def test_the_user_s_prices_override_single_values(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        "[work]\nusd_per_hour = 150\n[gpu.a10]\nusd_per_hour = 0.5\n"
        '[models."my/model"]\ninput_usd_per_million = 1\noutput_usd_per_million = 2\n'
    )
    mine = read_prices(path)
    assert mine.work.usd_per_hour == 150 and mine.work.retrieval_days == shipped_prices().work.retrieval_days
    assert mine.work.source == "prices.toml" and mine.gpu["a10"].memory_gb == 24 and len(mine.gpu) == 4
    costs = advise(Needs(model="litellm/my/model"), prices=mine).hosted
    assert costs[0].monthly_usd(1_000_000) == pytest.approx(150 + 300)
    assert costs[2].initial[0].usd() == 2 * 8 * 150


def test_every_shipped_price_names_its_source_and_day() -> None:
    prices: Prices = shipped_prices()
    tables = [prices.server, prices.vector_store, prices.hosted_tuning, prices.training, prices.serving, prices.work]
    for table in (*tables, prices.reference, *prices.gpu.values()):
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", table.seen)
        assert table.source.startswith(("https://", "assumption"))


def test_the_documented_prices_file_is_one(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "prices.toml").write_text(shown)
    assert read_prices(tmp_path / "prices.toml").gpu["l4"].memory_gb == 24


# evidence


def test_what_was_measured_outranks_the_rules() -> None:
    arms = (figures("base", 0.7), figures("rag", 0.3), figures("tuned", 0.35))
    worse = (pair("rag", "base", "worse"), pair("base", "tuned", "better"))
    needs = Needs()
    assert advise(needs).arm == "rag"
    measured = advise(needs, report_from(report_of(*arms, pairs=worse)))
    assert measured.arm == "base" and measured.basis == "measurement" and measured.approach == "neither"
    assert any("the rules alone would have said retrieval" in caution for caution in measured.cautions)


def test_of_arms_that_are_alike_the_cheapest_is_taken() -> None:
    arms = (figures("rag", 0.70), figures("tuned+rag", 0.74))
    alike = report_from(report_of(*arms, pairs=(pair("tuned+rag", "rag", "no significant difference"),)))
    assert advise(Needs(), alike).arm == "rag"
    assert "not shown to be better and costs more" in advise(Needs(), alike).sentence
    apart = report_from(report_of(*arms, pairs=(pair("tuned+rag", "rag", "better"),)))
    assert advise(Needs(), apart).arm == "tuned+rag"
    other_metric = {**pair("tuned+rag", "rag", "better"), "metric": "f1"}
    assert advise(Needs(), report_from(report_of(*arms, pairs=(other_metric,)))).arm == "rag"


def test_an_arm_that_answered_nothing_is_told_and_never_recommended() -> None:
    away = {**figures("rag", 0.0), "error": "the model is away", "failed": 20}
    arms = (figures("base", 0.1), away)
    found = report_from(report_of(*arms, pairs=(pair("base", "rag", "no significant difference"),)))
    advice = advise(Needs(), found)
    assert advice.arm == "base" and [one.arm for one in advice.evidence] == ["base"] and not found.pairs
    assert any("rag answered no question" in caution and "is away" in caution for caution in advice.cautions)
    with pytest.raises(UsageError, match="every arm failed"):
        report_from(report_of(away))


def test_a_requirement_excludes_the_best_arm() -> None:
    found = report_from(
        report_of(figures("tuned", 0.9), figures("rag", 0.5), pairs=(pair("tuned", "rag", "better"),))
    )
    advice = advise(Needs(sources="required"), found)
    assert advice.arm == "rag" and any("shows no sources" in caution for caution in advice.cautions)
    assert advise(Needs(private="yes"), found).arm == "rag"
    none_left = advise(Needs(private="yes"), report_from(report_of(figures("tuned", 0.9))))
    assert none_left.basis == "rules" and any("the rules decided" in caution for caution in none_left.cautions)


def test_a_control_that_is_as_good_is_told_and_never_recommended() -> None:
    found = report_from(report_of(figures("rag", 0.5), figures("nearest examples", 0.8)))
    advice = advise(Needs(), found)
    assert advice.arm == "rag" and any("nearest examples" in caution for caution in advice.cautions)


def test_retrieval_aware_tuning_costs_what_tuning_does() -> None:
    arms = (figures("retrieval-aware+rag", 0.8, cost=4.0), figures("rag", 0.3))
    found = report_from(report_of(*arms, pairs=(pair("retrieval-aware+rag", "rag", "better"),)))
    advice = advise(Needs(), found)
    assert (advice.arm, advice.approach, advice.cost.arm) == ("retrieval-aware+rag", "both", "tuned+rag")
    assert advice.cost.monthly[0].usd(1000) == 4.0


def test_measured_tokens_and_costs_replace_estimates() -> None:
    found = report_from(
        report_of(figures("rag", 0.5, cost=2.5), figures("tuned", 0.5, cost=None, one_time_cost_usd=7.0))
    )
    advice = advise(Needs(), found)
    asking = advice.hosted[2].monthly[0]
    assert asking.usd(1000) == 2.5 and "measured" in asking.because
    (run,) = [line for line in advice.hosted[3].initial if line.what == "a training run"]
    assert run.usd() == 7.0
    assert "400 + 50 tokens, measured" in advice.self_hosted[2].monthly[0].because


# bad input


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ({"knowlege": "daily"}, "did you mean 'knowledge'"),
        ({"knowledge": "hourly"}, "none, never, yearly"),
        ({"knowledge": 3}, "is not a text"),
        ({"teach": "format"}, "is a list"),
        ({"teach": ["manners"]}, "format, style"),
        ({"teach": [["format"]]}, "format, style"),
        ({"examples": "many"}, "not a number"),
        ({"examples": -1}, "between 0"),
        ({"examples": 10**400}, "more than 60 digits"),
        ({"examples": 1e300}, "between 0"),
        ({"examples": 1.5}, "whole"),
        ({"examples": True}, "not a number"),
        ({"examples": None}, "not a number"),
        ({"epochs": math.nan}, "between"),
        ({"epochs": math.inf}, "between"),
        ({"months": 0}, "between 1"),
        ({"model": "x" * 501}, "at most 500"),
    ],
)
def test_an_answer_that_does_not_exist_is_refused_by_name(answers: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=re.escape(named)) as caught:
        needs_from(answers)
    assert next(iter(answers)) in caught.value.message and "--example" in caught.value.fix


BAD_FILES = {
    "empty.json": b"",
    "blank.toml": b"  \n",
    "binary.json": bytes(range(256)),
    "broken.json": b'{"examples": 3',
    "broken.toml": b"examples = ",
    "list.json": b"[1, 2]",
    "number.json": b"3",
    "twice.json": b'{"examples": 3, "examples": 4}',
    "twice.toml": b"examples = 3\nexamples = 4",
    "deep.json": b"[" * 100_000,
    "deep.toml": b"a = " + b"[" * 5_000,
    "digits.json": b'{"examples": ' + b"9" * 5_000 + b"}",
    "nan.json": b'{"examples": NaN}',
    "unknown.json": b'{"version": 7, "nothing": 1}',
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("read", [read_needs, read_report, read_prices])
def test_a_file_that_is_none_is_refused_with_a_fix(tmp_path: Path, name: str, read: Any) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(GraftError) as caught:
        read(path)
    assert caught.value.message and caught.value.fix and len(caught.value.message) < 1_000
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read(missing)


def changed(**keys: Any) -> dict[str, Any]:
    return report_of(figures("rag", 0.5), figures("base", 0.4), pairs=(pair("rag", "base", "better"),)) | keys


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (changed(version=2), "version 2"),
        (changed(version="1"), "version '1'"),
        (changed(version=True), "version True"),
        (changed(arms=[]), "no arms"),
        (changed(arms={}), "not a list"),
        (changed(arms=[3]), "arms[0]"),
        (changed(arms=[figures("rag", 0.5), figures("rag", 0.5)]), "two arms named 'rag'"),
        (changed(arms=[figures("rag", math.nan)]), "score mean"),
        (changed(arms=[figures("rag", 0.5, cost="cheap")]), "cost_usd_per_1000"),
        (changed(arms=[figures("rag", 0.5, cost=-1.0)]), "cost_usd_per_1000"),
        (changed(arms=[figures("rag", 0.5, metrics={"f1": {}})]), "lacks 'score'"),
        (changed(arms=[figures("rag", 0.5, tokens={"prompt": 3})]), "completion"),
        (changed(arms=[figures("rag", 0.5, latency_ms={})]), "total_p50"),
        (changed(pairs=[pair("rag", "tuned", "better")]), "'tuned', which is no arm"),
        (changed(pairs=[pair("rag", "base", "best")]), "verdict = 'best'"),
        (changed(pairs=[{**pair("rag", "base", "better"), "p_holm": 3}]), "p_holm"),
        (changed(questions=0), "questions"),
        ({"version": 1, "arms": [], "pairs": []}, "no arms"),
        ({}, "lacks 'version'"),
    ],
)
def test_a_report_of_another_shape_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=re.escape(named)):
        report_from(given)


def test_other_keys_of_a_report_are_not_read() -> None:
    given = changed(recommendation="x", extra=[1])
    given["arms"][0] |= {"note": None, "score": "x"}
    assert report_from(given) == report_from(changed())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[gpus]\n", "no table [gpus]"),
        ("work = 3\n", "not a table"),
        ("[work]\nwages = 3\n", "has no 'wages'"),
        ("[work]\nusd_per_hour = -1\n", "usd_per_hour"),
        ("[work]\nusd_per_hour = nan\n", "usd_per_hour"),
        ("[work]\nhours_per_day = '8'\n", "hours_per_day"),
        ("[training]\nutilisation = 0\n", "utilisation"),
        ("[training]\nutilisation = 2\n", "utilisation"),
        ("[gpu.mine]\nusd_per_hour = 1\n", "lacks memory_gb, tflops"),
        ("[gpu]\nmine = 3\n", "not a table"),
        ("[reference]\ntuning_run_usd = [5, 1]\n", "tuning_run_usd"),
        ("[reference]\ntuning_run_usd = [5]\n", "two numbers"),
        ("[models.x]\ninput_usd_per_million = 1\n", "needs both"),
        ("[models.x]\nprice = 1\n", "has no 'price'"),
    ],
)
def test_a_price_that_does_not_exist_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(named)):
        read_prices(path)


def test_the_example_answers_are_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "answers.toml").write_text(example_answers())
    assert read_needs(tmp_path / "answers.toml") == Needs()
    (tmp_path / "answers.json").write_text(json.dumps(asdict(Needs())))
    assert read_needs(tmp_path / "answers.json") == Needs()


def test_what_the_report_counted_stands_for_the_answer_and_its_verdict_comes_first() -> None:
    given = report_of(figures("rag", 0.055), figures("tuned", 0.191), questions=40)
    given |= {
        "verdict": "None of these is fit for use as it is: the best, tuned, answers 19% of the questions right. More",
        "settings": {
            "documents": {"documents": 12, "passages": 300, "tokens": 61_000},
            "examples": 150,
            "request": {"model": "smollm2-135m"},
        },
    }
    advice = advise(Needs(), report_from(given))
    assert advice.sentence.startswith(
        "None of these is fit for use as it is: the best, tuned, answers 19% of the questions right. Of what is not "
        "shown to be worse, this costs least. Tune"
    )
    assert advice.needs.corpus_tokens == 61_000 and advice.needs.examples == 150
    told = "\n".join(advice.cautions)
    assert "corpus_tokens is 61,000 by the report, not 1,000,000 as answered" in told
    assert "every answer is the usual one" in told
    assert "--model smollm2-135m" in advice.compare
    decided = advise(Needs(), report_from({**given, "verdict": "Use tuned. tuned is better than rag."}))
    assert decided.sentence.startswith("Tune")
    assert "BASE" not in advise(Needs()).compare


@pytest.mark.parametrize(
    "settings", [None, [], {"documents": 7}, {"documents": {"tokens": True}}, {"examples": "many"}]
)
def test_settings_of_a_report_that_say_nothing_change_nothing(settings: object) -> None:
    given = {**report_of(figures("rag", 0.5)), "settings": settings, "verdict": 7}
    assert advise(Needs(), report_from(given)).needs == Needs()
