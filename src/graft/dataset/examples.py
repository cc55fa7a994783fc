"""What an example is to the rest of Graft: a conversation whose last turn is the answer to be learnt.

It does not know file formats, splits or models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graft.models import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One conversation to learn from, or to be examined on.

    Attributes:
        id: Unique in its file; of the content where the file gives none.
        messages: Turns in order; the last is the assistant's, and is what is learnt.
        source: Document or group that it was made from: never on both sides of a split. None where unknown.
        origin: Where it was read, "FILE:LINE".
        extra: What else its line held (evidence, kind, ...), kept as it was.
    """

    id: str
    messages: tuple[Message, ...]
    source: str | None = None
    origin: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The answer to be learnt."""
        return self.messages[-1].content
