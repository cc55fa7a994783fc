"""config.json -> the sizes of a llama-like decoder, or why it is none that this trainer computes.

It does not read weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KNOWN = ("llama", "qwen2")
_ROPES = ("default", "llama3", "linear", "yarn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder of layers [norm, attention with grouped queries, norm, gated feed-forward].

    Attributes:
        hidden, intermediate, vocabulary: Widths.
        heads, kv_heads, head: Query heads, key and value heads, width of each.
        tied: Whether the output matrix is the embedding.
        rope: transformers' rope parameters: type, base, factors.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    kv_heads: int
    head: int
    eps: float
    tied: bool
    rope: Mapping[str, Any]

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Module -> (outputs, inputs), of every linear in a layer."""
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        return {
            "self_attn.q_proj": (queries, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, queries),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }

    @property
    def linear_weights(self) -> int:
        """Frozen weights of all layers' linears."""
        return self.layers * sum(outputs * inputs for outputs, inputs in self.linears.values())

    def lora_weights(self, rank: int) -> int:
        return self.layers * rank * sum(outputs + inputs for outputs, inputs in self.linears.values())

    def step_flops(self, lengths: list[int], answers: list[int], *, rank: int) -> float:
        """Floating-point operations that one exact LoRA step cannot do without, two per multiply-add.

        Per token: the linears forward, and backward to their inputs (their frozen weights need no gradient);
        the adapter's path forward, backward and to its own weights. Attention's two products over the causal
        half, forward and twice that backward. The output matrix forward and backward at answer tokens only.
        """
        linear = 4 * self.linear_weights + 6 * self.lora_weights(rank)
        attention = sum(6 * self.layers * self.heads * self.head * n * n for n in lengths)
        return linear * sum(lengths) + attention + 4.0 * self.hidden * self.vocabulary * sum(answers)


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The shape of a config that `why_not` has no objection to."""
    heads = int(config["num_attention_heads"])
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return Shape(
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        intermediate=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head=int(config.get("head_dim") or config["hidden_size"] // heads),
        eps=float(config.get("rms_norm_eps", 1e-6)),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope={
            "rope_theta": config.get("rope_theta", 10_000.0),
            "rope_type": rope.get("type", "default"),  # older checkpoints spell it so
            **rope,
        },
    )


def why_not(config: Mapping[str, Any]) -> str | None:
    """Why this trainer cannot compute a model of this config, or None."""
    kind = config.get("model_type")
    if kind not in KNOWN:
        return f"the lean trainer knows {' and '.join(KNOWN)}, not {kind}"
    if config.get("quantization_config"):
        return "its weights are quantised"
    if config.get("hidden_act", "silu") != "silu" or config.get("mlp_bias"):
        return "its feed-forward layers are not the gated SiLU ones without bias"
    if config.get("use_sliding_window"):
        return "it attends through a sliding window"
    rope = read_shape(config).rope
    if rope["rope_type"] not in _ROPES:
        return f"its positions are of type {rope['rope_type']!r}"
    return None
