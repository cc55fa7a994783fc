"""encoded examples -> rows for the decoder: whole ones, or for activated LoRA their ends with the prompts' past.

Activated LoRA: the adapter acts from the generation prompt on; what comes before is the base model's, so its keys
and values are computed once, kept on disk, and at serving time shared between the base model and every adapter.
Such an adapter is not base + A B everywhere, so it cannot be merged.
Source: Greenewald et al., Activated LoRA, arXiv 2504.12397; PEFT's `alora_invocation_tokens`.
It does not know training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from graft.errors import TrainingError
from graft.settings import TuningSettings
from graft.training.encoding import Encoded
from graft.training.lean.decoder import Decoder, Row

Rows = Callable[[Sequence[int]], list[Row]]


def open_rows(decoder: Decoder, examples: Sequence[Encoded], settings: TuningSettings, folder: Path) -> Rows:
    """Numbers of examples -> their rows."""
    if settings.method == "activated":
        most_mb, tokens = settings.prompt_cache_mb, settings.micro_tokens
        return PromptCache(decoder, examples, most_mb=most_mb, folder=folder, tokens_at_once=tokens)
    return lambda numbers: [Row(_tensor(examples[number]), examples[number].answer_start) for number in numbers]


class PromptCache:
    """Rows that begin at the generation prompt, with the past of what precedes it.

    Keys and values are rounded to float16, as llama.cpp keeps them when it serves, whether they come from the
    disk or were just computed: the curve does not depend on the cache.
    """

    def __init__(
        self,
        decoder: Decoder,
        examples: Sequence[Encoded],
        *,
        most_mb: int,
        folder: Path,
        tokens_at_once: int = 1024,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        self.tokens_at_once = tokens_at_once
        self.decoder, self.examples, self.folder, self.dtype = decoder, examples, folder, dtype
        self.invocation = len(invocation_tokens(examples)) if examples else 0
        kept = sum(path.stat().st_size for path in folder.glob("*.f16")) if folder.is_dir() else 0
        self.room = most_mb * 1_000_000 - kept

    def __call__(self, numbers: Sequence[int]) -> list[Row]:
        pasts = {number: past for number in numbers if (past := self._read(number)) is not None}
        missing = [number for number in numbers if number not in pasts]
        for some in self._in_parts(missing):
            made = self.decoder.pasts([self._prompt(number) for number in some], dtype=self.dtype)
            for number, past in zip(some, made, strict=True):
                self._write(number, past)
                pasts[number] = past
        return [
            Row(_tensor(self.examples[number])[pasts[number].shape[2] :], self.invocation, pasts[number])
            for number in numbers
        ]

    def _in_parts(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """In groups of about as many tokens as are computed at once in training."""
        part: list[int] = []
        tokens = 0
        for number in numbers:
            own = self.examples[number].answer_start - self.invocation
            if part and tokens + own > self.tokens_at_once:
                yield part
                part, tokens = [], 0
            part.append(number)
            tokens += own
        if part:
            yield part

    def _prompt(self, number: int) -> torch.Tensor:
        """What comes before the adapter wakes."""
        example = self.examples[number]
        return _tensor(example)[: example.answer_start - self.invocation]

    def _read(self, number: int) -> torch.Tensor | None:
        shape, path = self.decoder.shape, self._path(number)
        tokens = self.examples[number].answer_start - self.invocation
        size = (shape.layers, 2, tokens, shape.kv_heads, shape.head)
        count = math.prod(size)
        if not path.is_file() or path.stat().st_size != self.dtype.itemsize * count:
            return None
        return torch.from_file(str(path), shared=False, size=count, dtype=self.dtype).view(size)

    def _write(self, number: int, past: torch.Tensor) -> None:
        if past.nbytes > self.room:
            return
        scratch = self._path(number).with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            past.numpy().tofile(scratch)
            scratch.replace(self._path(number))
        except OSError:  # the disk is full: what is not kept is computed again
            with suppress(OSError):
                scratch.unlink()
            self.room = 0
            return
        self.room -= past.nbytes

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.f16"


def _tensor(example: Encoded) -> torch.Tensor:
    return torch.tensor(list(example.tokens), dtype=torch.int64)


def invocation_tokens(examples: Sequence[Encoded]) -> tuple[int, ...]:
    """The generation prompt, at which the adapter wakes.

    Raises:
        TrainingError: The prompts do not end alike, so nothing could tell a runtime when to wake it.
    """
    ends = {tuple(one.tokens[one.answer_start - one.header_tokens : one.answer_start]) for one in examples}
    if len(ends) != 1 or ends == {()}:
        raise TrainingError(
            "the prompts do not end in one generation prompt, which activated LoRA needs to know when to act",
            fix='method = "lora" in [tuning] of graft.toml',
        )
    return ends.pop()


def activated_config(invocation: Sequence[int]) -> dict[str, Any]:
    """What PEFT's configuration says of an activated adapter."""
    return {"alora_invocation_tokens": list(invocation)}
