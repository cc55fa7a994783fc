"""rows + a cursor -> a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from graft.errors import NotFound

T = TypeVar("T")


def page_of(rows: Sequence[T], ids: Sequence[str], limit: int, after: str | None) -> tuple[list[T], bool]:
    """Those after a cursor, and whether there are more.

    Raises:
        NotFound: No such cursor.

    >>> page_of("abcde", "abcde", 2, "b")
    (['c', 'd'], True)
    """
    if after is not None and after not in ids:
        raise NotFound(f"no {after!r} to begin at", fix="an id of the page before")
    first = 0 if after is None else ids.index(after) + 1
    return list(rows[first : first + limit]), len(rows) > first + limit
