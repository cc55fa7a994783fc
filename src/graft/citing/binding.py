"""a claim's facts + a window -> which of them the window does not hold.

A fact is held if the window, or what stands over it, states the same; a number must not belong to another
sentence's matter, and a name may be understood from around only where no other name stands in its place.
It does not know how well claim and window fit, or what follows from a missing fact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

from graft.citing.facts import Date, Name, Quantity, dates, names, quantities, same_quantity
from graft.citing.windows import Window
from graft.citing.words import content_stems, is_function_word, stem

F = TypeVar("F", Quantity, Date)
Range = tuple[int, int]

_NEAR = 5
"""Words before and after a number that tell what it is the number of."""
_BINDING = 2
"""So many more of a claim's words around a number of another sentence show that the claim took the wrong one."""
_CONTEXT = -1
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_PRONOUN = re.compile(r"\b(?:he|she|they|it|its|his|her|their|this|these|those|er|sie|es|dies\w*)\b", re.IGNORECASE)
_ALIASES = {
    name: spellings
    for spellings in (
        "us|usa|united states",
        "uk|united kingdom|great britain",
        "eu|european union",
    )
    for name in spellings.split("|")
}
_TO = re.compile(r"\s*(?:(?:down |up )?to|until|till|bis|auf|[-–—])\s*", re.IGNORECASE)
_CLAUSE = re.compile(r"[;,|\n]|\b(?:and|but|while|whereas|und|aber)\b|\.\s")
_MODEL = re.compile(r"\b(?!EUR|USD|GBP|CHF)[A-Z][\w-]+ \d+\b")


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim's words and facts. `question` is what it answers."""

    text: str
    stems: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    dates: tuple[Date, ...]
    names: tuple[Name, ...]
    question: str


def read_claim(text: str, *, subject: str, question: str, known: frozenset[str]) -> Claim:
    """Read a claim.

    Args:
        subject: The claim, or question and claim where the claim alone does not say what it is about.
        known: Words that are names in the passages.
    """
    named = tuple(names(text, known=known))
    return Claim(
        text=text,
        stems=tuple(content_stems(subject)),
        quantities=tuple(q for q in quantities(text) if not any(n.start <= q.start < n.end for n in named)),
        dates=tuple(dates(text)),
        names=named,
        question=question,
    )


def missing_facts(claim: Claim, window: Window) -> tuple[Range, ...]:
    """Ranges in the claim of the facts that the window does not hold."""

    def same_date(claimed: Date, stated: Date) -> bool:
        spread_out = stated.day is None and stated.month == claimed.month and str(claimed.day) in window.own
        return claimed.agrees(stated) or (spread_out and claimed.year in (None, stated.year))

    in_millions = "million" in f"{window.context} {window.text}".lower()  # a table may say so in its header

    def same_number(claimed: Quantity, stated: Quantity) -> bool:
        scaled = in_millions and claimed.value == stated.value * 1_000_000
        return scaled or same_quantity(claimed, stated)

    missing = _unstated(claim.text, claim.quantities, _stated(window, _quantities), same_number, _same_unit)
    missing += _unstated(claim.text, claim.dates, _stated(window, _dates), same_date, lambda a, b: True)
    missing += [(name.start, name.end) for name in claim.names if not _is_named(name, claim, window)]
    missing += _turned_round(claim, window)
    if not missing and _crossed(claim, window):
        missing += [(name.start, name.end) for name in claim.names]
    return tuple(missing)


def conflicts(claim: Claim, missing: Sequence[Range], window: Window) -> bool:
    """Whether, in place of a fact that it lacks, the window states one of the same kind that the claim lacks."""
    units = {q.unit for q in claim.quantities if (q.start, q.end) in missing}
    if any(
        q.unit in units and not any(same_quantity(c, q) for c in claim.quantities) for q in _quantities(window.text)
    ):
        return True
    lacks_date = any((d.start, d.end) in missing for d in claim.dates)
    return lacks_date and any(not any(c.agrees(d) for c in claim.dates) for d in _dates(window.text))


@lru_cache(maxsize=4096)
def _quantities(text: str) -> tuple[Quantity, ...]:
    """The numbers of a passage that are not part of a model's name."""
    models = [match.span() for match in _MODEL.finditer(text)]
    return tuple(q for q in quantities(text) if q.unit or not any(a <= q.start < b for a, b in models))


@lru_cache(maxsize=4096)
def _dates(text: str) -> tuple[Date, ...]:
    return tuple(dates(text))


@lru_cache(maxsize=4096)
def _names(text: str) -> tuple[Name, ...]:
    return tuple(names(text))


def _may_be_compared(a: Quantity, b: Quantity) -> bool:
    return a.unit == b.unit or not a.unit or not b.unit


def _same_unit(a: Quantity, b: Quantity) -> bool:
    return a.unit == b.unit


@dataclass(frozen=True, slots=True)
class _Stated:
    """The words around a stated fact, and which sentence of the window it is in."""

    around: frozenset[str]
    sentence: int


def _turned_round(claim: Claim, window: Window) -> list[Range]:
    """The numbers of a span that the window states the other way round: "from 20 to 10" for "from 10 to 20"."""
    stated = _spans(window.text, _quantities(window.text))
    return [
        (number.start, number.end)
        for low, high in _spans(claim.text, claim.quantities)
        if not same_quantity(low, high)
        and any(same_quantity(low, b) and same_quantity(high, a) for a, b in stated)
        and not any(same_quantity(low, a) and same_quantity(high, b) for a, b in stated)
        for number in (low, high)
    ]


