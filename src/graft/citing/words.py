"""text -> stems of its content words, for comparing a claim with a passage.

It does not know numbers, names or negation (facts).
"""

from __future__ import annotations

import re
from functools import lru_cache
from threading import Lock

import snowballstemmer

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_STOP = frozenset(
    """a an the this that these those of to in on at by for from with as into onto upon over under per via and or but
    if then than so such is are was were be been being am do does did done has have had having will would shall
    should can could may might must it its it's he she they them their his her our your you we us i me my mine
    who whom whose which what when where why how there here also both each any all some only just very more most
    other another same own about between during before after up down out off again further once not no nor never
    none neither without cannot can't won't don't doesn't didn't isn't aren't wasn't weren't shouldn't mustn't
    der die das den dem des ein eine einer eines einem einen und oder aber ist sind war waren wird werden mit von
    zu zum zur im in am an auf für bei nach aus über unter vor als wie auch nur nicht kein keine keiner""".split()
)
_stemmer = snowballstemmer.stemmer("english")
_stemmer_lock = Lock()  # the stemmer keeps the word in itself


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """The stem of one word, lower case.

    >>> stem("reimbursed") == stem("Reimbursement")
    True
    """
    lowered = word.lower().replace("’", "'").removesuffix("'s")
    with _stemmer_lock:
        stemmed: str = _stemmer.stemWord(lowered)
    # Snowball keeps some nouns apart from their verbs: reimburs-, reimbursement.
    return stemmed.removesuffix("ement").removesuffix("ment") if len(stemmed) > 7 else stemmed


def is_function_word(word: str) -> bool:
    """Whether a word carries grammar rather than meaning ("the", "must", "nicht")."""
    return word.lower() in _STOP


def _is_empty(word: str) -> bool:
    acronym = word.isupper() and len(word) > 1  # "US" is not "us", "IT" not "it"
    return word.lower() in _STOP and not acronym


def content_stems(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order; each character counts in scripts without spaces.

    >>> content_stems("The employees' hotel was not booked.")
    ['employe', 'hotel', 'book']
    """
    stems = [stem(word) for word in _WORD.findall(text) if not _is_empty(word) and not _CJK.search(word)]
    return stems + _CJK.findall(text)
