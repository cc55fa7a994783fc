"""messages -> a reply by transformers: a checkpoint as it is on disk, with or without a PEFT adapter.

The yardstick that exports are held against; greedy only, and slower than llama.cpp, which serves.
It does not know GGUF.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from graft.errors import ContextOverflow, ModelError
from graft.models.protocol import GenerateOptions, Message, Reply, Usage
from graft.training.adapters import read_adapter
from graft.training.checkpoint import load_model, load_tokenizer, open_checkpoint
from graft.training.silence import quiet


class CheckpointModel:
    """A checkpoint that holds a conversation; loaded at its first use, in float32."""

    def __init__(self, folder: Path, *, adapter: Path | None = None, name: str | None = None) -> None:
        """Check the folder's head.

        Raises:
            ModelError: No checkpoint, pickled weights, or remote code.
        """
        self._checkpoint = open_checkpoint(folder)
        self._adapter = adapter
        self._activated = adapter is not None and read_adapter(adapter).activated
        self.name = name or folder.name
        self.context_tokens = self._checkpoint.context_tokens

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._checkpoint)

    @cached_property
    def _network(self) -> Any:
        import torch

        network = load_model(self._checkpoint, dtype=torch.float32)
        if self._adapter is not None:
            with quiet():
                from peft import PeftModel

                network = PeftModel.from_pretrained(network, str(self._adapter))
        return network.eval()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Model.count_tokens`; exact."""
        return len(self._prompt(messages))

    def stream(self, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
        """See `Model.stream`. Temperatures above 0, schemas and a request's own adapter are refused."""
        import torch

        if options.temperature or options.json_schema is not None or options.adapter is not None:
            raise ModelError(
                f"{self.name} is a checkpoint, read greedily: no temperature, schema or adapter per request",
                fix="graft export NAME --to gguf, and ask that",
            )
        started = time.perf_counter()
        tokens = self._prompt(messages)
        if len(tokens) + options.max_tokens > self.context_tokens:
            raise ContextOverflow(
                f"the prompt has {len(tokens):,} tokens and the reply may take {options.max_tokens:,}, together over "
                f"the {self.context_tokens:,} tokens of {self.name}",
                fix="shorten the prompt",
            )
        made: list[int] = []
        text, first_ms, reason, cache = "", 0.0, "length", None
        given = torch.tensor([tokens])
        while len(made) < options.max_tokens:
            with torch.no_grad():
                out = self._network(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token = int(out.logits[0, -1].argmax())
            first_ms = first_ms or (time.perf_counter() - started) * 1000
            if token in self._ends:
                reason = "stop"
                break
            made.append(token)
            if self._activated:  # PEFT finds where it begins to act in the tokens given, so it is given all
                given = torch.tensor([tokens + made])
            else:
                cache, given = out.past_key_values, torch.tensor([[token]])
            whole = self._tokenizer.decode(made, skip_special_tokens=True)
            if stop := next((stop for stop in options.stop if stop in whole), None):
                whole, reason = whole[: whole.index(stop)], "stop"
            if len(whole) > len(text) and not whole.endswith("\ufffd"):  # a character may take several tokens
                yield whole[len(text) :]
                text = whole
            if reason == "stop":
                break
        return Reply(
            text=text,
            usage=Usage(len(tokens), len(made)),
            finish_reason=reason,
            first_token_ms=first_ms,
            total_ms=(time.perf_counter() - started) * 1000,
        )

    def agreement(self, messages: Sequence[Message], answer: str) -> tuple[bool, ...]:
        """Whether each token of `answer` is the one this model would have chosen after those before it."""
        import torch

        prompt = self._prompt(messages)
        given = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not given:
            return ()
        with torch.no_grad():
            out = self._network(input_ids=torch.tensor([prompt + given]), logits_to_keep=len(given) + 1)
        chosen = out.logits[0, :-1].argmax(-1).tolist()
        return tuple(token == choice for token, choice in zip(given, chosen, strict=True))

    @cached_property
    def _ends(self) -> frozenset[int]:
        stated = self._network.generation_config.eos_token_id
        stated = [] if stated is None else stated if isinstance(stated, list) else [stated]
        return frozenset([*stated, self._tokenizer.eos_token_id])

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        text = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
