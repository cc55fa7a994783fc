"""What every model is to the rest of Graft."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the model itself counted."""

    input_tokens: int
    output_tokens: int

    def __add__(self, other: Usage) -> Usage:
        """Both together.

        >>> Usage(3, 1) + Usage(4, 2)
        Usage(input_tokens=7, output_tokens=3)
        """
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """How to generate.

    Attributes:
        max_tokens: Most tokens of the reply.
        temperature: 0 is greedy.
        stop: Texts that end the reply, not part of it.
        seed: For sampling at temperatures above 0.
        json_schema: The reply must be JSON of this schema.
        adapter: Path of a LoRA adapter (GGUF) for this request alone, where the runtime can.
        cache_prompt: Reuse the previous request's common prefix; off for measurements, because a
            cached prompt can change the reply at temperature 0.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    json_schema: dict[str, Any] | None = None
    adapter: str | None = None
    cache_prompt: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A finished reply.

    Attributes:
        finish_reason: "stop", or "length" when max_tokens ended it.
        first_token_ms, total_ms: Since the request was made.
        cost_usd: None when the price is unknown, never 0 for that.
    """

    text: str
    usage: Usage
    finish_reason: str
    first_token_ms: float
    total_ms: float
    cost_usd: float | None = field(default=None)


class Model(Protocol):
    """A language model that holds a conversation."""

    @property
    def name(self) -> str: ...
    @property
    def context_tokens(self) -> int:
        """Tokens of prompt and reply together."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that `messages` become, template included; exact for local models."""
        ...

    def stream(self, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
        """Yield pieces of the reply as they come; the generator's return value is the whole Reply.

        Closing the generator early stops the generation.

        Raises:
            ContextOverflow: Prompt plus max_tokens exceed the context; nothing was generated.
            ModelError: The model cannot answer.
        """
        ...


R = TypeVar("R")


def drain(stream: Generator[str, None, R], tell: Callable[[str], object] = lambda piece: None) -> R:
    """Run a stream to its end, telling each piece, and return its return value.

    >>> def count():
    ...     yield "one"
    ...     return 1
    >>> drain(count(), print)
    one
    1
    """
    while True:
        try:
            tell(next(stream))
        except StopIteration as end:
            value: R = end.value
            return value


def complete(model: Model, messages: Sequence[Message], options: GenerateOptions | None = None) -> Reply:
    """The whole reply at once."""
    return drain(model.stream(messages, options or GenerateOptions()))
