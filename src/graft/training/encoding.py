"""examples + a tokenizer with its chat template -> token ids, and where the answer begins.

Loss falls on the answer and the token that ends its turn, on nothing else. The prompt's tokens are those that
the served model will see (the template's own, with its generation prompt), found by comparing the prompt with
the whole conversation, so no template needs markers of its own. Nothing is cut off silently.
It does not know how a model is trained.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from graft.dataset import Example
from graft.errors import LimitExceeded, TrainingError, UsageError
from graft.models import Message

Truncate = Literal["refuse", "drop", "shorten"]
_NO_THINKING: dict[str, Any] = {"enable_thinking": False}
"""As a checkpoint is asked: a reasoning model's template then begins the answer with an empty thought."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An example in tokens.

    Attributes:
        tokens: Prompt, answer, and the token that ends the answer's turn.
        answer_start: Loss falls on `tokens[answer_start:]`.
        header_tokens: How many tokens before it are the generation prompt, the same in every example.
        shortened: Characters that were cut from its prompt to fit the context.
    """

    example: Example
    tokens: Sequence[int]
    answer_start: int
    header_tokens: int = 0
    shortened: int = 0

    @property
    def mask(self) -> tuple[bool, ...]:
        """True where loss falls; as long as `tokens`."""
        return tuple(place >= self.answer_start for place in range(len(self.tokens)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An example that cannot be learnt from, and why."""

    id: str
    origin: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """All examples of a file.

    Attributes:
        refused: Those that are left out: over the context, or not to be expressed in the template.
        notes: What holds for all and is worth knowing.
    """

    encoded: tuple[Encoded, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...] = ()


def encode(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    context_tokens: int,
    truncate: str = "refuse",
    progress: Callable[[int], object] = lambda count: None,
) -> Encoding:
    """Encode every example.

    Args:
        tokenizer: transformers' tokenizer, with a chat template.
        context_tokens: Most tokens of one example.
        truncate: For examples over it. "refuse": list them; `require_all` then stops the run. "drop": likewise
            listed, the rest is used. "shorten": the longest turn of the prompt loses its beginning, so the template,
            the other turns and the answer stay whole.
        progress: Called with 1 for each example.
    Raises:
        UsageError: An unknown `truncate`.
    """
    if truncate not in get_args(Truncate):
        raise UsageError(
            f"truncate {truncate!r} is not one of {', '.join(get_args(Truncate))}", fix="--truncate drop"
        )
    encoded, refused, appended = [], [], 0
    header = _header(examples[0], tokenizer) if examples else []
    for example in examples:
        try:
            made, ended = _encode_one(example, tokenizer)
            if len(made.tokens) > context_tokens:
                made = _fit(made, tokenizer, context_tokens, truncate)
            if header and list(made.tokens[: made.answer_start][-len(header) :]) == header:
                made = replace(made, header_tokens=len(header))
            encoded.append(made)
            appended += not ended
        except (_Unfit, LimitExceeded) as reason:
            refused.append(Refused(id=example.id, origin=example.origin, reason=str(reason).partition(" / fix:")[0]))
        progress(1)
    notes = [] if not appended else [f"the template ends no turn: {tokenizer.eos_token} was put after the answers"]
    if shortened := sum(1 for one in encoded if one.shortened):
        notes.append(f"{shortened} prompts were shortened to {context_tokens:,} tokens")
    return Encoding(encoded=tuple(encoded), refused=tuple(refused), notes=tuple(notes))


def require_all(encoding: Encoding, *, truncate: str) -> None:
    """Refuse a run that would leave examples out without having been told to.

    Raises:
        TrainingError: Some were refused under "refuse", or none is left.
    """
    if not encoding.refused and encoding.encoded:
        return
    listed = "; ".join(f"{one.origin or one.id}: {one.reason}" for one in encoding.refused[:_SHOWN])
    if not encoding.encoded:
        raise TrainingError(
            f"no example is left to learn from ({listed or 'the file is empty'})", fix="graft dataset check FILE"
        )
    if truncate == "refuse":
        raise TrainingError(
            f"{len(encoding.refused)} examples cannot be used, {len(encoding.encoded)} can: {listed}",
            fix="--truncate drop leaves them out, --truncate shorten cuts the longest turn of their prompts",
        )


def require_fitting(examples: Sequence[Encoded], context_tokens: int) -> None:
    """
    Raises:
        TrainingError: An example is longer than the model's context.
    """
    over = [one for one in examples if len(one.tokens) > context_tokens]
    if over:
        longest = max(over, key=lambda one: len(one.tokens))
        raise TrainingError(
            f"{len(over)} examples are over the model's context of {context_tokens:,} tokens; the longest, "
            f"{longest.example.origin}, has {len(longest.tokens):,}",
            fix="--truncate drop leaves them out, --truncate shorten cuts the longest turn of their prompts",
        )


