"""Rows of a batch -> segments, so that what several rows begin with is computed once.

Rows that ask about the same passages differ only in their last tokens. A tree of what they share gives the very
loss and gradient of each row computed alone (hidden states look back only, so a beginning does not depend on what
follows it; its gradient is the sum over all that read it), at the price of the tree's tokens.
It does not know models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_WORTH_SHARING = 16
"""Fewer tokens than these cost less to compute again than a segment costs."""


@dataclass(frozen=True, slots=True)
class Segment:
    """tokens[start:stop] of a row, which follow those of the segments `before`.

    Attributes:
        row: The row's number; where several share the segment, the first of them.
        before: Numbers of the segments that hold tokens[:start], in order.
        ends_row: Whether this is the row's last segment, which no other row shares.
    """

    row: int
    start: int
    stop: int
    before: tuple[int, ...]
    ends_row: bool


def segments(rows: Sequence[Sequence[int]], answer_starts: Sequence[int]) -> list[Segment]:
    """Every row's tokens but its last, which is only a target, in as few segments as are worth it.

    A segment comes after those that it follows. All tokens from answer_start - 1 on, whose successors are learnt,
    lie in segments of their row's own.

    >>> rows = [[*range(40), 1, 2, 3], [*range(40), 4, 5, 6], [7, 8, 9]]
    >>> [(one.row, one.start, one.stop, one.before) for one in segments(rows, [41, 41, 1])]
    [(0, 0, 40, ()), (0, 40, 42, (0,)), (1, 40, 42, (0,)), (2, 0, 2, ())]
    """
    made: list[Segment] = []

    def grow(some: Sequence[int], at: int, before: tuple[int, ...]) -> None:
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row in some:
            alike[tuple(rows[row][at : at + _WORTH_SHARING])].append(row)
        for group in alike.values():
            common = min(common_tokens([rows[row] for row in group]), min(answer_starts[row] for row in group) - 1)
            if len(group) > 1 and common - at >= _WORTH_SHARING:
                made.append(Segment(group[0], at, common, before, ends_row=False))
                grow(group, common, (*before, len(made) - 1))
            else:
                made.extend(Segment(row, at, len(rows[row]) - 1, before, ends_row=True) for row in group)

    grow(range(len(rows)), 0, ())
    return made


def families(rows: Sequence[Sequence[int]], *, share: float = 0.5) -> list[list[int]]:
    """Numbers of rows by what they begin with: `share` of a member's tokens are those of the member before it.

    >>> families([[1, 2, 3, 4], [9, 9, 9, 9], [1, 2, 3, 5], [1, 0, 0, 0]])
    [[3], [0, 2], [1]]
    """
    order = sorted(range(len(rows)), key=lambda number: list(rows[number]))
    found: list[list[int]] = []
    for number in order:
        if found and common_tokens([rows[found[-1][-1]], rows[number]]) >= share * len(rows[number]):
            found[-1].append(number)
        else:
            found.append([number])
    return found


def common_tokens(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all of them begin with."""
    columns = enumerate(zip(*rows, strict=False))
    return next((at for at, column in columns if len(set(column)) > 1), min(map(len, rows)))