def _spans(text: str, numbers: Sequence[Quantity]) -> list[tuple[Quantity, Quantity]]:
    return [(a, b) for a, b in pairwise(numbers) if _TO.fullmatch(text[a.end : b.start])]


def _stated(window: Window, read: Callable[[str], Sequence[F]]) -> list[tuple[F, _Stated]]:
    found = [
        (fact, _Stated(_around(window.text, fact.start, fact.end), int(fact.start >= window.first_sentence)))
        for fact in read(window.text)
    ]
    return found + [
        (fact, _Stated(_around(window.context, fact.start, fact.end), _CONTEXT)) for fact in read(window.context)
    ]


def _unstated(
    text: str,
    facts: Sequence[F],
    stated: Sequence[tuple[F, _Stated]],
    same: Callable[[F, F], bool],
    comparable: Callable[[F, F], bool],
) -> list[Range]:
    missing = []
    for fact in facts:
        agreeing = [(other, place) for other, place in stated if same(fact, other)]
        if not agreeing or _is_elsewhere(text, fact, agreeing, stated, same, comparable):
            missing.append((fact.start, fact.end))
        elif len(agreeing) == 1 and any(not same(f, fact) and same(f, agreeing[0][0]) for f in facts):
            missing.append((fact.start, fact.end))  # two different facts of the claim need two in the window
    return missing


def _is_elsewhere(
    text: str,
    fact: F,
    agreeing: Sequence[tuple[F, _Stated]],
    stated: Sequence[tuple[F, _Stated]],
    same: Callable[[F, F], bool],
    comparable: Callable[[F, F], bool],
) -> bool:
    """Whether another sentence of the window speaks of the claim's matter, and with another number."""
    around = _around(text, fact.start, fact.end)
    sentences: set[int] = {place.sentence for _, place in agreeing}
    best = max(len(around & place.around) for _, place in agreeing)
    return any(
        len(around & place.around) >= best + _BINDING
        for other, place in stated
        if place.sentence not in {*sentences, _CONTEXT} and comparable(fact, other) and not same(fact, other)
    )


def _around(text: str, start: int, end: int) -> frozenset[str]:
    """Stems of the words next to a range, within its sentence."""
    before = re.split(r"[.;!?\n|]\s", text[max(0, start - 60) : start])[-1]
    after = re.split(r"[.;!?\n|](?:\s|$)", text[end : end + 60])[0]
    return frozenset(content_stems(before)[-_NEAR:] + content_stems(after)[:_NEAR])


def _is_named(name: Name, claim: Claim, window: Window) -> bool:
    here = f"{window.context} {window.text}".lower()
    if _holds(name, here, window.stems):
        return True
    if _PRONOUN.search(window.text) and _holds(name, f"{here} {window.before.lower()}", window.stems):
        return True
    if window.is_row:
        return False  # its header and its cells say all of what it is about
    nearby = f"{window.passage_text} {claim.question}".lower()
    return _holds(name, nearby, window.stems) and not _names_another(claim, window)


def _holds(name: Name, text: str, stems: frozenset[str]) -> bool:
    """Whether a lower-case text holds every part of a name; a model's number right after its word."""
    text = text.replace("’", "'")
    aliases = _ALIASES.get(" ".join(part for part in name.parts if not is_function_word(part)))
    if aliases is not None:
        return re.search(rf"\b(?:{aliases})\b", text) is not None
    return all(
        re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None or stem(part) in stems
        for whole in name.parts
        for part in ([whole] if " " in whole else whole.split("-"))
        if part and not is_function_word(part)
    )


def _names_another(claim: Claim, window: Window) -> bool:
    """Whether the window, or the last model named before it, is somebody or something else than the claim's."""
    own = _words(claim.text)
    models = _MODEL.findall(window.text) or _MODEL.findall(window.passage_text[: window.offset])[-1:]
    return any(own.isdisjoint(name.parts) for name in _names(window.text)) or any(
        not _words(model) <= own for model in models
    )


def _crossed(claim: Claim, window: Window) -> bool:
    """Whether a name of the claim and its number belong to different clauses, each with a partner of its own.

    "In Lyon within 14 days, in Oslo within 30": nothing there says "In Oslo within 14 days".
    """
    if window.is_row or len(claim.names) == 0 or len(claim.quantities) == 0:
        return False
    clauses = [part for part in _CLAUSE.split(window.text) if part.strip()]
    own = _words(claim.text)
    for quantity in claim.quantities:
        with_number = [c for c in clauses if any(same_quantity(quantity, q) for q in _quantities(c))]
        with_other = [
            c for c in clauses if c not in with_number and any(_may_be_compared(quantity, q) for q in _quantities(c))
        ]
        for name in claim.names:
            beside = any(_holds(name, c.lower(), frozenset()) for c in with_number)
            apart = any(_holds(name, c.lower(), frozenset()) for c in with_other)
            stranger = any(own.isdisjoint(n.parts) for c in with_number for n in _names(f"- {c}"))
            if with_number and not beside and apart and stranger:
                return True
    return False


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower().replace("’", "'")))
