"""Text -> the words that count when two answers are compared.

SQuAD's normalisation as MLQA extends it: lower case, no punctuation, no articles, single spaces; Chinese,
Japanese, Korean and Thai by character. On English text in ASCII it is SQuAD's own, word for word.
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache

_ARTICLES = {
    "ar": r"\bال",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "fr": r"\b(un|une|des|le|la|les)\b|\b[ld](?=['’])",
    "it": r"\b(un|uno|una|il|lo|la|i|gli|le)\b|\b(l|un)(?=['’])",
    "nl": r"\b(een|de|het)\b",
    "pt": r"\b(um|uma|uns|umas|o|a|os|as)\b",
}
"""What is dropped, by language; a language that is not here (Russian, Chinese, Hindi) has none."""

_ONE_BY_ONE = re.compile(
    "([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0e7f\U00020000-\U0002fa1f])"
)


def normalised(text: str, language: str = "en") -> str:
    """The words of an answer that are compared, joined by single spaces.

    >>> normalised("The  Eiffel Tower, (Paris)!")
    'eiffel tower paris'
    >>> normalised("Der Rhein.", "de"), normalised("巴黎", "zh")
    ('rhein', '巴 黎')
    """
    lowered = text.lower()
    if language in ("fr", "it"):  # l'eau: the article ends at the apostrophe, which the next step removes
        lowered = re.sub(_ARTICLES[language], " ", lowered)
    kept = "".join(character for character in lowered if not _is_punctuation(character))
    if language in _ARTICLES:
        kept = re.sub(_ARTICLES[language], " ", kept)
    return " ".join(_ONE_BY_ONE.sub(r" \1 ", kept).split())


def label_form(text: str) -> str:
    """A label as it is compared: without case, outer punctuation, and the difference of " ", "_" and "-".

    >>> label_form(" `Card_Arrival`. ") == label_form("card arrival")
    True
    """
    spaced = re.sub(r"[\s_\-]+", " ", text.casefold())
    return spaced.strip(string.punctuation + string.whitespace + "“”‘’«»")


@lru_cache(4096)
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
