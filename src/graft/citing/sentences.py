"""text -> the ranges of its sentences, table rows and list items.

A line break alone does not end a sentence (PDF and plain text wrap lines); a blank line, a list item, a
table row or a short line does. It does not know claims or passages.
"""

from __future__ import annotations

import re

_ABBREVIATIONS = (
    "e.g i.e etc cf vs approx no nos art sec para fig dr mr mrs ms prof st inc ltd co corp dept est "
    "jan feb mar apr jun jul aug sep sept oct nov dec z.b d.h bzw usw ca abs nr u.s u.k p pp vol a.m p.m"
).split()
_END = re.compile(r"(?<=[.!?…])['\"”’)\]]*(?=\s|\[)|(?<=[。！？؟।])|\n")
_ITEM = re.compile(r"[ \t]*(?:[-*•‣–]|\(?\d{1,2}[.)]|#{1,6}|\|)\s")
_WRAPPED_LINE = 50
"""A line of at least so many characters may go on in the next one."""


def sentences(text: str) -> list[tuple[int, int]]:
    """Ranges without the white space around them, in order; together they hold every other character.

    >>> t = "Keep receipts, e.g. for taxis. Claims close on 5. March.\\n- Hotels: 120 EUR\\n- Meals: 40 EUR"
    >>> [t[a:b] for a, b in sentences(t)]
    ['Keep receipts, e.g. for taxis.', 'Claims close on 5. March.', '- Hotels: 120 EUR', '- Meals: 40 EUR']
    """
    found: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        end = match.end()
        if end > start and _ends_here(text, start, match.start(), end):
            _append_trimmed(found, text, start, end)
            start = end
    _append_trimmed(found, text, start, len(text))
    return found


def _append_trimmed(found: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    inner = piece.strip()
    if inner:
        begin = start + piece.index(inner[0])
        found.append((begin, begin + len(inner)))


def _ends_here(text: str, start: int, mark: int, end: int) -> bool:
    if text[mark : mark + 1] == "\n":
        return _line_break_ends(text, mark)
    if _in_row(text, mark):
        return False
    rest = text[end : end + 3].lstrip()
    if text[mark - 1] != ".":
        return True
    word = re.search(r"[\w.]*$", text[start : mark - 1])
    last = word.group().lower() if word else ""
    if last in _ABBREVIATIONS or (len(last) == 1 and last.isalpha()):
        return False
    if last.isdigit() and len(last) <= 2 and rest[:1].isalpha():  # "5. March", "1. First"
        return False
    return not rest[:1].islower()


def _in_row(text: str, mark: int) -> bool:
    """Whether the line at `mark` is a table's row, which ends only with its line."""
    stop = text.find("\n", mark)
    return " | " in text[text.rfind("\n", 0, mark) + 1 : len(text) if stop < 0 else stop]


def _line_break_ends(text: str, mark: int) -> bool:
    following = text[mark + 1 : text.find("\n", mark + 1) if "\n" in text[mark + 1 :] else len(text)]
    line = text[text.rfind("\n", 0, mark) + 1 : mark]
    return (
        not following.strip()
        or _ITEM.match(following) is not None
        or " | " in following
        or " | " in line
        or line.rstrip().endswith((".", "!", "?", ":", ";"))
        or len(line.strip()) < _WRAPPED_LINE
    )
