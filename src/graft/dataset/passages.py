"""A collection -> passages to ask questions about: whole sentences, exact ranges, every document in turn.

They are longer than what is searched, so that a question can be about more than one sentence. It does not
know models.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

from graft.access import Principals
from graft.citing.sentences import sentences
from graft.store import Store

_MOST_CHARACTERS = 1_200
_LEAST_CHARACTERS = 120
"""Shorter ones, a heading or a signature, hold nothing to ask about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A range of one version of a document; `document` is the name people know it by."""

    document: str
    document_id: str
    version: int
    title: str
    start: int
    end: int


def places(store: Store, *, principals: Principals, collection: str | None = None, seed: int = 0) -> list[Place]:
    """All passages that `principals` may read, in a random order in which every document comes early.

    Raises:
        NotFound: No such collection for them.
    """
    by_document: defaultdict[str, list[Place]] = defaultdict(list)
    for record in store.documents(collection, principals=principals):
        text = store.version(record.id, record.version, principals=principals).text
        by_document[record.id] = [
            Place(
                document=record.uri,
                document_id=record.id,
                version=record.version,
                title=record.title,
                start=start,
                end=end,
            )
            for start, end in cut(text)
        ]
    ranked: list[tuple[int, str, Place]] = []
    for own in by_document.values():
        ordered = sorted((_random(seed, place), place.start, place) for place in own)
        ranked += [(rank, key, place) for rank, (key, _, place) in enumerate(ordered)]
    return [place for _, _, place in sorted(ranked, key=lambda item: item[:2])]


def cut(text: str) -> list[tuple[int, int]]:
    """Ranges of whole sentences of up to 1,200 characters; at a blank line once half of that is reached.

    >>> cut("Too short to ask about.")
    []
    """
    found: list[tuple[int, int]] = []
    start = end = -1
    for first, last in sentences(text):
        full = last - start > _MOST_CHARACTERS
        pause = end - start > _MOST_CHARACTERS // 2 and "\n\n" in text[end:first]
        if start >= 0 and (full or pause):
            found.append((start, end))
            start = -1
        start = first if start < 0 else start
        end = last
    if start >= 0:
        found.append((start, end))
    return [(a, min(b, a + 2 * _MOST_CHARACTERS)) for a, b in found if b - a >= _LEAST_CHARACTERS]


def _random(seed: int, place: Place) -> str:
    return hashlib.sha256(f"{seed}:{place.document}:{place.start}".encode()).hexdigest()
