"""Our nDCG against trec_eval. Run by run.sh in .bench-venv, where the reference is installed."""

from __future__ import annotations

import random

import pytest

from benchmarks.measures import mean_interval, ndcg

CASES = 300


@pytest.mark.parametrize("k", [1, 5, 10, 100])
def test_ndcg_is_that_of_trec_eval(k: int) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="only .bench-venv has the reference")
    draw = random.Random(k)
    judged, rankings = {}, {}
    for number in range(CASES):
        documents = [f"d{i}" for i in range(40)]
        judged[f"q{number}"] = {d: draw.choice([0, 0, 1, 2, 3]) for d in draw.sample(documents, draw.randint(1, 30))}
        rankings[f"q{number}"] = draw.sample(documents, draw.randint(1, 40))
    runs = {q: {d: float(-rank) for rank, d in enumerate(ranking)} for q, ranking in rankings.items()}
    reference = pytrec_eval.RelevanceEvaluator(judged, {f"ndcg_cut.{k}"}).evaluate(runs)
    assert len(reference) == CASES
    for query, ranking in rankings.items():
        assert ndcg(ranking, judged[query], k=k) == pytest.approx(reference[query][f"ndcg_cut_{k}"], abs=1e-6)


def test_an_interval_holds_the_mean_and_shrinks_with_more_queries() -> None:
    draw = random.Random(0)
    few, many = ([draw.random() for _ in range(n)] for n in (30, 3000))
    widths = []
    for values in (few, many):
        low, high = mean_interval(values)
        assert low < sum(values) / len(values) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5
