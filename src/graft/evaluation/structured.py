"""JSON answers -> is it JSON, how many of its fields are right, how many slots.

It does not know schemas: a field is right when its value is the reference's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graft.evaluation.normalising import normalised

_MOST_CHARACTERS = 1_000_000
_PAIRED_ITEMS = 200
"""Longest list of objects whose items are paired by likeness; items of longer ones by their place."""


class NotJson(ValueError):
    """The text is not one JSON value."""


def parse_json(text: str) -> Any:
    """One JSON value, as strict as the standard: no code fence around it, no NaN, nothing after it.

    Raises:
        NotJson: With the reason.
    """
    if len(text) > _MOST_CHARACTERS:
        raise NotJson(f"{len(text):,} characters, more than {_MOST_CHARACTERS:,}")
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error) or "nested too deeply") from error


def _refuse(constant: str) -> Any:
    raise NotJson(f"{constant} is not JSON")


def valid_json(answer: str, references: Sequence[str] = ()) -> float:
    """1 where the whole answer is a JSON value.

    >>> valid_json(' {"a": 1} '), valid_json('Here it is: {"a": 1}')
    (1.0, 0.0)
    """
    try:
        parse_json(answer)
    except NotJson:
        return 0.0
    return 1.0


def field_f1(answer: str, references: Sequence[str]) -> float:
    """F1 over the answer's fields (values at their nested paths) against the best reference; 0 if not JSON.

    Lists count without order: their items are paired where they are most alike, so that one missing item
    does not shift all that follow. Text compares without case and outer spaces, 1 equals 1.0, true is not 1.

    >>> field_f1('{"name": "ana", "tags": ["b", "a"]}', ['{"name": "Ana", "tags": ["a", "b"]}'])
    1.0
    >>> round(field_f1('{"name": "Ana"}', ['{"name": "Ana", "age": 3}']), 3)
    0.667
    """
    try:
        given = parse_json(answer)
        return max((_f1(given, parse_json(reference)) for reference in references), default=0.0)
    except (NotJson, RecursionError):
        return 0.0


def _f1(given: Any, wanted: Any) -> float:
    return 2 * _alike(given, wanted) / (_leaves(given) + _leaves(wanted))


def _leaves(value: Any) -> int:
    """Fields that hold a value; an empty object or list is one."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_leaves(item) for item in inner) or 1


def _alike(a: Any, b: Any) -> int:
    """Leaves of `a` that `b` has at the same place."""
    if isinstance(a, dict) and isinstance(b, dict):
        return sum(_alike(a[key], b[key]) for key in a.keys() & b.keys()) if a and b else int(a == b)
    if isinstance(a, list) and isinstance(b, list):
        return _alike_lists(a, b) if a and b else int(a == b)
    if isinstance(a, (dict, list)) or isinstance(b, (dict, list)):
        return 0
    return int(_scalar(a) == _scalar(b))


def _alike_lists(a: list[Any], b: list[Any]) -> int:
    if not any(isinstance(item, (dict, list)) for item in (*a, *b)):
        return (Counter(map(_scalar, a)) & Counter(map(_scalar, b))).total()
    if max(len(a), len(b)) > _PAIRED_ITEMS:
        return sum(_alike(x, y) for x, y in zip(a, b, strict=False))
    scores = sorted(((-_alike(x, y), i, j) for i, x in enumerate(a) for j, y in enumerate(b)))
    taken_a, taken_b, total = set[int](), set[int](), 0
    for score, i, j in scores:
        if i not in taken_a and j not in taken_b:
            taken_a.add(i)
            taken_b.add(j)
            total -= score
    return total


def _scalar(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, (int, float)):
        return ("number", value)
    return ("text", value.strip().casefold())


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """Slots of one answer: found and right, said, and wanted."""

    right: int
    said: int
    wanted: int

    @property
    def f1(self) -> float:
        """1 where nothing was wanted and nothing said."""
        return 2 * self.right / (self.said + self.wanted) if self.said + self.wanted else 1.0


def slot_counts(answer: str, references: Sequence[str]) -> SlotCounts:
    """Slots of one answer against the best reference; both are JSON objects {slot: value or list of values}.

    A slot is right when name and value are (value by SQuAD's normalisation). An answer that is no JSON
    object says no slot. Sum the counts over questions and take the F1 of the sums: the micro F1 that
    Restaurant8k's figures are.

    >>> slot_counts('{"time": "8 pm", "people": "3"}', ['{"time": "8 PM"}'])
    SlotCounts(right=1, said=2, wanted=1)
    """
    said = _slots(answer)
    counts = []
    for reference in references or ("{}",):
        wanted = _slots(reference)
        counts.append(SlotCounts((said & wanted).total(), said.total(), wanted.total()))
    return max(counts, key=lambda count: count.f1)


def slot_f1(answer: str, references: Sequence[str]) -> float:
    """The F1 of `slot_counts` for one question."""
    return slot_counts(answer, references).f1


def _slots(text: str) -> Counter[tuple[str, str]]:
    try:
        value = parse_json(text)
    except NotJson:
        return Counter()
    if not isinstance(value, Mapping):
        return Counter()
    return Counter(
        (slot, normalised(str(one)))
        for slot, given in value.items()
        for one in (given if isinstance(given, list) else [given])
        if one is not None and one != ""
    )


def are_slots(references: Sequence[str]) -> bool:
    """Whether every reference is a flat JSON object: values, or lists of values.

    >>> are_slots(['{"time": "8 pm", "date": ["Monday", "Tuesday"]}']), are_slots(['{"a": {"b": 1}}'])
    (True, False)
    """
    try:
        values = [parse_json(reference) for reference in references]
    except NotJson:
        return False
    flat = all(
        isinstance(value, dict)
        and not any(
            isinstance(inner, (dict, list))
            for given in value.values()
            for inner in (given if isinstance(given, list) else [given] if isinstance(given, dict) else [])
        )
        for value in values
    )
    return flat and bool(values)
