"""Intervals cover, false alarms are rare, and the words about a sample's size are true."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.evaluation.statistics import (
    compare,
    compare_ratios,
    detectable_difference,
    holm,
    mean_interval,
    permutation_test,
    questions_needed,
    ratio_interval,
    sample_says,
    student_quantile,
    wilson_interval,
)

RUNS = 300


@pytest.mark.parametrize("n", [15, 40, 150])
def test_a_paired_interval_covers_a_known_difference(n: int) -> None:
    """Answers of .6 and .5 right on average, alike because some questions are harder."""
    random = np.random.default_rng(n)
    covered = 0
    for run in range(RUNS):
        hard = random.random(n)
        a, b = (hard < 0.6).astype(float), (np.where(random.random(n) < 0.7, hard, random.random(n)) < 0.5)
        found = compare(a, b, seed=run)
        covered += found.low <= 0.1 <= found.high
    assert 0.92 <= covered / RUNS <= 0.985


def test_intervals_of_skewed_means_and_ratios_cover() -> None:
    random, hits = np.random.default_rng(1), np.zeros(2)
    for run in range(RUNS):
        f1 = random.beta(0.5, 0.5, 40)
        tokens = random.integers(5, 50, 40).astype(float)
        nats = tokens * random.gamma(20, 0.1, 40)
        first, second = mean_interval(f1, seed=run), ratio_interval(nats, tokens, seed=run)
        hits += first.low <= 0.5 <= first.high, second.low <= 2.0 <= second.high
    assert (hits / RUNS >= 0.92).all() and (hits / RUNS <= 0.985).all()


def test_wilson_covers_rare_events_where_the_bootstrap_cannot() -> None:
    random = np.random.default_rng(2)
    draws = random.binomial(60, 0.03, RUNS)
    covered = sum(w.low <= 0.03 <= w.high for w in (wilson_interval(int(hits), 60) for hits in draws))
    assert covered / RUNS >= 0.92
    assert mean_interval([0.0] * 60).high == wilson_interval(0, 60).high > 0.05


def test_false_alarms_stay_under_five_per_cent_after_correction() -> None:
    random, alarms = np.random.default_rng(3), 0
    for run in range(RUNS):
        p_values = []
        for _ in range(6):
            a, b = (random.random((2, 40)) < 0.5).astype(float)
            p_values.append(permutation_test(a - b, resamples=400, seed=run))
        alarms += min(holm(p_values)) < 0.05
    assert alarms / RUNS <= 0.07


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=9))
def test_the_exact_permutation_test_is_the_enumeration(differences: list[float]) -> None:
    observed = abs(sum(differences))
    flips = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
             for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    expected = sum(total >= observed - 1e-9 for total in flips) / len(flips)
    assert permutation_test(differences) == pytest.approx(expected)


def test_sampled_and_exact_permutations_agree() -> None:
    differences = np.random.default_rng(4).normal(0.25, 1, 12)
    exact = permutation_test(differences, resamples=5000)
    sampled = permutation_test(np.concatenate([differences, [1e-12]]), resamples=4999)
    assert sampled == pytest.approx(exact, abs=0.02)


def test_questions_that_never_differ_do_not_claim_certainty() -> None:
    found = compare([1, 0, 1] * 5, [1, 0, 1] * 5)
    assert found.difference == 0 and found.p_value == 1 and found.differing == 0
    assert found.low < -0.1 and found.high > 0.1 and found.detectable > 0.1


def test_the_detectable_difference_is_detected_four_times_in_five() -> None:
    random, n, spread = np.random.default_rng(5), 60, 0.33
    effect = 2.8 * spread / math.sqrt(n)
    seen = 0
    for run in range(RUNS):
        found = compare(random.normal(effect, spread, n), np.zeros(n), seed=run)
        seen += found.low > 0
    assert 0.74 <= seen / RUNS <= 0.87
    assert detectable_difference(random.normal(0, spread, 5000)) == pytest.approx(
        2.8 * spread / math.sqrt(5000), rel=0.05
    )


def test_the_words_about_a_sample_name_what_it_shows_and_what_would_be_needed() -> None:
    a = [1.0] * 40 + [0.0] * 20
    b = [1.0] * 33 + [0.0] * 27
    found = compare(a, b)
    assert sample_says(found).startswith(
        f"with 60 questions you can see {100 * found.detectable:.2g} points; for 5 you"
    )
    needed = questions_needed(np.array(a) - np.array(b), 0.05)
    assert needed == pytest.approx(60 * (found.detectable / 0.05) ** 2, abs=1)


def test_a_ratio_is_resampled_by_question_not_by_token() -> None:
    """One long answer that is all wrong: its tokens are no independent evidence."""
    wrong, tokens = [100.0, *[0.0] * 9], [100.0, *[10.0] * 9]
    found = ratio_interval(wrong, tokens)
    assert found.mean == pytest.approx(100 / 190) and found.low == 0 and found.high > 0.75
    changed = compare_ratios([2.0, 4.0, 3.0, 1.0], [1.0, 2.0, 1.5, 0.5], [1.0, 2.0, 1.5, 0.5])
    assert changed.a == pytest.approx(2) and changed.difference == pytest.approx(1)
    assert changed.low == pytest.approx(1) and changed.high == pytest.approx(1)


def test_students_t_agrees_with_tables() -> None:
    tables = {4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}
    checked = [abs(student_quantile(0.975, v) - t) < 0.005 for v, t in tables.items()]
    assert len(checked) == 5 and all(checked)


def test_the_same_seed_gives_the_same_interval_and_empty_input_is_refused() -> None:
    values = np.random.default_rng(6).random(50)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3) != mean_interval(values, seed=4)
    with pytest.raises(ValueError):
        compare([1.0], [1.0, 0.0])
    with pytest.raises(ValueError):
        mean_interval([])
