"""a model's size and its tokens -> which GPU it takes, hours of training, and a question's share of a rented GPU.

It does not know what is asked or learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from graft.advising.prices import Gpu, Prices

HOURS_A_MONTH = 730.0
_SERVING_BYTES = 2 * 1.2
"""A parameter's, in 16 bits, with a fifth more for the context's keys and values."""
_TRAINING_BYTES = 2 * 1.5
"""A parameter's, in 16 bits, with half as much again for the adapter and what a step keeps."""
_FLOP = 6
"""A parameter's and token's in LoRA with checkpointing: forward 2, forward again 2, backward to the inputs 2."""


def gpu_for_training(billions: float, prices: Prices) -> tuple[str, int]:
    """The name of the cheapest that holds a model while it is tuned by LoRA, and how many of it."""
    return _cheapest(billions * _TRAINING_BYTES, prices)


def training_hours(tokens: float, billions: float, gpu: Gpu, gpus: int, prices: Prices) -> float:
    """Of a LoRA run over `tokens`, all epochs together, setting up included."""
    training = prices.training
    per_hour = gpus * gpu.tflops * 1e12 * training.utilisation * 3600
    return tokens * _FLOP * billions * 1e9 / per_hour + training.setup_hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model on rented GPUs.

    Attributes:
        gpus: As many as hold it once; that many are always on, and more come and go with the questions.
    """

    gpu: Gpu
    name: str
    gpus: int
    usd_per_question: float
    least_usd_per_month: float


def served(prompt_tokens: float, answer_tokens: float, billions: float, prices: Prices) -> tuple[Served, ...]:
    """A model on each kind of GPU."""
    options = []
    for name, gpu in prices.gpu.items():
        gpus = ceil(billions * _SERVING_BYTES / gpu.memory_gb)
        options.append(
            Served(
                gpu=gpu,
                name=name,
                gpus=gpus,
                usd_per_question=_usd_per_question(prompt_tokens, answer_tokens, gpu, billions, prices),
                least_usd_per_month=gpus * HOURS_A_MONTH * gpu.usd_per_hour,
            )
        )
    return tuple(options)


def _usd_per_question(prompt: float, answer: float, gpu: Gpu, billions: float, prices: Prices) -> float:
    """A question's share of a GPU kept busy to `utilisation`: prompts cost arithmetic, answers bandwidth.

    More GPUs at once are as much faster as they cost more.
    """
    serving = prices.serving
    size = billions / serving.billions
    prompt_s = prompt / serving.prompt_tokens_per_s * size * serving.tflops / gpu.tflops
    answer_s = answer / serving.answer_tokens_per_s * size * serving.bandwidth_gb_s / gpu.bandwidth_gb_s
    return (prompt_s + answer_s) / serving.utilisation / 3600 * gpu.usd_per_hour


def _cheapest(needed_gb: float, prices: Prices) -> tuple[str, int]:
    counts = {name: ceil(needed_gb / gpu.memory_gb) for name, gpu in prices.gpu.items()}
    chosen = min(counts, key=lambda name: counts[name] * prices.gpu[name].usd_per_hour)
    return chosen, counts[chosen]
