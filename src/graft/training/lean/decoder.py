"""Packed examples -> the sum of their answers' losses, and the adapter's gradient.

It does not know optimisers, batches or files of examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graft.errors import ModelError
from graft.training.checkpoint import Checkpoint
from graft.training.lean.attention import rotary_tables
from graft.training.lean.layer import Kept, Layer, Rows, norm_backward, norm_scale
from graft.training.lean.lora import Adapter
from graft.training.lean.shape import read_shape, why_not
from graft.training.lean.sharing import Segment, common_tokens, segments

_LOGIT_ROWS = 128
"""Answer tokens whose logits exist at once: 25 MB of a 49,152-word vocabulary."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example, or its end.

    Attributes:
        tokens: What is computed, (n,) int64; the last token is only a target.
        answer_start: Loss falls on tokens[answer_start:].
        past: Keys and values of the P tokens before, (layers, 2, P, kv_heads, head), as the base model makes
            them; None where there are none.
    """

    tokens: Tensor
    answer_start: int
    past: Tensor | None = None

    @property
    def answer_tokens(self) -> int:
        return len(self.tokens) - self.answer_start


class Decoder:
    """A frozen llama-like decoder with an adapter on every linear."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        rank: int,
        alpha: float,
        seed: int,
        context_tokens: int | None = None,
        products: torch.dtype = torch.float32,
    ) -> None:
        """Load the weights.

        Args:
            products: What the inputs of wide products are rounded to; all else is float32.

        Raises:
            ModelError: An architecture that is not computed here, or a tensor is missing.
        """
        if reason := why_not(checkpoint.config):
            raise ModelError(f"{checkpoint.folder}: {reason}", fix='[tuning] backend = "general" in graft.toml')
        self.shape = read_shape(checkpoint.config)
        self.adapter = Adapter(self.shape, rank=rank, alpha=alpha, seed=seed)
        loaded = dict(_tensors(checkpoint))
        try:
            self.embedding = loaded["model.embed_tokens.weight"]
            self.norm = loaded["model.norm.weight"]
            self.head = self.embedding if self.shape.tied else loaded["lm_head.weight"]
            self.layers = []
            for number in range(self.shape.layers):
                prefix = f"model.layers.{number}."
                names = [name for name in loaded if name.startswith(prefix)]
                own = {name.removeprefix(prefix): loaded.pop(name) for name in names}  # copied, then freed
                self.layers.append(Layer(self.shape, own, self.adapter, number, products=products))
        except KeyError as error:
            raise ModelError(
                f"{checkpoint.folder} lacks the tensor {error}", fix="fetch the checkpoint again"
            ) from error
        length = min(context_tokens or checkpoint.context_tokens, checkpoint.context_tokens)
        self.cosine, self.sine = rotary_tables(self.shape, length, checkpoint.config)
        self.merge()

    def merge(self) -> None:
        """Take the adapter's present weights into account; call it after every change of them."""
        for layer in self.layers:
            for linear in layer.linears:
                linear.merge()

    def measure(self, packed: Sequence[Row]) -> tuple[float, int]:
        """Sum over answer tokens of -log p(token | what precedes it), in nats, and how many answers are right.

        An answer is right if each of its tokens is the likeliest one: greedy decoding would write it.
        """
        x, rows, predicting = self._embed(packed)
        for layer in self.layers:
            x, _ = layer.forward(x, rows)
        total, first_choices = self._predict(x, packed, predicting, weight=None)
        answers = torch.split(first_choices, [row.answer_tokens for row in packed])
        right = (
            torch.equal(found, row.tokens[row.answer_start :]) for found, row in zip(answers, packed, strict=True)
        )
        return total, sum(right)

    def loss_and_gradient(self, packed: Sequence[Row], *, weight: float) -> float:
        """The same sum; `weight` times its gradient is added to `adapter.gradient`."""
        x, rows, predicting = self._embed(packed)
        kept: list[Kept] = []
        for layer in self.layers:
            x, state = layer.forward(x, rows)
            kept.append(state)
        total, gradient = self._predict(x, packed, predicting, weight=weight)
        for layer in reversed(self.layers):
            gradient = layer.backward(kept.pop(), gradient, rows, to_input=layer.number > 0)
        return total

    def pasts(self, prompts: Sequence[Tensor], *, dtype: torch.dtype = torch.float16) -> list[Tensor]:
        """Keys and values of prompts under the base model alone: (layers, 2, P, kv_heads, head) each.

        All prompts are computed together: many tokens at once make a matrix product faster.
        """
        # A row's last token is never read, so each prompt gets one more that does not matter.
        padded = [Row(torch.cat([tokens, tokens[-1:]]), answer_start=1) for tokens in prompts]
        x, rows, _ = self._embed(padded, share=False)
        shape = self.shape
        made = [torch.empty(shape.layers, 2, len(one), shape.kv_heads, shape.head, dtype=dtype) for one in prompts]
        for layer in self.layers[:-1]:
            x, kept = layer.forward(x, rows, adapted=False)
            for past, state in zip(made, kept.attended, strict=True):
                past[layer.number, 0], past[layer.number, 1] = state.keys, state.values
        keys, values = self.layers[-1].keys_values(x, rows)
        for past, (start, end) in zip(made, rows.spans, strict=True):
            past[-1, 0], past[-1, 1] = keys[start:end], values[start:end]
        return made

    def _embed(self, packed: Sequence[Row], *, share: bool = True) -> tuple[Tensor, Rows, list[Tensor]]:
        """Inputs of all segments end to end, where they lie, and which tokens predict each row's answer.

        A row's last token is predicted, never read. Without `share`, or after a past, segment i is row i.
        """
        past = tuple(row.past for row in packed if row.past is not None)
        if share and not past:
            parts = segments([row.tokens.tolist() for row in packed], [row.answer_start for row in packed])
        else:
            parts = [Segment(number, 0, len(row.tokens) - 1, (), ends_row=True) for number, row in enumerate(packed)]
        x = self.embedding[torch.cat([packed[part.row].tokens[part.start : part.stop] for part in parts])]
        places, spans, at = [], list[tuple[int, int]](), 0
        predicting = [torch.empty(0)] * len(packed)
        for part in parts:
            row = packed[part.row]
            offset, length = 0 if row.past is None else row.past.shape[2], part.stop - part.start
            places.append(torch.arange(offset + part.start, offset + part.stop))
            spans.append((at, at + length))
            at += length
            if part.ends_row:
                predicting[part.row] = torch.arange(at - row.answer_tokens, at)
        where = torch.cat(places)
        before = tuple(tuple(spans[number] for number in part.before) for part in parts)
        rows = Rows(tuple(spans), before, self.cosine[where].unsqueeze(1), self.sine[where].unsqueeze(1), past)
        return x, rows, predicting

    def _predict(
        self, x: Tensor, packed: Sequence[Row], predicting: Sequence[Tensor], *, weight: float | None
    ) -> tuple[float, Tensor]:
        """Summed loss; and with a `weight` its gradient with respect to x, (T, hidden), else the likeliest tokens."""
        chosen, target = torch.cat(list(predicting)), torch.cat([row.tokens[row.answer_start :] for row in packed])
        answers = x[chosen]
        scale = norm_scale(answers, self.shape.eps)
        normed, total = answers * scale * self.norm, 0.0
        d_normed = torch.empty_like(normed) if weight is not None else normed
        first_choices = torch.empty_like(target)
        for start in range(0, len(target), _LOGIT_ROWS):
            part = slice(start, start + _LOGIT_ROWS)
            logits, wanted = normed[part] @ self.head.t(), target[part].unsqueeze(1)
            log_sum = logits.logsumexp(dim=1, keepdim=True)
            if weight is None:
                torch.argmax(logits, dim=1, out=first_choices[part])
            total += float((log_sum - logits.gather(1, wanted)).sum(dtype=torch.float64))
            if weight is not None:
                chances = logits.sub_(log_sum).exp_()
                chances.scatter_add_(1, wanted, torch.full_like(log_sum, -1.0))
                torch.mm(chances, self.head, out=d_normed[part]).mul_(weight)
        if weight is None:
            return total, first_choices
        d_answers = torch.zeros_like(answers)
        norm_backward(d_normed, answers, scale, self.norm, add_to=d_answers)
        return total, torch.zeros_like(x).index_copy_(0, chosen, d_answers)


def packs(rows: Sequence[Row], *, tokens: int) -> Iterator[list[Row]]:
    """Rows in groups of about `tokens`, what neighbours share counted once, or of one; alike rows are neighbours."""
    group: list[Row] = []
    count, last = 0, list[int]()
    for row in sorted(rows, key=lambda row: row.tokens.tolist()):
        own = row.tokens.tolist()
        shared = common_tokens([last, own]) if group and row.past is None else 0
        if group and count + len(own) - shared > tokens:
            yield group
            group, count, shared = [], 0, 0
        group.append(row)
        count += len(own) - shared
        last = own
    if group:
        yield group


def _tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    from safetensors.torch import load_file

    for path in checkpoint.weights:
        for name, tensor in load_file(path).items():
            # A tensor of the file is a view of its mapping; one that lives on would keep the whole file in memory.
            yield name, tensor.float() if "layers." in name else tensor.float().clone()
