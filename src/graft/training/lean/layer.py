"""One decoder layer: x -> y with what its backward needs, and the gradient of y -> the gradient of x.

Rows of several examples lie end to end in x, without padding, what they share once: T tokens in all. Only the
attention tells rows apart.
It does not know tokens or losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import silu

from graft.training.lean.attention import Attended, attend, attend_backward, rotate
from graft.training.lean.linear import Linear
from graft.training.lean.lora import Adapter
from graft.training.lean.shape import Shape


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the segments of rows lie in a packed batch, and what each was preceded by.

    Attributes:
        spans: Start and end of each segment.
        before: For each segment the spans of those that it follows; they come before it.
        cosine, sine: Of every token's position, (T, 1, head).
        past: For each segment, keys and values of the tokens before it, (layers, 2, P, kv_heads, head); or empty.
    """

    spans: tuple[tuple[int, int], ...]
    before: tuple[tuple[tuple[int, int], ...], ...]
    cosine: Tensor
    sine: Tensor
    past: tuple[Tensor, ...] = ()


@dataclass(slots=True)
class Kept:
    """What a layer's backward needs; all else is computed again, which is cheaper than to store it."""

    x: Tensor
    x_scale: Tensor
    attended: list[Attended]
    read: Tensor
    middle: Tensor
    middle_scale: Tensor
    gate_up: Tensor


