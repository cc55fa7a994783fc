"""A PEFT folder (adapter_config.json, adapter_model.safetensors) -> its low-rank pairs, checked.

What cannot be merged or exported without changing the model is refused here, in words.
It does not know the base model's weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.errors import ModelError

if TYPE_CHECKING:
    import torch

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_KEY = re.compile(rf"{re.escape(_PREFIX)}(?P<module>.+)\.lora_(?P<part>[AB])(\.default)?\.weight")


_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq")
"""PEFT's ways to begin an adapter that leave other base weights than the checkpoint's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """One module's pair: its weight W becomes W + scale * B @ A.

    Attributes:
        module: The base's name for it, `model.layers.0.self_attn.q_proj`.
        a_key, b_key: Of the tensors in the file. Shapes: A (rank, in), B (out, rank).
    """

    module: str
    a_key: str
    b_key: str
    rank: int
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter on disk.

    Attributes:
        sha256: Of the weights and of every scale: what changes the model, and nothing else.
        pairs: By module, in the file's order.
        invocation_tokens: Of an activated adapter: ids of the text from which on it acts. None for an ordinary one.
    """

    folder: Path
    sha256: str
    base: str
    alpha: float
    pairs: Mapping[str, LowRank]
    invocation_tokens: tuple[int, ...] | None

    @property
    def activated(self) -> bool:
        """Whether it leaves the prompt to the base, and so is no change of weights."""
        return self.invocation_tokens is not None

    def tensors(self) -> Iterator[tuple[LowRank, torch.Tensor, torch.Tensor]]:
        """Each pair with its A and B in float32, one in memory at a time."""
        from safetensors import safe_open

        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            for pair in self.pairs.values():
                yield pair, file.get_tensor(pair.a_key).float(), file.get_tensor(pair.b_key).float()


def read_adapter(folder: Path) -> Adapter:
    """Open a PEFT folder.

    Raises:
        ModelError: No adapter there, a pickled or damaged one, or of a kind that W + scale * B @ A does not describe
            (DoRA, trained biases, whole layers, embeddings).
    """
    config = _config(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickled = "; its weights are pickled, and loading those can run code" if any(folder.glob("*.bin")) else ""
        raise ModelError(f"{folder} has no {WEIGHTS}{pickled}", fix="save it again with safe_serialization=True")
    for wrong in _unfit(config):
        raise ModelError(f"{folder} cannot be merged or exported: {wrong}", fix="train a plain LoRA adapter")
    pairs = _pairs(weights, config)
    return Adapter(
        folder=folder,
        sha256=_identity(weights, pairs),
        base=str(config.get("base_model_name_or_path") or ""),
        alpha=float(config["lora_alpha"]),
        pairs=pairs,
        invocation_tokens=read_invocation(folder),
    )


def read_invocation(folder: Path) -> tuple[int, ...] | None:
    """The tokens from which on the adapter acts; None for an ordinary one. Its weights are not looked at."""
    tokens = _config(folder).get("alora_invocation_tokens")
    return tuple(int(token) for token in tokens) if tokens else None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        float(config["lora_alpha"]), int(config["r"])
    except OSError as error:
        raise ModelError(
            f"{folder} is no adapter: {CONFIG} cannot be read ({error.strerror})",
            fix="give a folder made by graft tune",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}", fix="export or train the adapter again") from error
    return dict(config)


def _unfit(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("peft_type") != "LORA":
        yield f"it is of the kind {config.get('peft_type')!r}, not LORA"
    for variant in ("use_dora", "use_qalora", "use_bdlora"):
        if config.get(variant):
            yield f"it is no plain LoRA ({variant})"
    if config.get("fan_in_fan_out"):
        yield "its base keeps weights transposed (fan_in_fan_out)"
    if str(config.get("init_lora_weights")).partition("_niter")[0] in _CHANGES_THE_BASE:
        yield f"its start took a part out of the base's weights ({config['init_lora_weights']})"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        yield "it trained biases too"
    if config.get("modules_to_save"):
        yield f"it replaces whole modules ({', '.join(map(str, config['modules_to_save']))})"


def _pairs(weights: Path, config: Mapping[str, Any]) -> dict[str, LowRank]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{weights} is damaged: {error}", fix="export or train the adapter again") from error
    found: dict[str, dict[str, str]] = {}
    for key in shapes:
        match = _KEY.fullmatch(key)
        if match is None:
            raise ModelError(f"{weights} holds {key!r}, which is no LoRA matrix", fix="train a plain LoRA adapter")
        found.setdefault(match["module"], {})[match["part"]] = key
    pairs = {}
    for module, keys in found.items():
        if set(keys) != {"A", "B"} or shapes[keys["A"]][0] != shapes[keys["B"]][1]:
            raise ModelError(f"{weights}: the two matrices of {module} do not fit", fix="train the adapter again")
        rank = shapes[keys["A"]][0]
        pairs[module] = LowRank(
            module=module, a_key=keys["A"], b_key=keys["B"], rank=rank, scale=_scale(module, rank, config)
        )
    if not pairs:
        raise ModelError(f"{weights} is empty", fix="train the adapter again")
    return pairs


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """PEFT's scale: alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA; alpha may differ by module."""
    alpha = float(config["lora_alpha"])
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = float(own)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _identity(weights: Path, pairs: Mapping[str, LowRank]) -> str:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps({module: pair.scale for module, pair in sorted(pairs.items())}).encode())
    return digest.hexdigest()
