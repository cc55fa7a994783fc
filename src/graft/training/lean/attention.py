"""Queries, keys, values of one row -> what each token attends to, and the way back; rotary positions.

It does not know layers or batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graft.training.lean.shape import Shape

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def rotary_tables(shape: Shape, length: int, config: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each position, (length, head) each, as transformers computes them."""
    scaling = 1.0
    if shape.rope["rope_type"] == "default":
        steps = torch.arange(0, shape.head, 2, dtype=torch.int64).float() / shape.head
        frequencies = 1.0 / float(shape.rope["rope_theta"]) ** steps
    else:
        from transformers import AutoConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        described = AutoConfig.for_model(**config)
        frequencies, scaling = ROPE_INIT_FUNCTIONS[shape.rope["rope_type"]](described, torch.device("cpu"))
    angles = torch.outer(torch.arange(length).float(), frequencies)
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos() * scaling, angles.sin() * scaling


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, *, back: bool = False) -> Tensor:
    """Turn each pair (i, i + half) of every head by its position's angle; `back` by its negative.

    Shapes: x (T, heads, head), cosine and sine (T, 1, head) -> (T, heads, head).
    """
    half = x.shape[-1] // 2
    sign = 1.0 if back else -1.0
    turned = x * cosine
    turned[..., :half].addcmul_(x[..., half:], sine[..., :half], value=sign)
    turned[..., half:].addcmul_(x[..., :half], sine[..., half:], value=-sign)
    return turned


@dataclass(slots=True)
class Attended:
    """One row's attention, with what its backward needs.

    Attributes:
        query: (n, heads, head).
        keys, values: (m, kv_heads, head).
        output: What was read, (n, heads, head).
        log_sum: Of each query's scores, in the order in which they were computed.
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    output: Tensor
    log_sum: Tensor


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Attended:
    """Causal attention of the last n of m positions; query head h reads key head h // (heads / kv_heads).

    Shapes: query (n, heads, head); keys, values (m, kv_heads, head), m >= n.
    """
    if len(query) == len(keys):
        output, log_sum = _forward(*_wide(query, keys, values), 0.0, True)
        return Attended(query, keys, values, output[0].transpose(0, 1), log_sum)
    scores = _scores(query, keys)
    sums = scores.logsumexp(dim=2, keepdim=True)
    read = scores.sub_(sums).exp_() @ values.transpose(0, 1)
    return Attended(query, keys, values, _apart(read, len(query)), sums)


def attend_backward(state: Attended, gradient: Tensor, *, whole: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (n, ...), and of keys and values: of all m, or without `whole` of the last n only.

    `gradient` is that of `output`.
    """
    n, heads, head = state.query.shape
    if n == len(state.keys):
        given, output = (x.transpose(0, 1).unsqueeze(0) for x in (gradient, state.output))
        wide = _wide(state.query, state.keys, state.values)
        dq, dk, dv = _backward(given, *wide, output, state.log_sum, 0.0, True)
        shared = (x[0].view(-1, heads // state.keys.shape[1], n, head).sum(1).transpose(0, 1) for x in (dk, dv))
        return dq[0].transpose(0, 1), *shared
    kv_heads = state.keys.shape[1]
    query, given, output = (_grouped(x, kv_heads) for x in (state.query, gradient, state.output))
    chances = _scores(state.query, state.keys).sub_(state.log_sum).exp_()
    d_scores = given @ state.values.permute(1, 2, 0)
    d_scores.sub_((given * output).sum(dim=2, keepdim=True)).mul_(chances).mul_(head**-0.5)
    first = 0 if whole else len(state.keys) - n
    d_keys, d_values = (part[:, :, first:].transpose(1, 2) @ x for part, x in ((d_scores, query), (chances, given)))
    return _apart(d_scores @ state.keys.transpose(0, 1), n), d_keys.transpose(0, 1), d_values.transpose(0, 1)


def _wide(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    """In the kernel's order, (1, heads, length, head), each key head repeated for its queries."""
    groups = query.shape[1] // keys.shape[1]
    repeated = (x.repeat_interleave(groups, dim=1) for x in (keys, values))
    return tuple(x.transpose(0, 1).unsqueeze(0) for x in (query, *repeated))


def _scores(query: Tensor, keys: Tensor) -> Tensor:
    """Masked and scaled products, (kv_heads, heads / kv_heads * n, m): short answers to long pasts, without a kernel.

    The kernel would repeat the past for every query head; after a fixed past it would also compute gradients that
    nobody needs.
    """
    n, heads, head = query.shape
    m, kv_heads, _ = keys.shape
    mask = torch.full((n, m), float("-inf")).triu_(m - n + 1).repeat(heads // kv_heads, 1)
    return torch.baddbmm(mask, _grouped(query, kv_heads), keys.permute(1, 2, 0), alpha=head**-0.5)


def _grouped(x: Tensor, kv_heads: int) -> Tensor:
    """(n, heads, head) -> (kv_heads, heads / kv_heads * n, head): queries of one key head as one matrix."""
    n, heads, head = x.shape
    return x.reshape(n, kv_heads, heads // kv_heads, head).permute(1, 2, 0, 3).reshape(kv_heads, -1, head)


def _apart(x: Tensor, n: int) -> Tensor:
    """The way back of `_grouped`."""
    kv_heads, _, head = x.shape
    return x.view(kv_heads, -1, n, head).permute(2, 0, 1, 3).reshape(n, -1, head)
