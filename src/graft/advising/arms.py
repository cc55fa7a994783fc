"""an arm's name -> what it is made of. The arms are those of `graft compare`.

It does not know costs or rules.
"""

from __future__ import annotations

import re
from typing import Literal

Approach = Literal["neither", "retrieval", "tuning", "both"]

ARMS = ("base", "few-shot", "rag", "tuned", "tuned+rag")
"""Those whose costs are estimated, from the simplest to the most laborious."""

_APPROACHES: dict[str, Approach] = {
    "base": "neither",
    "few-shot": "neither",
    "rag": "retrieval",
    "tuned": "tuning",
    "retrieval-aware": "tuning",
    "tuned+rag": "both",
    "retrieval-aware+rag": "both",
}


_SEED = re.compile(r" \(seed \d+\)\Z")


def approach_of(arm: str) -> Approach | None:
    """What an arm is made of; None for a control without a model, and every other name.

    >>> approach_of("tuned+rag"), approach_of("tuned (seed 2)"), approach_of("nearest-vote")
    ('both', 'tuning', None)
    """
    return _APPROACHES.get(_SEED.sub("", arm))


def place_of(arm: str) -> int:
    """From the simplest arm, 0, to the most laborious; `approach_of` knows it."""
    return tuple(_APPROACHES).index(_SEED.sub("", arm))


def costed_as(arm: str) -> str:
    """The arm whose cost lines an arm has: retrieval-aware tuning costs what tuning costs.

    >>> costed_as("retrieval-aware+rag"), costed_as("tuned (seed 2)")
    ('tuned+rag', 'tuned')
    """
    return _SEED.sub("", arm).replace("retrieval-aware", "tuned")


def retrieves(arm: str) -> bool:
    return approach_of(arm) in ("retrieval", "both")


def is_tuned(arm: str) -> bool:
    return approach_of(arm) in ("tuning", "both")
