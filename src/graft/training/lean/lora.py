"""LoRA matrices as views of one flat vector <-> PEFT's folder.

One vector makes the optimiser, the clipping of gradients and a checkpoint one operation each.
It does not know what the matrices are multiplied with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from graft.training.lean.shape import Shape

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model.model.layers"


class Adapter:
    """A and B of every linear in every layer: y = x (W + scale * B A)^T.

    Attributes:
        vector, gradient: All weights, and their gradient, float32, one dimension.
        a, b: (layer, module) -> views of `vector`, (rank, inputs) and (outputs, rank).
        grad_a, grad_b: Likewise of `gradient`.
            Modules that share an input lie side by side, so that their A are one matrix.
    """

    def __init__(self, shape: Shape, *, rank: int, alpha: float, seed: int) -> None:
        """B is zero and A is drawn as PEFT draws it: Kaiming-uniform with a = sqrt(5)."""
        self.shape, self.rank, self.alpha, self.scale = shape, rank, alpha, alpha / rank
        self.vector = torch.zeros(shape.lora_weights(rank))
        self.gradient = torch.zeros_like(self.vector)
        self.a: dict[tuple[int, str], Tensor] = {}
        self.b: dict[tuple[int, str], Tensor] = {}
        self.grad_a: dict[tuple[int, str], Tensor] = {}
        self.grad_b: dict[tuple[int, str], Tensor] = {}
        self._place = 0
        random = torch.Generator().manual_seed(seed)
        for layer in range(shape.layers):
            for module, (_, inputs) in shape.linears.items():
                self.a[layer, module], self.grad_a[layer, module] = self._take(rank, inputs)
                bound = 1 / math.sqrt(inputs)  # kaiming_uniform_(a=sqrt(5)): sqrt(6 / ((1 + 5) * inputs))
                self.a[layer, module].uniform_(-bound, bound, generator=random)
            for module, (outputs, _) in shape.linears.items():
                self.b[layer, module], self.grad_b[layer, module] = self._take(outputs, rank)

    def _take(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        start, self._place = self._place, self._place + rows * columns
        return tuple(whole[start : self._place].view(rows, columns) for whole in (self.vector, self.gradient))  # type: ignore[return-value]

    def stacked(self, layer: int, modules: Sequence[str]) -> tuple[Tensor, Tensor]:
        """A of neighbouring modules as one matrix (len(modules) * rank, inputs), and its gradient."""
        first = self.a[layer, modules[0]]
        size, at = first.numel() * len(modules), first.storage_offset()
        return tuple(whole[at : at + size].view(-1, first.shape[1]) for whole in (self.vector, self.gradient))  # type: ignore[return-value]

    def tensors(self) -> dict[str, Tensor]:
        """Under PEFT's names."""
        named = {}
        for layer, module in self.a:
            named[f"{_PREFIX}.{layer}.{module}.lora_A.weight"] = self.a[layer, module]
            named[f"{_PREFIX}.{layer}.{module}.lora_B.weight"] = self.b[layer, module]
        return named

    def save(self, folder: Path, *, base: str, extra: dict[str, Any] | None = None) -> None:
        """Write PEFT's two files. `extra` joins the configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.tensors().items()}, folder / WEIGHTS)
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "target_modules": sorted(module.rpartition(".")[2] for module in self.shape.linears),
        }
        (folder / CONFIG).write_text(json.dumps(config | (extra or {}), indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take the weights of a folder written by `save`, or by PEFT for the same modules and rank: all, or none.

        Raises:
            KeyError: A matrix is missing.
            RuntimeError: One has another size.
        """
        found = load_file(folder / WEIGHTS)
        pairs = [(tensor, found[name]) for name, tensor in self.tensors().items()]
        for tensor, other in pairs:
            if tensor.shape != other.shape:
                raise RuntimeError(f"a matrix of {tuple(other.shape)}, not {tuple(tensor.shape)}")
        for tensor, other in pairs:
            tensor.copy_(other)
