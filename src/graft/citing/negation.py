"""claim + aligned passage -> do they say the opposite?

Clause by clause: each clause of the claim is laid beside the passage's clause that shares most of its
words, and the two must hold an even or both an odd number of negations ("not", "never", "without"). Words
that deny softly ("only", "unless", "excluded") may stand for a negation on one side, so where they occur
on one side only nothing is concluded. It does not know whether the two speak of the same thing at all.
"""

from __future__ import annotations

import re
from itertools import pairwise

from graft.citing.words import content_stems

_HARD = re.compile(
    r"\b(?:not|cannot|never|no longer|none|neither|nor|no|without|nobody|nothing|nowhere|\w+n['’]t|"
    r"prohibit\w*|forb[ai]d\w*|banned|excluded|refused|rejected|verboten|untersagt|ausgeschlossen|"
    r"nicht|keine?[rnms]?|nie|niemals|ohne|weder)\b",
    re.IGNORECASE,
)
_SOFT = re.compile(
    r"\b(?:bans?|exclud(?:e|es|ing)|exclusi\w+|exempt\w*|refus(?:e|es|al)|den(?:y|ies|ied)|rejects?|"
    r"fail\w*|void\w*|unless|except\w*|lack\w*|absen\w*|instead|rather|avoid\w*|stop\w*|ceas\w*|only|solely|free|nil|"
    r"waive\w*|lapse\w*|expir\w*|forfeit\w*|discourag\w*|hardly|rarely|zero|"
    r"un(?:able|available|allowed|authori[sz]ed|necessary|needed|paid|used|likely|affected|changed|supported|safe|"
    r"suitable|refundable)\w*|non-?\w+|in(?:eligible|valid|sufficient|admissible|complete)\w*|impossible|"
    r"ir(?:revocabl|reversibl)\w*|dis(?:allow|continu|abl|qualif)\w*|"
    r"nur|sofern|außer|unzulässig)\b",
    re.IGNORECASE,
)
_NOT_NEGATING = re.compile(
    r"\b(?:not only|(?:no|not) later than|(?:no|not) more than|(?:no|not) less than|(?:no|not) fewer than|"
    r"(?:must |may |does |do |shall )?not exceed\w*|not including|no matter|no\.\s?\d|whether or not|nicht nur)\b",
    re.IGNORECASE,
)
_MAY_EXCEED = re.compile(r"\b(?:may|can|must|might|does|do) exceed\b", re.IGNORECASE)
_LIMITED = re.compile(r"\bnot exceed\b|\bat most\b|\b(?:no|not) more than\b|\bup to\b|\bmaximum\b", re.IGNORECASE)
_OPPOSITES = [
    tuple(re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for words in pair)
    for pair in (
        ("at least|minimum|(?:no|not) less than|or more", "at most|maximum|(?:no|not) more than|up to|not exceed"),
        ("above|more than|over", "below|less than|under"),
        ("after", "before|until"),
        (
            "ris(?:e|es|en|ing)|rose|increas\\w+|grew|grow\\w*",
            "fall(?:s|en|ing)?|fell|decreas\\w+|drop\\w*|reduc\\w+",
        ),
    )
]
_BREAK = (
    r"[;:()–—|!?]|,|\.\s|\b(?:but|however|although|though|while|whereas|unless|except|if|because|until|when|"
    r"aber|sondern|sofern|wenn|außer)\b"
)
_COARSE = re.compile(_BREAK, re.IGNORECASE)
_FINE = re.compile(rf"{_BREAK}|\b(?:and|or|und|oder)\b", re.IGNORECASE)
_SAME_MATTER = 0.5
"""Share of a claim's clause that the passage's clause must hold, for the two to be compared."""


def opposed(claim: str, passage: str) -> bool:
    """Whether claim and passage, taken to be about the same thing, differ in polarity.

    >>> opposed("Managers may approve travel.", "Managers may not approve travel.")
    True
    >>> opposed("Sharing a password is never allowed.", "Passwords must not be shared.")
    False
    >>> opposed("Bikes can be returned.", "Gift cards are not refundable, but bikes can be returned.")
    False
    >>> opposed("Cats are not allowed.", "No dogs and cats are allowed.")
    False
    """
    claim, passage = " ".join(claim.split()), " ".join(passage.split())
    limited = _LIMITED.search(passage) is not None
    if _turned_round(claim, passage):
        return True
    claim, passage = _NOT_NEGATING.sub(" ", claim), _NOT_NEGATING.sub(" ", passage)
    if len(_HARD.findall(claim)) % 2 and not _HARD.search(passage) and not _soft(passage) - _soft(claim):
        return True  # a row of a table, say, that denies nothing
    if _MAY_EXCEED.search(claim) and not _MAY_EXCEED.search(passage) and limited:
        return True
    return all(_opposed_in(claim, passage, breaks) for breaks in (_COARSE, _FINE))


def _turned_round(claim: str, passage: str) -> bool:
    """Whether the claim has one word of a pair of opposites where the passage has only the other."""
    if _HARD.search(claim) or _HARD.search(passage):
        return False  # "not below 10" may mean "above 10"
    for pair in _OPPOSITES:
        for one, other in (pair, pair[::-1]):
            if one.search(claim) and not other.search(claim) and other.search(passage) and not one.search(passage):
                return True
    return False


def _opposed_in(claim: str, passage: str, breaks: re.Pattern[str]) -> bool:
    theirs = [(part, frozenset(content_stems(part))) for part in _clauses(passage, breaks)]
    for part in _clauses(claim, breaks):
        words = frozenset(content_stems(part))
        beside, shared = max(theirs, key=lambda their: len(words & their[1]), default=("", frozenset()))
        if not words or len(words & shared) < _SAME_MATTER * len(words) or not _parity_differs(part, beside):
            continue
        elsewhere = words - shared  # "except in the plant" denies in a clause of its own
        if not any(held & elsewhere and (_HARD.search(text) or _SOFT.search(text)) for text, held in theirs):
            return True
    return False


def _clauses(text: str, breaks: re.Pattern[str]) -> list[str]:
    """Parts of a text, each beginning with the word that broke it off."""
    starts = [0, *(match.start() for match in breaks.finditer(text)), len(text)]
    return [part for a, b in pairwise(starts) if (part := text[a:b].strip(" ,;:.|()\n"))]


def _parity_differs(one: str, other: str) -> bool:
    if len(_HARD.findall(one)) % 2 == len(_HARD.findall(other)) % 2:
        return False
    return not _soft(one) ^ _soft(other)


def _soft(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _SOFT.findall(text))
