"""Texts -> which of them are nearly the same: MinHash signatures (datasketch), banded and sorted in numpy.

Sorting one band at a time holds a million signatures in 256 MB; an index of Python dictionaries
(datasketch.MinHashLSH) would take over ten times that. It does not know what the texts are for.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from graft.errors import UsageError

SHINGLE = 5
"""Characters. One changed word of ten leaves about 80% of the 5-grams of a sentence, but only 60% of its word
pairs and 50% of its triples, so short messages, which are most of what is labelled, need characters; and
characters serve scripts without spaces."""

PERMUTATIONS = 64
"""Length of a signature; a similarity of .8 is estimated to within .05 (one standard deviation)."""

_ROWS = 4
"""Of a band; with 16 bands of 4 a pair at .8 is found with probability .9998, at .9 always, at .5 in .64."""

_MOST_ROUNDS = 32
_MOST_CHARACTERS = 50_000
_AT_ONCE = 1 << 18
_SPACING = re.compile(r"(?:[\s,;:\"'“”‘’…¿¡]|(?<![.!?])[.!?]+(?=[\s\"'”’)]|$))+")
"""What prose may differ in; not the signs that code and sums differ in: "x > 2" is not "x < 2"."""

Signatures = NDArray[np.uint32]
Links = NDArray[np.int64]


def normalised(text: str) -> str:
    """What counts as the same text: without case, spacing, the punctuation of prose and typographic variants.

    >>> normalised("  Where's my “Card”?! ")
    'where s my card'
    >>> normalised("x != 2.5") == normalised("x = 2.5")
    False
    """
    return _SPACING.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def shingles(text: str) -> set[str]:
    """Its character 5-grams, once normalised; a shorter text is its own.

    >>> sorted(shingles("my cards"))
    [' card', 'cards', 'my ca', 'y car']
    """
    plain = normalised(text)[:_MOST_CHARACTERS]
    return {plain[at : at + SHINGLE] for at in range(max(1, len(plain) - SHINGLE + 1))}


def jaccard(one: str, other: str) -> float:
    """Share of 5-grams that two texts have in common, exactly.

    >>> jaccard("Where is my card?", "where is my card")
    1.0
    """
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def signatures(texts: Iterable[str]) -> Iterator[Signatures]:
    """One signature for each text, in order. Shapes: (PERMUTATIONS,)."""
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise UsageError(
            "near-duplicates need the package datasketch", fix="pip install 'graft-llm[tune]'"
        ) from error
    sets = ([part.encode() for part in shingles(text)] for text in texts)
    for minhash in MinHash.generator(sets, num_perm=PERMUTATIONS, hashfunc=zlib.crc32):
        yield minhash.hashvalues


def stacked(parts: Iterable[Signatures]) -> Signatures:
    """Signatures as one array, which is never held twice. Shapes: (n, PERMUTATIONS)."""
    rows = bytearray()
    for part in parts:
        rows += part.tobytes()
    return np.frombuffer(rows, dtype=np.uint32).reshape(-1, PERMUTATIONS)


def near_links(of: Signatures, *, threshold: float) -> Links:
    """Pairs of rows whose estimated similarity reaches the threshold, enough of them to connect every group.

    Within a band's bucket each row is held against the bucket's first, those that differ against the first of
    these, and so on: n rows that are all alike give n - 1 pairs, not n².
    Shapes: (pairs, 2), the earlier row first.
    """
    found: list[Links] = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, PERMUTATIONS, _ROWS):
        keys = _keys(of[:, start : start + _ROWS])
        members = np.argsort(keys, kind="stable")
        keys = keys[members]
        for _ in range(_MOST_ROUNDS):
            if len(members) < 2:
                break
            first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
            heads = np.repeat(members[first], np.diff(np.r_[first, len(keys)]))
            rest = np.flatnonzero(heads != members)
            if not rest.size:
                break
            same = similarities(of, heads[rest], of, members[rest]) >= threshold
            found.append(np.stack([heads[rest[same]], members[rest[same]]], axis=1))
            members, keys = members[rest[~same]], keys[rest[~same]]
    return np.unique(np.concatenate(found), axis=0)


def near_across(of: Signatures, base: Signatures, *, threshold: float) -> Links:
    """For each row that has one, a row of `base` that it nearly equals. Shapes: (pairs, 2): row, base row."""
    best = np.full(len(of), -1, dtype=np.int64)
    score = np.full(len(of), threshold, dtype=np.float64)
    if not len(base) or not len(of):
        return np.empty((0, 2), dtype=np.int64)
    for start in range(0, PERMUTATIONS, _ROWS):
        keys = _keys(base[:, start : start + _ROWS])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        wanted = _keys(of[:, start : start + _ROWS])
        for step in range(_MOST_ROUNDS):
            at = np.searchsorted(keys, wanted) + step
            rows = np.flatnonzero((at < len(keys)) & (keys[np.minimum(at, len(keys) - 1)] == wanted))
            if not rows.size:
                break
            others = order[at[rows]]
            similar = similarities(of, rows, base, others)
            better = (similar > score[rows]) | ((similar >= score[rows]) & (best[rows] < 0))
            best[rows[better]], score[rows[better]] = others[better], similar[better]
    rows = np.flatnonzero(best >= 0)
    return np.stack([rows, best[rows]], axis=1)


def similarities(one: Signatures, rows: Links, other: Signatures, others: Links) -> NDArray[np.float64]:
    """Estimated similarity of each pair. Shapes: rows, others and the result (n,)."""
    return np.concatenate(
        [np.empty(0)]
        + [
            np.mean(one[rows[at : at + _AT_ONCE]] == other[others[at : at + _AT_ONCE]], axis=1)
            for at in range(0, len(rows), _AT_ONCE)
        ]
    )


def components(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """The group of each of `count` items, named by its first member.

    >>> components(4, [(0, 2), (2, 3)])
    [0, 1, 0, 0]
    """
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(item) for item in range(count)]


def _keys(band: Signatures) -> NDArray[np.uint64]:
    """One number a row, equal where the band is; a rare collision only costs a comparison."""
    keys = np.zeros(len(band), dtype=np.uint64)
    for column in range(band.shape[1]):
        keys = (keys ^ band[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
