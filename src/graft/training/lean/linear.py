"""Linears that share an input, with their adapters, as one matrix product forward and one backward.

It does not know what they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from graft.training.lean.lora import Adapter


class Linear:
    """y = x (W + scale * B A)^T + bias, with W and bias frozen.

    W + scale * B A is computed once for each step of the optimiser, in `merge`: a token then costs one product
    forward and one backward, as without an adapter. The adapter's gradients need four thin products more.
    In bfloat16 the two wide products take rounded inputs and weights; sums, the adapter and its gradients stay
    in float32.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        adapter: Adapter,
        layer: int,
        modules: Sequence[str],
        *,
        products: torch.dtype = torch.float32,
    ) -> None:
        """`weights` are the layer's tensors by name, "MODULE.weight" and where there is one "MODULE.bias"."""
        self.base = torch.cat([weights[f"{module}.weight"] for module in modules])
        self.merged = torch.empty_like(self.base, dtype=products)
        outputs = [weights[f"{module}.weight"].shape[0] for module in modules]
        biases = [weights.get(f"{module}.bias", torch.zeros(n)) for module, n in zip(modules, outputs, strict=True)]
        self.bias = torch.cat(biases) if any(f"{module}.bias" in weights for module in modules) else None
        ends = torch.tensor(outputs).cumsum(0).tolist()
        self.parts = tuple(slice(end - size, end) for end, size in zip(ends, outputs, strict=True))
        self.scale, self.rank = adapter.scale, adapter.rank
        self.a, self.grad_a = adapter.stacked(layer, modules)
        self.b = [adapter.b[layer, module] for module in modules]
        self.grad_b = [adapter.grad_b[layer, module] for module in modules]

    def merge(self) -> None:
        """Take the adapter's present weights into account."""
        for number, (part, b) in enumerate(zip(self.parts, self.b, strict=True)):
            a = self.a[number * self.rank : (number + 1) * self.rank]
            self.merged[part] = torch.addmm(self.base[part], b, a, alpha=self.scale)

    def forward(self, x: Tensor, *, add_to: Tensor | None = None, adapted: bool = True) -> Tensor:
        """Shapes: x (T, inputs) -> (T, outputs); `add_to` (T, outputs) is added."""
        weight = (self.merged if adapted else self.base).t()
        if self.bias is not None:
            add_to = self.bias if add_to is None else add_to + self.bias
        if weight.dtype != x.dtype:
            y = (x.to(weight.dtype) @ weight).to(x.dtype)
            return y if add_to is None else y.add_(add_to)
        return x @ weight if add_to is None else torch.addmm(add_to, x, weight)

    def backward(self, x: Tensor, dy: Tensor, *, to_input: bool = True) -> Tensor:
        """Add to the adapter's gradients and return the gradient of x.

        With P = x A^T and Q = scale * dy B:  dB += scale * dy^T P,  dA += Q^T x,  dx = dy (W + scale * B A).
        Shapes: x (T, inputs), dy (T, outputs) -> (T, inputs), or dy itself where `to_input` is False.
        """
        inner = x @ self.a.t()
        outer = torch.empty_like(inner)
        for number, (part, b, grad_b) in enumerate(zip(self.parts, self.b, self.grad_b, strict=True)):
            own = slice(number * self.rank, (number + 1) * self.rank)
            grad_b.addmm_(dy[:, part].t(), inner[:, own], alpha=self.scale)
            outer[:, own] = dy[:, part] @ b
        self.grad_a.addmm_(outer.t(), x, alpha=self.scale)
        return (dy.to(self.merged.dtype) @ self.merged).to(dy.dtype) if to_input else dy
