"""A model as a scorer: how likely a text is, what comes next, and what it would say by itself.

`TorchScorer` reads a checkpoint folder and a PEFT adapter. It does not know tasks or what is compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graft.errors import ContextOverflow, ModelError
from graft.models import Message

if TYPE_CHECKING:
    import torch

_CONTEXTS_AT_ONCE = 8
_TOKENS_AT_ONCE = 512
"""Of continuations: their logits are 49,152 floats a token for a small vocabulary, so 100 MB."""
_MOST_CONTEXT = 4096
"""Tokens of a text whose likelihood is asked for; a longer one loses its beginning."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """A context and what may follow it.

    Attributes:
        context: Text, or tokens (a chat prompt); "" is the tokenizer's first token.
    """

    context: str | tuple[int, ...]
    continuations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Attributes:
    log_probability: Natural log of the continuation's, given the context.
    tokens: Of the continuation.
    greedy: Whether each of its tokens is the likeliest.
    """

    log_probability: float
    tokens: int
    greedy: bool


Tell = Callable[[int], object]


class Scorer(Protocol):
    """What regression and memorisation checks ask of a model."""

    @property
    def name(self) -> str: ...
    @property
    def vocabulary(self) -> int:
        """Tokens that logits are over."""
        ...

    def likelihoods(
        self, requests: Sequence[Prompted], progress: Tell = lambda done: None
    ) -> list[tuple[Likelihood, ...]]:
        """For each request, how likely each continuation is; a context too long loses its beginning."""
        ...

    def chat_tokens(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The prompt as the model's chat template makes it, ready for an answer."""
        ...

    def continued(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, progress: Tell = lambda done: None
    ) -> list[tuple[int, ...]]:
        """Greedy answers, without the end token's follow-up; the end token itself is kept."""
        ...

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        """What the model expects at each token of `answer`. Shapes: (len(answer), vocabulary)."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of a text alone, none added."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        ...


class TorchScorer:
    """A checkpoint folder (safetensors), with a PEFT adapter or without, in float32.

    An activated adapter acts as it does when it is served: from the last generation prompt on, nowhere in text
    without one.

    Args:
        device: "cpu", or "cuda".
    Raises:
        ModelError: The folder is no checkpoint, or the adapter does not fit.
        TrainingError: The `tune` extra is not installed.
    """

    def __init__(
        self, checkpoint: Path, adapter: Path | None = None, *, device: str = "cpu", name: str | None = None
    ) -> None:
        from graft.training.adapters import read_invocation
        from graft.training.checkpoint import load_model, load_tokenizer, open_checkpoint
        from graft.training.silence import quiet

        self._invocation: tuple[int, ...] | None = None
        with quiet():
            import torch

            opened = open_checkpoint(checkpoint)
            self._tokenizer = load_tokenizer(opened)
            model = load_model(opened, dtype=torch.float32)
            if adapter is not None:
                model = _with_adapter(model, adapter)
                self._invocation = read_invocation(adapter)
            self._model = model.to(device).eval()
        self.name = name or (adapter or checkpoint).name
        self.vocabulary = int(self._model.config.get_text_config().vocab_size)
        self._context_tokens = opened.context_tokens
        self._limit = min(opened.context_tokens, _MOST_CONTEXT)
        self._device = device
        self._has_adapter = adapter is not None
        self._adapter_off = False

    def without_adapter(self, *, name: str = "base") -> TorchScorer:
        """The same weights with the adapter switched off: the base model, at no further memory."""
        base = copy.copy(self)
        base.name, base._adapter_off = name, self._has_adapter
        return base

    def likelihoods(
        self, requests: Sequence[Prompted], progress: Tell = lambda done: None
    ) -> list[tuple[Likelihood, ...]]:
        """See `Scorer.likelihoods`. A context is read once for all its continuations."""
        encoded = [self._encoded(request) for request in requests]
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].context))
        found: list[tuple[Likelihood, ...]] = [()] * len(encoded)
        done = 0
        with self._running():
            for _, alike in groupby(order, key=lambda i: len(encoded[i].context)):
                for block in _blocks(list(alike), encoded):
                    for index, result in zip(block, self._score([encoded[i] for i in block]), strict=True):
                        found[index] = result
                    done += len(block)
                    progress(done)
        return found

    def chat_tokens(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """See `Scorer.chat_tokens`."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        made = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False, enable_thinking=False
        )
        return tuple(made)

    def continued(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, progress: Tell = lambda done: None
    ) -> list[tuple[int, ...]]:
        """See `Scorer.continued`."""
        import torch

        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers: list[tuple[int, ...]] = [()] * len(prompts)
        ends = _end_tokens(self._model, self._tokenizer)
        pad = self._tokenizer.pad_token_id
        with self._running():
            for start in range(0, len(order), _CONTEXTS_AT_ONCE):
                block = order[start : start + _CONTEXTS_AT_ONCE]
                longest = max(len(prompts[i]) for i in block)
                if longest + max_tokens > self._context_tokens:
                    raise ContextOverflow(
                        f"a prompt of {longest:,} tokens and {max_tokens} more are over {self._context_tokens:,}",
                        fix="ask shorter prompts",
                    )
                ids = torch.tensor([[pad] * (longest - len(prompts[i])) + list(prompts[i]) for i in block])
                mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in block])
                made = self._model.generate(
                    input_ids=ids.to(self._device),
                    attention_mask=mask.to(self._device),
                    max_new_tokens=max_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    eos_token_id=sorted(ends),
                    pad_token_id=pad,
                )
                for index, row in zip(block, made[:, longest:].tolist(), strict=True):
                    answers[index] = _until_end(row, ends)
                progress(start + len(block))
        return answers

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        """See `Scorer.logits`."""
        import torch

        with self._running():
            ids = torch.tensor([[*prompt, *answer[:-1]]], device=self._device)
            found: NDArray[np.float32] = self._model(ids, logits_to_keep=len(answer)).logits[0].float().cpu().numpy()
        return found

    def encode(self, text: str) -> tuple[int, ...]:
        """See `Scorer.encode`."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Scorer.decode`."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _encoded(self, request: Prompted) -> _Encoded:
        """Tokens as lm-evaluation-harness makes them: context and continuation together, then cut apart.

        Source: lm_eval.api.model.TemplateLM._encode_pair, 0.4.13. Spaces at the end of a context go over to
        the continuation; an empty context is the tokenizer's first token.
        """
        context = request.context
        if isinstance(context, tuple):
            tails = [list(self.encode(continuation)) for continuation in request.continuations]
            return self._cut(list(context), tails)
        bare = context.rstrip()
        spaces = context[len(bare) :]
        if not bare:
            first = self._tokenizer.bos_token_id
            head = [self._tokenizer.eos_token_id if first is None else first]
            return self._cut(head, [list(self.encode(spaces + one)) for one in request.continuations])
        head = self._tokenizer.encode(bare)
        return self._cut(
            head, [self._tokenizer.encode(bare + spaces + one)[len(head) :] for one in request.continuations]
        )

    def _cut(self, head: list[int], tails: list[list[int]]) -> _Encoded:
        longest = max(map(len, tails), default=0)
        if not all(tails) or longest >= self._limit:
            wrong = longest if all(tails) else 0
            raise ModelError(
                f"a continuation of {wrong:,} tokens cannot be scored; from 1 to {self._limit - 1:,} can",
                fix="shorten the text" if wrong else "give text that is tokens of its own",
            )
        return _Encoded(head[-(self._limit + 1 - longest) :], tails)

    def _score(self, block: Sequence[_Encoded]) -> Iterator[tuple[Likelihood, ...]]:
        """Contexts of one length -> likelihoods of their continuations."""
        import torch

        device = self._device
        contexts = torch.tensor([one.context for one in block], device=device)
        read = self._model(contexts, use_cache=True, logits_to_keep=1)
        first = torch.log_softmax(read.logits[:, -1].float(), dim=-1)  # (contexts, vocabulary)
        rows = [(i, tail) for i, one in enumerate(block) for tail in one.continuations]
        owners = [i for i, _ in rows]
        firsts = torch.tensor([tail[0] for _, tail in rows], device=device)
        total = first[owners, firsts].double()
        greedy = first.argmax(dim=-1)[owners] == firsts
        longest = max(len(tail) for _, tail in rows)
        if longest > 1:
            step = max(1, _TOKENS_AT_ONCE // longest)
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                last = start + step >= len(rows)
                past = read.past_key_values if last else copy.deepcopy(read.past_key_values)
                past.batch_select_indices(torch.tensor([i for i, _ in part], device=device))
                awake = [self._awake(block[i].context) for i, _ in part]
                more, sure = self._rest(past, [tail for _, tail in part], awake)
                total[start : start + step] += more
                greedy[start : start + step] &= sure
        found = iter(zip(total.tolist(), greedy.tolist(), [len(tail) for _, tail in rows], strict=True))
        for one in block:
            yield tuple(
                Likelihood(value, tokens, sure) for value, sure, tokens in _take(found, len(one.continuations))
            )

    def _awake(self, context: Sequence[int]) -> bool:
        """Whether an activated adapter, which acts from its generation prompt on, acts after this context."""
        wanted = list(self._invocation or ())
        starts = range(len(context) - len(wanted) + 1) if wanted else ()
        return any(list(context[at : at + len(wanted)]) == wanted for at in starts)

    def _rest(
        self, past: Any, tails: Sequence[Sequence[int]], awake: Sequence[bool]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of all tokens after each tail's first, and whether all are the likeliest.

        Args:
            awake: For each tail; PEFT itself looks for the generation prompt, which lies in the past, in vain.
        """
        import torch

        longest = max(map(len, tails))
        padded = torch.tensor([[*tail, *[0] * (longest - len(tail))] for tail in tails], device=self._device)
        real = torch.tensor([[1] * (len(tail) - 1) + [0] * (longest - len(tail)) for tail in tails]).bool()
        if longest == 1:
            return torch.zeros(len(tails)).double(), torch.ones(len(tails)).bool()
        given = padded[:, :-1]
        offsets = {} if self._invocation is None else {"alora_offsets": [longest - 1 if one else 0 for one in awake]}
        logits = self._model(given, past_key_values=past, use_cache=True, **offsets).logits.float()
        real, wanted = real.to(logits.device), padded[:, 1:]
        chosen = logits.gather(-1, wanted[..., None])[..., 0] - logits.logsumexp(dim=-1)
        sure = (logits.argmax(dim=-1) == wanted) | ~real
        return (chosen * real).double().sum(dim=-1), sure.all(dim=-1)

    def _running(self) -> AbstractContextManager[Any]:
        """No gradients, no notices, and the adapter off where this is the base."""
        return _Running(self._model.disable_adapter() if self._adapter_off else nullcontext())


