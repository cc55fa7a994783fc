"""One example -> what is wrong with its turns: cut short, broken JSON, too long for the context.

It does not know the other examples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from graft.citing.words import is_function_word
from graft.dataset.examples import Example
from graft.dataset.findings import Finding, Severity
from graft.models import Message

_ELLIPSIS = re.compile(r"(?:\.\.\.|…|\[truncated\]|\[cut\])\s*$", re.IGNORECASE)
_LAST_WORD = re.compile(r"([^\W\d_]+)$")
_ENDING = 40
"""Characters in which the last word is looked for: searching all of a long run of letters takes its square."""
_LEAST_CUT_CHARACTERS = 80
"""A shorter answer may end in any word: it is a label, a title, a name."""
_CUT_FIX = "complete the answer, or remove the line: the model would learn to stop there"
_TURN_TOKENS = 5
"""Tokens that a chat template puts around a turn; ChatML's "<|im_start|>role\\n" and "<|im_end|>\\n"."""


def cut_short(example: Example, line: int) -> Iterator[Finding]:
    """An answer that visibly ends too early."""
    answer = example.answer.rstrip()
    why = _why_cut(answer)
    if why is not None:
        yield _finding("truncated", Severity.WARNING, f"the answer seems cut: {why}", _CUT_FIX, example, line)
    elif answer[0] in "{[" and answer[-1] in "}]" and (broken := _broken_json(answer)) is not None:
        yield _finding(
            "broken-json",
            Severity.WARNING,
            f"the answer looks like JSON but is not: {broken.msg} at character {broken.pos}",
            "correct it: the model would learn to write it so",
            example,
            line,
        )


def _why_cut(answer: str) -> str | None:
    """In words, or None where the answer ends as it may.

    >>> _why_cut('{"city": "Lee')
    'its JSON is not closed'
    """
    if _ELLIPSIS.search(answer):
        return f"it ends in {answer[-12:]!r}"
    if answer.count("```") % 2:
        return "a code block is not closed"
    broken = _broken_json(answer) if answer[0] in "{[" and answer[-1] not in "}]" else None
    if broken is not None and (broken.pos >= len(answer) - 1 or broken.msg.startswith("Unterminated")):
        return "its JSON is not closed"
    word = _LAST_WORD.search(answer[-_ENDING:])
    if len(answer) >= _LEAST_CUT_CHARACTERS:
        if answer[-1] in ",;(-–":
            return f"it ends in {answer[-1]!r}"
        if word and word[1] in ("the", "a", "an", "and", "or", "of", "to", "with", "und", "der", "die", "das", "et"):
            return f"it ends in the word {word[1]!r}" if is_function_word(word[1]) else None
    return None


def _broken_json(text: str) -> json.JSONDecodeError | None:
    """Where an object or a list of values breaks; text in brackets, such as "[1] Smith", is none."""
    if not re.match(r"\{\s*[\"}]|\[\s*(?:[\"{\[\]]|$)", text):
        return None
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error
    except (ValueError, RecursionError):
        return None
    return None


def too_long(example: Example, line: int, tokens: int, context_tokens: int, *, estimated: bool) -> Finding:
    """An example of more tokens than the context takes."""
    about = "about " if estimated else ""
    return _finding(
        "too-long",
        Severity.ERROR,
        f"{about}{tokens:,} tokens where the context takes {context_tokens:,}",
        "shorten it, cut it into several, or choose a model with a longer context: it would be truncated",
        example,
        line,
    )


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Tokens, within about 30% for the usual tokenizers: a quarter of the letters of Latin text, half the bytes
    beyond ASCII, and the template's.

    >>> estimated_tokens([Message("user", "Where is my card?"), Message("assistant", "card_arrival")])
    17
    """
    total = 0
    for message in messages:
        size = len(message.content)
        beyond = 0 if message.content.isascii() else len(message.content.encode()) - size
        total += size // 4 + beyond // 3 + _TURN_TOKENS
    return total


def most_tokens(messages: Sequence[Message]) -> int:
    """More tokens than any byte-level tokenizer makes of them: one a byte, and the template's."""
    return sum(len(message.content.encode()) + 4 * _TURN_TOKENS for message in messages) + 64


def _finding(code: str, severity: Severity, message: str, fix: str, example: Example, line: int) -> Finding:
    return Finding(code=code, severity=severity, message=message, fix=fix, line=line, id=example.id)
