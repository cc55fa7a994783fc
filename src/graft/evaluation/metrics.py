"""One answer + its references -> a figure from 0 to 1; many -> pooled figures.

Every metric takes the best of several references. They do not know models, questions or files; SQL is in
`sql.py`, JSON and slots are in `structured.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from graft.evaluation.normalising import label_form, normalised
from graft.evaluation.statistics import Estimate, percentiles, resampled_sums

_ROUGE_WORD = re.compile(r"[^\W_]+")
_NOT_THERE = re.compile(
    r"\b(not (in|found in|mentioned in|stated in|given in|part of) (the|these|your|any)|no answer|cannot (be )?answer"
    r"|can't answer|unanswerable|(do|does) not (say|state|mention|contain|answer|know)|don't know"
    r"|not (mentioned|stated|specified|provided|available))",
    re.IGNORECASE,
)


def exact_match(answer: str, references: Sequence[str], *, language: str = "en") -> float:
    """1 where the answer's words are a reference's, by SQuAD's normalisation.

    >>> exact_match("the Eiffel Tower!", ["Eiffel tower"])
    1.0
    """
    words = normalised(answer, language)
    return float(any(words == normalised(reference, language) for reference in references))


def token_f1(answer: str, references: Sequence[str], *, language: str = "en") -> float:
    """Harmonic mean of precision and recall of the answer's words, against the best reference.

    As in SQuAD's official script; where either has no words left, 1 if both have none, else 0 (SQuAD 2).

    >>> round(token_f1("in Paris, France", ["Paris"]), 2)
    0.5
    """
    given = Counter(normalised(answer, language).split())
    return max((_overlap(given, Counter(normalised(r, language).split())) for r in references), default=0.0)


def _overlap(given: Counter[str], wanted: Counter[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def contained(answer: str, references: Sequence[str], *, language: str = "en") -> float:
    """1 where a reference's words stand in the answer, in order and without a gap.

    >>> contained("It is in Paris, France.", ["Paris"]), contained("comparison", ["Paris"])
    (1.0, 0.0)
    """
    words = f" {normalised(answer, language)} "
    wanted = [normalised(reference, language) for reference in references]
    return float(any(f" {one} " in words for one in wanted if one))


def label_accuracy(answer: str, references: Sequence[str]) -> float:
    """1 where the whole answer is a label, but for case, outer punctuation and the kind of space.

    >>> label_accuracy("Card_arrival.", ["card arrival"]), label_accuracy("It is card arrival", ["card arrival"])
    (1.0, 0.0)
    """
    return float(label_form(answer) in {label_form(reference) for reference in references})


def abstention(answer: str, references: Sequence[str]) -> float:
    """1 where the answer says that there is none, in a reference's words or in usual English ones.

    >>> abstention("Not in the documents.", []), abstention("It is 12 metres.", [])
    (1.0, 0.0)
    """
    said = contained(answer, references)
    return float(said or not normalised(answer) or _NOT_THERE.search(answer) is not None)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), against the best reference.

    `rouge-score` without stemming gives the same on ASCII; it drops every other letter, this keeps them.

    >>> round(rouge_l("the cat sat on the mat", ["the cat was on the mat"]), 3)
    0.833
    """
    given = _ROUGE_WORD.findall(answer.lower())
    return max((_lcs_f1(given, _ROUGE_WORD.findall(r.lower())) for r in references), default=0.0)


def _lcs_f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return 0.0
    return 2 * _lcs(given, wanted) / (len(given) + len(wanted))


def _lcs(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, 64 and more cells of the table at a time.

    Source: Hyyrö, Bit-parallel LCS-length computation revisited, 2004.
    """
    where: dict[str, int] = {}
    for i, word in enumerate(first):
        where[word] = where.get(word, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        match = row & where.get(word, 0)
        row = (row + match) | (row - match)
    return (~row & full).bit_count()


def macro_f1(answers: Sequence[str], references: Sequence[Sequence[str]], *, seed: int = 0) -> Estimate:
    """Mean over the true labels of each label's F1, with its bootstrap interval over questions.

    An answer that is no label of the set misses its own and is held against none. The first reference is
    the true label. A resample's mean is over the labels that it holds.
    """
    gold = [label_form(given[0]) for given in references]
    said = [label_form(answer) for answer in answers]
    labels = sorted(set(gold))
    is_gold = np.array([[g == label for label in labels] for g in gold], dtype=np.float64)
    is_said = np.array([[s == label for label in labels] for s in said], dtype=np.float64)
    columns = np.concatenate([is_gold * is_said, is_gold, is_said], axis=1)
    resampled = _macro(resampled_sums(columns, seed=seed, resamples=2_000))
    low, high = percentiles(resampled, len(gold))
    return Estimate(mean=float(_macro(columns.sum(axis=0, keepdims=True))[0]), low=low, high=high)


def _macro(
    sums: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Shapes: (resamples, 3 * labels) of hits, true and said -> (resamples,)."""
    hits, gold, said = np.split(sums, 3, axis=1)
    f1 = np.divide(2 * hits, gold + said, out=np.zeros_like(hits), where=gold + said > 0)
    present = gold > 0
    means: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (f1 * present).sum(axis=1) / present.sum(axis=1)
    return means
