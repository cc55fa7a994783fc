"""a true claim -> false ones, each changed in one number, date, name or by one negation.

For measuring a verifier on your own documents: what it lets pass of these, and what it flags of the true
ones. It does not know how claims are verified.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graft.citing.facts import dates, names, quantities

_AUXILIARY = re.compile(
    r"\b(is|are|was|were|must|may|can|will|shall|should|has|have|does|do|did|would|could)\b(?! not\b)(?! never\b)"
)
_NEGATION = re.compile(r"\b(?:(does|do|did) not|(cannot)|not|never|no longer)\b\s*")
_MONTHS = "January February March April May June July August September October November December".split()


@dataclass(frozen=True, slots=True)
class FalseClaim:
    """A claim made false; `kind` is number, date, name or negation."""

    kind: str
    text: str
    original: str


def falsify(claim: str, *, other_names: Sequence[str], seed: int = 0) -> list[FalseClaim]:
    """One false claim of each kind that the claim allows.

    Args:
        other_names: Proper names to put in place of the claim's own.
        seed: Chooses which number, which name and what is put there.

    >>> [f.text for f in falsify("Ana Keller may approve 300 EUR.", other_names=["Tom Brandt"])]
    ['Ana Keller may approve 200 EUR.', 'Tom Brandt may approve 300 EUR.', 'Ana Keller may not approve 300 EUR.']
    """
    chance = random.Random(f"{seed}:{claim}")
    found: list[FalseClaim] = []
    for kind, changed in (
        ("number", _other_number(claim, chance)),
        ("date", _other_date(claim, chance)),
        ("name", _other_name(claim, other_names, chance)),
        ("negation", _negated(claim)),
    ):
        if changed is not None and changed != claim:
            found.append(FalseClaim(kind, changed, claim))
    return found


def _other_number(claim: str, chance: random.Random) -> str | None:
    in_names = [(n.start, n.end) for n in names(claim)]
    choices = []
    for quantity in quantities(claim):
        digits = re.search(r"\d[\d.,]*\d|\d", claim[quantity.start : quantity.end])
        inside_name = any(a <= quantity.start < b for a, b in in_names)
        if digits and not inside_name:
            choices.append((quantity.start + digits.start(), quantity.start + digits.end()))
    if not choices:
        return None
    start, end = chance.choice(choices)
    old = claim[start:end]
    first = old[0]
    other = chance.choice([d for d in "123456789" if d != first])
    return claim[:start] + other + old[1:] + claim[end:]


def _other_date(claim: str, chance: random.Random) -> str | None:
    for date in dates(claim):
        text = claim[date.start : date.end]
        month = next((m for m in _MONTHS if m in text), None)
        if month is not None:
            new = text.replace(month, chance.choice([m for m in _MONTHS if m != month]))
        elif date.year is not None:
            new = text.replace(str(date.year), str(date.year + chance.choice([-2, -1, 1, 3])))
        else:
            continue
        return claim[: date.start] + new + claim[date.end :]
    return None


def _other_name(claim: str, other_names: Sequence[str], chance: random.Random) -> str | None:
    found = [n for n in names(claim) if all(not re.search(r"\d|@|/", part) for part in n.parts)]
    if not found:
        return None
    chosen = chance.choice(found)
    own = set(chosen.parts)
    strangers = [n for n in other_names if own.isdisjoint(n.lower().split()) and n not in claim]
    if not strangers:
        return None
    return claim[: chosen.start] + chance.choice(strangers) + claim[chosen.end :]


def _negated(claim: str) -> str | None:
    negation = _NEGATION.search(claim)
    if negation:
        kept = "can " if negation[2] else ""
        return claim[: negation.start()] + kept + claim[negation.end() :]
    auxiliary = _AUXILIARY.search(claim)
    if auxiliary:
        return f"{claim[: auxiliary.end()]} not{claim[auxiliary.end() :]}"
    return None


def all_names(texts: Sequence[str]) -> Iterator[str]:
    """The proper names of two or three words that some texts hold, each once."""
    seen: set[str] = set()
    for text in texts:
        for name in names(text):
            written = text[name.start : name.end].strip()
            if 2 <= len(written.split()) <= 3 and not re.search(r"\d|@|/", written) and written not in seen:
                seen.add(written)
                yield written