@dataclass(frozen=True, slots=True)
class _Encoded:
    context: list[int]
    continuations: list[list[int]]


class _Running(AbstractContextManager[None]):
    def __init__(self, adapter: AbstractContextManager[Any]) -> None:
        import torch

        from graft.training.silence import quiet

        self._inner = (torch.inference_mode(), quiet(), adapter)

    def __enter__(self) -> None:
        for one in self._inner:
            one.__enter__()

    def __exit__(self, *raised: Any) -> None:
        for one in reversed(self._inner):
            one.__exit__(*raised)


def _with_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"{adapter} holds no adapter_model.safetensors", fix="give the adapter's folder, in PEFT's format"
        )
    try:
        return PeftModel.from_pretrained(model, str(adapter))
    except (ValueError, RuntimeError, OSError, KeyError, TypeError) as error:
        raise ModelError(
            f"the adapter in {adapter} does not fit the checkpoint: {str(error)[:300]}",
            fix="give the base model that it was trained on",
        ) from error


def _blocks(indices: Sequence[int], encoded: Sequence[_Encoded]) -> Iterator[list[int]]:
    """Contexts that are read together, so few that all their continuations fit one pass."""
    block: list[int] = []
    tokens = 0
    for index in indices:
        own = sum(map(len, encoded[index].continuations))
        if block and (len(block) == _CONTEXTS_AT_ONCE or tokens + own > _TOKENS_AT_ONCE):
            yield block
            block, tokens = [], 0
        block.append(index)
        tokens += own
    if block:
        yield block


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = named if isinstance(named, list) else [named]
    return {int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None}


def _until_end(row: Sequence[int], ends: set[int]) -> tuple[int, ...]:
    for i, token in enumerate(row):
        if token in ends:
            return tuple(row[: i + 1])
    return tuple(row)


def _take(items: Iterator[Any], count: int) -> list[Any]:
    return [next(items) for _ in range(count)]
