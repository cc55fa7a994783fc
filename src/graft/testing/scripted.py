"""A Model that says what it is told to: the shipped double for testing what is built on models.

It does not pretend to understand anything.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence

from graft.errors import ContextOverflow
from graft.models import GenerateOptions, Message, Reply, Usage


class ScriptedModel:
    """Replies with the given texts in turn; keeps the prompts it was given in `prompts`, what they took in `usages`.

    >>> from graft.models import complete
    >>> model = ScriptedModel(["Two weeks. [1]"])
    >>> complete(model, [Message("user", "How long?")]).text
    'Two weeks. [1]'
    """

    def __init__(self, replies: Sequence[str], *, context_tokens: int = 4096) -> None:
        self.name = "scripted"
        self.context_tokens = context_tokens
        self.prompts: list[tuple[Message, ...]] = []
        self.usages: list[Usage] = []
        self._replies = iter(replies)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Words of all messages."""
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
        """See `Model.stream`; every word is a piece."""
        tokens = self.count_tokens(messages)
        if tokens + options.max_tokens > self.context_tokens:
            raise ContextOverflow(f"{tokens} tokens of {self.context_tokens}", fix="ask a shorter question")
        self.prompts.append(tuple(messages))
        text = next(self._replies)
        usage = Usage(tokens, len(text.split()))
        self.usages.append(usage)
        yield from re.findall(r"\s*\S+", text)
        return Reply(
            text=text,
            usage=usage,
            finish_reason="stop",
            first_token_ms=0.0,
            total_ms=0.0,
        )