class Layer:
    """Norm, attention, norm, gated feed-forward, each half added to its input."""

    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, Tensor],
        adapter: Adapter,
        number: int,
        *,
        products: torch.dtype = torch.float32,
    ) -> None:
        """`weights` are the layer's tensors by their names within it; `products` see `Linear`."""
        self.shape, self.number = shape, number
        self.norm = weights["input_layernorm.weight"].clone()
        self.norm2 = weights["post_attention_layernorm.weight"].clone()

        def linear(*modules: str) -> Linear:
            return Linear(weights, adapter, number, modules, products=products)

        self.qkv = linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self.out = linear("self_attn.o_proj")
        self.gate_up = linear("mlp.gate_proj", "mlp.up_proj")
        self.down = linear("mlp.down_proj")
        self.linears = (self.qkv, self.out, self.gate_up, self.down)

    def keys_values(self, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Rotated keys, and values, of the base model alone: all that is ever read of a prompt in the last layer."""
        qkv = self.qkv.forward(x * norm_scale(x, self.shape.eps) * self.norm, adapted=False)
        return self._split(qkv, rows)[1:]

    def forward(self, x: Tensor, rows: Rows, *, adapted: bool = True) -> tuple[Tensor, Kept]:
        """Shapes: x (T, hidden) -> (T, hidden)."""
        x_scale = norm_scale(x, self.shape.eps)
        qkv = self.qkv.forward(x * x_scale * self.norm, adapted=adapted)
        query, keys, values = self._split(qkv, rows)
        states = []
        for place, (start, end) in enumerate(rows.spans):
            k, v = keys[start:end], values[start:end]
            if rows.past:
                k, v = (torch.cat([rows.past[place][self.number, i].to(new), new]) for i, new in enumerate((k, v)))
            elif earlier := rows.before[place]:
                k, v = (torch.cat([*(all_[a:b] for a, b in earlier), all_[start:end]]) for all_ in (keys, values))
            states.append(attend(query[start:end], k, v))
        read = torch.cat([state.output.reshape(len(state.output), -1) for state in states])
        for state, (start, end) in zip(states, rows.spans, strict=True):
            state.output = read[start:end].view(state.output.shape)  # one copy is kept, not two
        middle = self.out.forward(read, add_to=x, adapted=adapted)
        middle_scale = norm_scale(middle, self.shape.eps)
        gate_up = self.gate_up.forward(middle * middle_scale * self.norm2, adapted=adapted)
        gate, up = _halves(gate_up)
        y = self.down.forward(silu(gate).mul_(up), add_to=middle, adapted=adapted)
        kept = Kept(
            x=x,
            x_scale=x_scale,
            attended=states,
            read=read,
            middle=middle,
            middle_scale=middle_scale,
            gate_up=gate_up,
        )
        return y, kept

    def backward(self, kept: Kept, dy: Tensor, rows: Rows, *, to_input: bool = True) -> Tensor:
        """Add to the adapter's gradients; overwrites `dy` and returns the gradient of x in its place.

        `to_input` False leaves out what only the layer below would need.
        """
        gate, up = _halves(kept.gate_up)
        opened = silu(gate)
        d_inner = self.down.backward(opened * up, dy)
        d_gate_up = torch.empty_like(kept.gate_up)
        d_gate, d_up = _halves(d_gate_up)
        torch.mul(d_inner, opened, out=d_up)
        d_gate.copy_(torch.ops.aten.silu_backward(d_inner.mul_(up), gate))
        d_normed = self.gate_up.backward(kept.middle * kept.middle_scale * self.norm2, d_gate_up)
        norm_backward(d_normed, kept.middle, kept.middle_scale, self.norm2, add_to=dy)
        d_qkv = self._attention_backward(kept, self.out.backward(kept.read, dy), rows)
        d_normed = self.qkv.backward(kept.x * kept.x_scale * self.norm, d_qkv, to_input=to_input)
        if to_input:
            norm_backward(d_normed, kept.x, kept.x_scale, self.norm, add_to=dy)
        return dy

    def _attention_backward(self, kept: Kept, d_read: Tensor, rows: Rows) -> Tensor:
        shape = self.shape
        d_heads = torch.empty(len(d_read), shape.heads + 2 * shape.kv_heads, shape.head)
        turning = shape.heads + shape.kv_heads
        d_turned, d_values = d_heads[:, :turning], d_heads[:, turning:]
        for (start, end), earlier, state in zip(rows.spans, rows.before, kept.attended, strict=True):
            d_output = d_read[start:end].view(state.output.shape)
            dq, dk, dv = attend_backward(state, d_output, whole=bool(earlier))
            at = 0
            for a, b in earlier:  # which have theirs from before: a segment follows those that it reads
                d_turned[a:b, shape.heads :] += dk[at : at + b - a]
                d_values[a:b] += dv[at : at + b - a]
                at += b - a
            d_turned[start:end, : shape.heads] = dq
            d_turned[start:end, shape.heads :] = dk[at:]
            d_values[start:end] = dv[at:]
        d_turned.copy_(rotate(d_turned, rows.cosine, rows.sine, back=True))
        return d_heads.view(len(d_read), -1)

    def _split(self, qkv: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        shape = self.shape
        heads = qkv.view(len(qkv), shape.heads + 2 * shape.kv_heads, shape.head)
        turning = shape.heads + shape.kv_heads
        turned = rotate(heads[:, :turning], rows.cosine, rows.sine)
        values = heads[:, turning:].clone()  # a view would keep all of qkv alive
        return turned[:, : shape.heads], turned[:, shape.heads :], values


def _halves(gate_up: Tensor) -> tuple[Tensor, Tensor]:
    middle = gate_up.shape[1] // 2
    return gate_up[:, :middle], gate_up[:, middle:]


def norm_scale(x: Tensor, eps: float) -> Tensor:
    """1 / root mean square of each row, (T, 1)."""
    squares = torch.linalg.vector_norm(x, dim=1, keepdim=True).square_()
    scale: Tensor = squares.div_(x.shape[1]).add_(eps).rsqrt_()
    return scale


def norm_backward(dy: Tensor, x: Tensor, scale: Tensor, weight: Tensor, *, add_to: Tensor) -> None:
    """Backward of y = x * scale * weight with scale = norm_scale(x); overwrites `dy`.

    With g = dy * weight:  dx = scale * (g - x * scale^2 * mean(g x)).
    """
    g = dy.mul_(weight)
    share = torch.linalg.vecdot(g, x).unsqueeze(1).mul_(scale.square()).div_(x.shape[1])
    add_to.addcmul_(g.addcmul_(x, share, value=-1.0), scale)
