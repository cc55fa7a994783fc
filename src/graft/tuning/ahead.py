"""A base + examples -> the run, its trainer, and what it would take. Nothing is trained.

It does not know files, nor how any of it is shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graft.dataset import Example
from graft.models import Message, open_model
from graft.prompting import CountTokens
from graft.settings import Settings, model_cache
from graft.training.checkpoint import load_tokenizer, open_checkpoint
from graft.training.encoding import Encoding, encode, require_all
from graft.training.hosted import HostedTrainer, unencoded
from graft.training.machine import disk_mb, memory_mb
from graft.training.opening import open_trainer
from graft.training.preflight import Preflight, preflight
from graft.training.protocol import Trainer, TrainRun
from graft.training.schedule import plan
from graft.tuning.bases import Base, HostedBase

_COUNTED = 200
"""Examples whose tokens are counted to estimate those of all; counting a provider's takes a millisecond each."""
_LEAST_HOSTED = 10
"""OpenAI refuses fewer examples, after the upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A run that can begin.

    Attributes:
        longest_answer: Tokens of the longest answer that is learnt; estimated for a hosted base.
    """

    run: TrainRun
    trainer: Trainer
    preflight: Preflight
    notes: tuple[str, ...]
    longest_answer: int


def look_ahead(
    base: Base | HostedBase,
    train: Sequence[Example],
    dev: Sequence[Example],
    settings: Settings,
    folder: Path,
    *,
    price_usd: float | None = None,
) -> Ahead:
    """Encode the examples and estimate the run.

    Args:
        folder: Of the run's states.
        price_usd: Of a million trained tokens at the base's provider; None where it is not known.
    Raises:
        TrainingError: An example does not fit the model's context.
        ModelError: The base cannot be opened.
    """
    if isinstance(base, HostedBase):
        return _hosted(base, train, dev, settings, folder, price_usd)
    checkpoint = open_checkpoint(base.checkpoint)
    tokenizer = load_tokenizer(checkpoint)
    context = min(settings.tuning.context_tokens, checkpoint.context_tokens)
    encodings: list[Encoding] = []
    for part in (train, dev):
        encodings.append(encode(part, tokenizer, context_tokens=context, truncate=settings.tuning.truncate))
        if part:
            require_all(encodings[-1], truncate=settings.tuning.truncate)
    learnt, watched = (encoding.encoded for encoding in encodings)
    run = TrainRun(checkpoint=base.checkpoint, train=learnt, dev=watched, settings=settings.tuning, folder=folder)
    trainer = open_trainer(run)
    refused = [one for encoding in encodings for one in encoding.refused]
    return Ahead(
        run=run,
        trainer=trainer,
        preflight=preflight(run, tokenizer, trainer, refused=refused),
        notes=tuple(note for encoding in encodings for note in encoding.notes),
        longest_answer=max((len(one.tokens) - one.answer_start for one in learnt), default=0),
    )


def token_counter(base: Base | HostedBase, settings: Settings) -> CountTokens:
    """Counts the tokens of a prompt as the served model will."""
    if isinstance(base, HostedBase):
        return open_model(base.spec, settings=settings.model, cache=model_cache()).count_tokens
    tokenizer = load_tokenizer(open_checkpoint(base.checkpoint))

    def count(messages: Sequence[Message]) -> int:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count


def _hosted(
    base: HostedBase,
    train: Sequence[Example],
    dev: Sequence[Example],
    settings: Settings,
    folder: Path,
    price_usd: float | None,
) -> Ahead:
    """What is known before a provider is asked: roughly the tokens, and the cost where the price is known."""
    run = TrainRun(
        checkpoint=folder / "hosted",  # no such folder: the weights are the provider's
        train=unencoded(train),
        dev=unencoded(dev),
        settings=settings.tuning,
        folder=folder,
    )
    trainer = HostedTrainer(base.model, base_url=base.base_url, key_env=base.key_env)
    count = token_counter(base, settings)
    every = max(1, len(train) // _COUNTED)
    whole = [count(example.messages) for example in train[::every]]
    answers = [count(example.messages[-1:]) for example in train[::every]]
    longest = max(train, key=lambda example: len(example.answer), default=None)
    tokens = round(statistics.fmean(whole) * len(train)) if whole else 0
    passes = max(1, round(settings.tuning.epochs))
    ahead = Preflight(
        examples=(),
        template="",
        trainer=trainer.name,
        train=len(train),
        dev=len(dev),
        refused=(),
        shortened=0,
        steps=plan(settings.tuning, max(1, len(train))).steps,
        tokens=tokens,
        answer_tokens=round(statistics.fmean(answers) * len(train)) if answers else 0,
        longest=max(whole, default=0),
        seconds=None,
        memory_mb=None,
        free_memory_mb=memory_mb(),
        disk_mb=sum(len(turn.content) for example in train for turn in example.messages) / 1e6,
        free_disk_mb=disk_mb(folder),
        cost_usd=None if price_usd is None else price_usd * passes * tokens / 1e6,
        warnings=(f"the examples leave this machine, to {base.base_url or 'OpenAI'}",),
        refusals=tuple(_refusals(trainer, run, base)),
    )
    return Ahead(
        run=run,
        trainer=trainer,
        preflight=ahead,
        notes=(f"tokens are estimated from {len(whole)} examples",),
        longest_answer=0 if longest is None else count(longest.messages[-1:]),
    )


def _refusals(trainer: HostedTrainer, run: TrainRun, base: HostedBase) -> list[str]:
    found = []
    if len(run.train) < _LEAST_HOSTED:
        found.append(
            f"{len(run.train)} examples to learn from; a provider wants {_LEAST_HOSTED} / fix: give more examples"
        )
    if reason := trainer.refuse(run):
        remedy = f"export {base.key_env}=..." if "key" in reason else "--set method=lora"
        found.append(f"{base.name} cannot be tuned: {reason} / fix: {remedy}")
    return found
