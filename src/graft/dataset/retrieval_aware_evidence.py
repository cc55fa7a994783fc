"""an example's evidence + a hit -> whether the hit holds it, or the answer by chance.

It does not know searches or prompts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from graft.dataset.examples import Example
from graft.retrieval import Hit

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A document, and what it says word for word, white space aside."""

    document: str
    quote: str


def evidence_of(example: Example) -> tuple[Evidence, ...]:
    """What `extra["evidence"]` lists; entries without document and quote are passed over.

    >>> evidence_of(Example(id="a", messages=(), extra={"evidence": [{"document": "a.md", "quote": "8 days"}]}))
    (Evidence(document='a.md', quote='8 days'),)
    """
    listed = example.extra.get("evidence")
    given = listed if isinstance(listed, list) else []
    return tuple(
        Evidence(document=str(one["document"]), quote=str(one["quote"]))
        for one in given
        if isinstance(one, dict) and one.get("document") and str(one.get("quote", "")).strip()
    )


def holds(hit: Hit, evidence: Evidence) -> bool:
    """Whether the quote stands in a hit of its document."""
    return hit.document == evidence.document and _plain(evidence.quote) in _plain(f"{hit.context} {hit.text}")


def holds_answer(hit: Hit, answer: str) -> bool:
    """Whether the answer's words stand in a hit, in order and without a gap, wherever it is from."""
    return f" {_words(answer)} " in f" {_words(hit.text)} "


def _plain(text: str) -> str:
    return " ".join(text.replace("|", " ").split())


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))