class _Unfit(Exception):
    """Why one example cannot be encoded."""


def _encode_one(example: Example, tokenizer: Any) -> tuple[Encoded, bool]:
    """The example, and whether the template itself ended the answer's turn."""
    if len(example.messages) < 2 or example.messages[-1].role != "assistant" or not example.answer.strip():
        raise _Unfit("its last turn is no answer of the assistant")
    prompt, rest = _split(example, tokenizer)
    tokens, start = _tokens(tokenizer, prompt, rest)
    answer_end = _answer_end(tokenizer, tokens, start)
    if answer_end is not None:
        return Encoded(example=example, tokens=array("i", tokens[:answer_end]), answer_start=start), True
    if tokenizer.eos_token_id is None:
        raise _Unfit("the template ends no turn and the tokenizer has no end token: the model would never stop")
    return Encoded(example=example, tokens=array("i", (*tokens, tokenizer.eos_token_id)), answer_start=start), False


def _split(example: Example, tokenizer: Any) -> tuple[str, str]:
    """Prompt as it will be served, and what follows it: the answer and the end of its turn."""
    reason = ""
    for options in (_NO_THINKING, {}):
        prompt = _render(tokenizer, example.prompt, add_generation_prompt=True, **options)
        whole = _render(tokenizer, example.messages, add_generation_prompt=False, **options)
        if not whole.startswith(prompt):
            reason = "the template's prompt does not begin its whole conversation: where the answer starts is unknown"
            continue
        rest = whole[len(prompt) :]
        before, found, _ = rest.partition(example.answer.strip())
        if not found:
            reason = "the template changes the answer's text"
        elif before.strip():
            reason = (
                f"the template has no generation prompt: {before.strip()!r} would be learnt as part of the answer"
            )
        else:
            return prompt, rest
    raise _Unfit(reason)


def _render(tokenizer: Any, messages: Sequence[Message], **options: Any) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except Exception as error:  # a template is a program: it may raise anything, and says why itself
        raise _Unfit(f"the chat template refuses it: {error}") from error


def _header(example: Example, tokenizer: Any) -> list[int]:
    """Tokens of the generation prompt alone; none where the template has none."""
    try:
        with_it = _render(tokenizer, example.prompt, add_generation_prompt=True, **_NO_THINKING)
        without = _render(tokenizer, example.prompt, add_generation_prompt=False, **_NO_THINKING)
    except _Unfit:
        return []
    text = with_it[len(without) :] if with_it.startswith(without) else ""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _tokens(tokenizer: Any, prompt: str, rest: str) -> tuple[list[int], int]:
    """Tokens of both, and how many the prompt has, exactly as it has them alone when it is served."""
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = tokenizer(prompt + rest, add_special_tokens=False)["input_ids"]
    if whole[: len(head)] == head:
        return whole, len(head)
    # A token spans the border. The server never makes that token, because it sees the prompt alone.
    apart = head + tokenizer(rest, add_special_tokens=False)["input_ids"]
    if tokenizer.decode(apart) != tokenizer.decode(whole):
        raise _Unfit("its prompt and answer share a token that cannot be cut between them")
    return apart, len(head)


def _answer_end(tokenizer: Any, tokens: Sequence[int], start: int) -> int | None:
    """One past the token that ends the turn: the last special one after the answer's start."""
    special = set(tokenizer.all_special_ids) | {
        number for number, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    for place in range(len(tokens) - 1, start, -1):
        if tokens[place] in special:
            return place + 1
        if tokenizer.decode([tokens[place]]).strip():
            return None
    return None


def _fit(made: Encoded, tokenizer: Any, context_tokens: int, truncate: str) -> Encoded:
    count, answer = len(made.tokens), len(made.tokens) - made.answer_start
    if truncate != "shorten":
        raise LimitExceeded(f"{count:,} tokens, over the context of {context_tokens:,}", fix="--truncate drop")
    turns = made.example.prompt
    longest = max(range(len(turns)), key=lambda place: len(turns[place].content))
    text = turns[longest].content
    low, high = 0, len(text)  # characters to cut: at `high` it fits, if it can be made to fit at all
    best: Encoded | None = None
    while low <= high:
        cut = (low + high) // 2
        shorter = (*turns[:longest], replace(turns[longest], content=text[cut:]), *turns[longest + 1 :])
        tried, _ = _encode_one(replace(made.example, messages=(*shorter, made.example.messages[-1])), tokenizer)
        if len(tried.tokens) <= context_tokens:
            best, high = replace(tried, shortened=cut), cut - 1
        else:
            low = cut + 1
    if best is None:
        raise LimitExceeded(
            f"{count:,} tokens ({answer:,} of them the answer), over the context of {context_tokens:,} "
            "even with its longest turn left out",
            fix="--truncate drop",
        )
    return best
