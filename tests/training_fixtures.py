"""A small random llama with a tokenizer of its own, made in a moment: the whole path, without the wait.

Files tests/test_training*.py use it; they hold what depends on size against the real model, marked slow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graft.dataset import Example
from graft.models import Message
from graft.settings import TuningSettings

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ANIMALS = ("fox", "owl", "bear", "hare", "wolf", "frog", "crow", "deer", "newt", "toad")


def tokenizer_files(folder: Path, *, template: str = CHATML, pad: str | None = "<|im_end|>") -> None:
    """A byte-level BPE tokenizer trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"the {a} lives in the wood\n\nassistant user\n" for a in ANIMALS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, "unk_token": "<unk>",
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
    }  # fmt: skip
    if pad:
        config["pad_token"] = pad
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def small_checkpoint(folder: Path, *, kind: str = "llama", tied: bool = True) -> Path:
    """A random decoder of 3 layers with grouped queries."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_files(folder)
    torch.manual_seed(7)
    config = AutoConfig.for_model(
        kind, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, vocab_size=400, max_position_embeddings=256, tie_word_embeddings=tied,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # fresh ones are all 1 or 0 and would hide mistakes
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
    model.save_pretrained(folder)
    return folder


def examples(count: int) -> list[Example]:
    """Questions of different lengths with one-word answers."""
    made = []
    for number in range(count):
        animal = ANIMALS[number % len(ANIMALS)]
        question = f"Which animal is number {number % len(ANIMALS)}?" + " Think of the wood." * (number % 4)
        messages = (Message("user", question), Message("assistant", f"the {animal}"))
        made.append(Example(id=str(number), messages=messages, origin=f"made.jsonl:{number + 1}"))
    return made


def quick(**changes: Any) -> TuningSettings:
    """Settings for runs of a second."""
    return TuningSettings(
        **({"rank": 4, "alpha": 8.0, "epochs": 2.0, "batch_size": 4, "micro_tokens": 128, "learning_rate": 1e-2,
            "evaluate_steps": 5, "checkpoint_steps": 4, "patience": 0, "threads": 1} | changes)
    )  # fmt: skip
