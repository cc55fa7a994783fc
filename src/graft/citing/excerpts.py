"""question + passage -> the part of the passage to show first.

It does not know terminals or pages.
"""

from __future__ import annotations

import re

from graft.citing.words import content_stems

_WORD = re.compile(r"\S+")


def excerpt(question: str, passage: str, *, characters: int) -> tuple[int, int]:
    """The range of at most so many characters that holds most of the question's words.

    It is cut between words, and within one that is longer by itself.

    Returns: (start, end) in `passage`; of equals the one with those words in its middle, the beginning where
        no word is shared.

    >>> text = "Bikes are sold in May. " * 5 + "A service costs 90 EUR."
    >>> start, end = excerpt("What does a service cost?", text, characters=40)
    >>> text[start:end]
    'are sold in May. A service costs 90 EUR.'
    """
    if len(passage) <= characters:
        return 0, len(passage)
    asked = frozenset(content_stems(question))
    words = [(m.start(), m.end(), asked.intersection(content_stems(m.group()))) for m in _WORD.finditer(passage)]
    best, best_rank, first = (0, 0), (-1, 0), 0
    for last, (_, end, _) in enumerate(words):
        while first < last and end - words[first][0] > characters:
            first += 1
        if last + 1 < len(words) and words[last + 1][1] - words[first][0] <= characters:
            continue  # another word fits
        held = [word for word in words[first : last + 1] if word[2]]
        found = len(frozenset().union(*(stems for *_, stems in held)))
        start = words[first][0]
        off_centre = abs((held[0][0] - start) - (end - held[-1][1])) if held else start
        if (rank := (2 * found + len(held), -off_centre)) > best_rank:
            best, best_rank = (start, min(end, start + characters)), rank
    return best
