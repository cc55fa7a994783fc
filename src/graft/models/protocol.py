"""What every model is to the rest of Graft."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from graft.tracing import Value, span

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a model wants done, or a piece of that: arguments are JSON as it writes them."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        tool_calls: Of an assistant's turn.
        tool_call_id: Of a tool's turn: the call that its content answers.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token and its natural log-probability, with the likeliest in its place, best first."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TokenScore, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> TokenScore:
        """As OpenAI and llama.cpp write it.

        >>> TokenScore.of({"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []})
        TokenScore(token='a', logprob=-0.5, bytes=(97,), top=())
        """
        spelt = given.get("bytes")
        return cls(
            token=given["token"],
            logprob=float(given["logprob"]),
            bytes=None if spelt is None else tuple(spelt),
            top=tuple(cls.of(one) for one in given.get("top_logprobs") or ()),
        )


class Piece(str):
    """A piece of a reply's text, perhaps empty, with what came with it.

    Attributes:
        scores: Of its tokens, where they are asked for.
        calls: Pieces of tool calls, by the call's number; id and name are empty but in a call's first.
    """

    __slots__ = ("calls", "scores")

    scores: tuple[TokenScore, ...]
    calls: tuple[tuple[int, ToolCall], ...]

    def __new__(
        cls, text: str, *, scores: tuple[TokenScore, ...] = (), calls: tuple[tuple[int, ToolCall], ...] = ()
    ) -> Piece:
        made = super().__new__(cls, text)
        made.scores, made.calls = scores, calls
        return made


@dataclass(frozen=True, slots=True)
class Tools:
    """What a model may ask to be done.

    Attributes:
        functions, choice: As in OpenAI's `tools` and `tool_choice`.
        parallel: Whether it may ask for several at once; None leaves it to the model.
    """

    functions: tuple[Mapping[str, Any], ...]
    choice: str | Mapping[str, Any] | None = None
    parallel: bool | None = None


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
        top_logprobs: Tell each token's log-probability, and so many of the likeliest in its place; None tells none.
        tools: What the reply may ask for instead of being text.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    json_schema: dict[str, Any] | None = None
    adapter: str | None = None
    cache_prompt: bool = True
    top_logprobs: int | None = None
    tools: Tools | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A finished reply.

    Attributes:
        finish_reason: "stop", "length" when max_tokens ended it, or "tool_calls".
        first_token_ms, total_ms: Since the request was made.
        cost_usd: None when the price is unknown, never 0 for that.
        scores: Of its tokens, where they were asked for.
        tool_calls: What is to be done.
    """

    text: str
    usage: Usage
    finish_reason: str
    first_token_ms: float
    total_ms: float
    cost_usd: float | None = field(default=None)
    scores: tuple[TokenScore, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()


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

        A piece is a `Piece` where more than text is asked for. Closing the generator early stops the generation.

        Raises:
            ContextOverflow: Prompt plus max_tokens exceed the context; nothing was generated.
            ModelError: The model cannot answer.
            UsageError: It cannot honour tools or log-probabilities.
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


def joined_calls(pieces: Iterable[tuple[int, ToolCall]]) -> tuple[ToolCall, ...]:
    """Whole calls of their numbered pieces.

    >>> joined_calls([(0, ToolCall("c1", "add", "")), (0, ToolCall("", "", "{}"))])
    (ToolCall(id='c1', name='add', arguments='{}'),)
    """
    calls: dict[int, ToolCall] = {}
    for number, piece in pieces:
        known = calls.get(number, ToolCall("", "", ""))
        calls[number] = ToolCall(known.id or piece.id, known.name or piece.name, known.arguments + piece.arguments)
    return tuple(calls[number] for number in sorted(calls))


def generate(model: Model, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
    """`model.stream`, traced."""
    asked: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model.name,
        "gen_ai.request.max_tokens": options.max_tokens,
        "gen_ai.request.temperature": options.temperature,
    }
    with span("generate", asked, holds=False) as step:
        reply = yield from model.stream(messages, options)
        step.set(
            {
                "gen_ai.usage.input_tokens": reply.usage.input_tokens,
                "gen_ai.usage.output_tokens": reply.usage.output_tokens,
                "gen_ai.response.finish_reasons": (reply.finish_reason,),
                "gen_ai.response.time_to_first_chunk": reply.first_token_ms / 1e3,
            }
        )
    return reply


def complete(model: Model, messages: Sequence[Message], options: GenerateOptions | None = None) -> Reply:
    """The whole reply at once."""
    return drain(generate(model, messages, options or GenerateOptions()))
