"""A ranking and its judgements -> nDCG; values per query -> a confidence interval. Checked against trec_eval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def ndcg(ranking: Sequence[str], judged: Mapping[str, int], *, k: int = 10) -> float:
    """Normalised discounted cumulative gain of the first k, as trec_eval's `ndcg_cut`.

    Args:
        ranking: Documents, best first, none twice.
        judged: Document -> grade; a document that is absent has grade 0.
    Returns: DCG / ideal DCG with DCG = sum of grade / log2(rank + 1); 0 where nothing is relevant.
    Source: Järvelin, Kekäläinen, TOIS 2002, with the grade itself as the gain.

    >>> ndcg(["x", "a"], {"a": 1})
    0.6309297535714575
    """
    gains = [max(0, judged.get(document, 0)) for document in ranking[:k]]
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:k]
    return _dcg(gains) / _dcg(ideal) if ideal else 0.0


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def mean_interval(values: Sequence[float], *, samples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95% bootstrap interval of the mean over queries."""
    array = np.asarray(values)
    drawn = np.random.default_rng(seed).integers(0, len(array), size=(samples, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
