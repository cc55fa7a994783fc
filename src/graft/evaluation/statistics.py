"""Figures per question -> means, differences, intervals, p-values, and what a sample of this size can show.

Everything is paired by question and seeded. It does not know what a figure means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RESAMPLES = 5_000
"""Of every bootstrap: an end of a 95% interval moves by less than 2% of the interval's width between seeds."""
CONFIDENCE = 0.95
_POWER = 0.8
_BLOCK = 4_000_000  # numbers held at once while resampling, 32 MB
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95% interval; `low` <= `mean` <= `high` but for skewed ratios."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two systems on the same questions.

    Attributes:
        difference, low, high: a - b with its 95% interval.
        p_value: Of the paired permutation test that a and b are alike.
        differing: Questions on which they differ at all.
        detectable: The least difference that a sample like this shows in 4 of 5 cases.
    """

    questions: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    differing: int
    detectable: float


def mean_interval(values: ArrayLike, *, seed: int = 0) -> Estimate:
    """The mean of one figure per question, with its interval.

    Shares (all values 0 or 1) get Wilson's interval, which holds at 0 of n and n of n too; others the
    bootstrap's. One question says nothing: from 0 to 1, or to the value where it lies outside.

    Raises:
        ValueError: No values.
    """
    given = _column(values)
    if len(given) == 0:
        raise ValueError("no figures")
    mean = float(given.mean())
    if np.isin(given, (0.0, 1.0)).all():
        return wilson_interval(int(given.sum()), len(given))
    if len(given) == 1:
        return Estimate(mean=mean, low=min(0.0, mean), high=max(1.0, mean))
    low, high = percentiles(resampled_sums(given[:, None], seed=seed)[:, 0] / len(given), len(given))
    return Estimate(mean=mean, low=low, high=high)


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike, *, seed: int = 0) -> Estimate:
    """sum(numerators) / sum(denominators) with its bootstrap interval, resampled by question.

    For figures pooled over tokens, slots or words, which are alike within a question. Where a resample's
    denominators sum to 0 the ratio counts as 0.

    Raises:
        ValueError: No values.
    """
    columns = np.column_stack([_column(numerators), _column(denominators)])
    if len(columns) == 0:
        raise ValueError("no figures")
    sums = resampled_sums(columns, seed=seed)
    low, high = percentiles(_ratio(sums[:, 0], sums[:, 1]), len(columns))
    mean = float(_ratio(columns[:, :1].sum(0), columns[:, 1:].sum(0))[0])
    return Estimate(mean=mean, low=low, high=high)


def compare(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> Comparison:
    """Two systems' figures on the same questions, in the same order.

    Where they never differ the bootstrap would claim certainty; then the interval is Wilson's bound on the
    share of questions that could have differed.

    Raises:
        ValueError: Of different lengths, or empty.
    """
    first, second = _column(a), _column(b)
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(f"{len(first)} and {len(second)} figures cannot be paired")
    differences = first - second
    n = len(differences)
    if np.ptp(differences) == 0:
        reach = wilson_interval(0, n).high
        low, high = float(differences[0]) - reach, float(differences[0]) + reach
    else:
        low, high = percentiles(resampled_sums(differences[:, None], seed=seed)[:, 0] / n, n)
    return Comparison(
        questions=n,
        a=float(first.mean()),
        b=float(second.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=permutation_test(differences, seed=seed),
        differing=int(np.count_nonzero(differences)),
        detectable=detectable_difference(differences),
    )


def compare_ratios(a: ArrayLike, b: ArrayLike, denominators: ArrayLike, *, seed: int = 0) -> Comparison:
    """Like `compare`, for sum(a) / sum(denominators) against sum(b) / sum(denominators)."""
    first, second, below = _column(a), _column(b), _column(denominators)
    sums = resampled_sums(np.column_stack([first, second, below]), seed=seed)
    low, high = percentiles(_ratio(sums[:, 0], sums[:, 2]) - _ratio(sums[:, 1], sums[:, 2]), len(first))
    total = below.sum()
    scaled = (first - second) * len(first) / total  # per question, with the ratio's difference as its mean
    return Comparison(
        questions=len(first),
        a=float(first.sum() / total),
        b=float(second.sum() / total),
        difference=float(scaled.mean()),
        low=low,
        high=high,
        p_value=permutation_test(scaled, seed=seed),
        differing=int(np.count_nonzero(scaled)),
        detectable=detectable_difference(scaled, least=0.0),
    )


def permutation_test(differences: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value that signs of the paired differences are chance; exact where 2^n <= resamples.

    Only questions that differ carry signs, so only they are permuted. Sampled p-values are (1 + hits) /
    (1 + resamples), never 0 (Phipson and Smyth 2010).

    >>> permutation_test([1, 1, 1, 1, 1, 0, 0])
    0.0625
    """
    moved = _column(differences)
    sizes = np.abs(moved[moved != 0])
    n = len(sizes)
    if n == 0:
        return 1.0
    observed = abs(float(moved.sum())) - 1e-9 * float(sizes.sum())  # equal sums differ by rounding
    if 2**n <= resamples:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ sizes) >= observed))
    random, hits, left = np.random.default_rng(seed), 0, resamples
    while left:
        rows = min(left, max(1, _BLOCK // n))
        signs = 1.0 - 2.0 * random.integers(0, 2, size=(rows, n), dtype=np.int8)
        hits += int(np.count_nonzero(np.abs(signs @ sizes) >= observed))
        left -= rows
    return (1 + hits) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many were looked at; compare each with .05. In the order given.

    Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def wilson_interval(hits: int, of: int) -> Estimate:
    """A share with Wilson's 95% interval (1927): right for small samples and for none or all.

    Raises:
        ValueError: Of nothing.

    >>> [round(x, 3) for x in (wilson_interval(0, 20).low, wilson_interval(0, 20).high)]
    [0.0, 0.161]
    """
    if of == 0:
        raise ValueError("a share of none")
    z = _NORMAL.inv_cdf(0.5 + CONFIDENCE / 2)
    share = hits / of
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z / (1 + z * z / of) * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return Estimate(mean=share, low=max(0.0, centre - reach), high=min(1.0, centre + reach))


def detectable_difference(differences: ArrayLike, *, least: float = 1.0) -> float:
    """The least true difference that a sample like this would show (two-sided 5%, power 80%).

    (1.96 + 0.84) standard errors of the paired difference. Where no question differs, one that does by
    `least` is assumed, so that ten equal answers do not claim to see everything.
    """
    given = _column(differences)
    n = len(given)
    spread = float(given.std(ddof=1)) if n > 1 else 1.0
    spread = max(spread, least * sqrt(1 / n)) if np.ptp(given) == 0 else spread
    return _sensitivity() * spread / sqrt(n)


def questions_needed(differences: ArrayLike, difference: float) -> int:
    """How many questions like these would show a true `difference`."""
    given = _column(differences)
    return ceil(len(given) * (detectable_difference(given) / difference) ** 2)


def sample_says(comparison: Comparison, *, wanted: float = 0.05, scale: float = 100.0, unit: str = "points") -> str:
    """What a sample of this size can and cannot show, in words.

    >>> from dataclasses import replace
    >>> shown = compare([1] * 5 + [0] * 55, [0] * 3 + [1] + [0] * 56)
    >>> sample_says(replace(shown, detectable=0.12))
    'with 60 questions you can see 12 points; for 5 you need about 350'
    """
    seen = comparison.detectable
    words = f"with {comparison.questions:,} questions you can see {seen * scale:.2g} {unit}"
    if seen <= wanted:
        return words
    needed = comparison.questions * (seen / wanted) ** 2
    rounded = round(needed, -1) if needed < 1000 else round(needed, -2)
    return f"{words}; for {wanted * scale:.2g} you need about {rounded:,.0f}"


def percentiles(resampled: Floats, n: int) -> tuple[float, float]:
    """The ends of the 95% percentile interval of a statistic's bootstrap distribution over n questions.

    The plain percentile interval is too narrow for small n (its spread is that of dividing by n, and it has
    no Student's t); the percentiles are widened to make up for both.

    Source: Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 5.3.
    """
    if n < 3:
        return float(resampled.min()), float(resampled.max())
    tail = _NORMAL.cdf(-sqrt(n / (n - 1)) * student_quantile(0.5 + CONFIDENCE / 2, n - 1))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def student_quantile(probability: float, freedom: int) -> float:
    """Student's t, by the expansion of Abramowitz and Stegun 26.7.5: to 3 digits from 4 degrees of freedom.

    >>> round(student_quantile(0.975, 10), 2), round(student_quantile(0.975, 200), 3)
    (2.23, 1.972)
    """
    z, v = _NORMAL.inv_cdf(probability), freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def resampled_sums(columns: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """Column sums of `resamples` bootstrap samples of the rows.

    Shapes: columns (n, k) -> (resamples, k).
    """
    n, k = columns.shape
    random, blocks, left = np.random.default_rng(seed), [], resamples
    while left:
        rows = min(left, max(1, _BLOCK // max(1, n * k)))
        blocks.append(columns[random.integers(0, n, size=(rows, n))].sum(axis=1))
        left -= rows
    return np.concatenate(blocks)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


def _column(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _sensitivity() -> float:
    return _NORMAL.inv_cdf(0.5 + CONFIDENCE / 2) + _NORMAL.inv_cdf(_POWER)
