"""A BERT checkpoint (safetensors) -> one ONNX file with fused operators, made once and kept.

The graph takes `input_ids` and `attention_mask`, both (batch, sequence) int32, and returns
`sentence_embedding` (batch, hidden) float32: the mean over unmasked tokens, scaled to unit length.
It uses ONNX Runtime's fused operators (EmbedLayerNormalization, Attention, SkipLayerNormalization,
BiasGelu); written by hand from the weights because a traced export needs torch and fuses less.
It does not know tokenizers or batches.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.errors import ModelError

GRAPH_VERSION = 2
"""Part of the file's name, and so of the embedder's identity: raise it when the arithmetic changes."""

Weights = dict[str, NDArray[np.float32]]
_FUSED = "com.microsoft"


def graph_file(folder: Path, precision: str) -> Path:
    """Where the graph made from the checkpoint in `folder` is kept."""
    return folder / f"graph-{precision}-v{GRAPH_VERSION}.onnx"


def build_graph(folder: Path, precision: str) -> Path:
    """Write the graph of the checkpoint in `folder` (model.safetensors, config.json), if it is not there yet.

    Args:
        precision: "fp32", or "int8" for weights quantised per output channel and activations quantised
            at run time.
    Returns: The path of the ONNX file; it appears whole or not at all.
    Raises:
        ModelError: The checkpoint is not a BERT with absolute positions and GELU.
    """
    target = graph_file(folder, precision)
    if target.exists():
        return target
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ModelError(
            f"{folder.name}: cannot build a graph for model_type={config.get('model_type')!r}, "
            f"hidden_act={config.get('hidden_act')!r}; have bert with gelu",
            fix="export it to ONNX and name the folder that holds model.onnx and tokenizer.json",
        )
    unfinished = target.with_suffix(f".{os.getpid()}.part")
    try:
        _write_fp32(folder, config, unfinished)
        if precision == "int8":
            _quantize(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _quantize(path: Path) -> None:
    import logging

    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    was_disabled, root.disabled = root.disabled, True  # it advises on graphs that were traced; this one was not
    try:
        quantize_dynamic(
            path,
            path,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=True,
            reduce_range=True,  # 7 bits: 8 overflow in the products of processors without VNNI
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
        )
    finally:
        root.disabled = was_disabled


def _write_fp32(folder: Path, config: dict[str, Any], target: Path) -> None:
    import onnx
    from onnx import TensorProto, helper
    from safetensors.numpy import load_file

    weights = load_file(folder / "model.safetensors")
    graph = _Graph(epsilon=float(config["layer_norm_eps"]))
    hidden = graph.embeddings(weights)
    for layer in range(int(config["num_hidden_layers"])):
        hidden = graph.layer(weights, f"encoder.layer.{layer}", hidden, int(config["num_attention_heads"]))
    graph.mean_pool(hidden)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            folder.name,
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "sequence"]),
                helper.make_tensor_value_info("attention_mask", TensorProto.INT32, ["batch", "sequence"]),
            ],
            [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", "hidden"])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(_FUSED, 1)],
        ir_version=8,
    )
    onnx.save(model, target)


class _Graph:
    """Nodes and constants of one graph, in order; each method appends a part and returns its output's name."""

    def __init__(self, *, epsilon: float) -> None:
        self.epsilon = epsilon
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    def embeddings(self, weights: Weights) -> str:
        names = [
            self.constant(name, weights[f"embeddings.{name}"])
            for name in (
                "word_embeddings.weight",
                "position_embeddings.weight",
                "token_type_embeddings.weight",
                "LayerNorm.weight",
                "LayerNorm.bias",
            )
        ]
        from onnx import helper

        self.node("Sub", ["input_ids", "input_ids"], "segment_ids")  # one segment: all zeros
        self.nodes.append(
            helper.make_node(
                "EmbedLayerNormalization",
                ["input_ids", "segment_ids", *names],
                ["embedded", "unused_mask_index"],
                domain=_FUSED,
                epsilon=self.epsilon,
            )
        )
        return "embedded"

    def layer(self, weights: Weights, prefix: str, hidden: str, heads: int) -> str:
        def matrix(name: str) -> NDArray[np.float32]:
            return weights[f"{prefix}.{name}.weight"].T  # ONNX multiplies from the right

        def bias(name: str) -> NDArray[np.float32]:
            return weights[f"{prefix}.{name}.bias"]

        qkv = [f"attention.self.{part}" for part in ("query", "key", "value")]
        attended = self.node(
            "Attention",
            [
                hidden,
                self.constant(f"{prefix}.qkv", np.concatenate([matrix(n) for n in qkv], axis=1)),
                self.constant(f"{prefix}.qkv_bias", np.concatenate([bias(n) for n in qkv])),
                "attention_mask",
            ],
            f"{prefix}.attended",
            domain=_FUSED,
            num_heads=heads,
        )
        after_attention = self.add_and_norm(
            self.matmul(attended, f"{prefix}.attention.output.dense", matrix("attention.output.dense")),
            hidden,
            f"{prefix}.attention.output.LayerNorm",
            weights,
            bias("attention.output.dense"),
        )
        widened = self.matmul(after_attention, f"{prefix}.intermediate.dense", matrix("intermediate.dense"))
        activated = self.node(
            "BiasGelu",
            [widened, self.constant(f"{prefix}.intermediate.bias", bias("intermediate.dense"))],
            f"{prefix}.activated",
            domain=_FUSED,
        )
        return self.add_and_norm(
            self.matmul(activated, f"{prefix}.output.dense", matrix("output.dense")),
            after_attention,
            f"{prefix}.output.LayerNorm",
            weights,
            bias("output.dense"),
        )

    def matmul(self, left: str, name: str, right: NDArray[np.float32]) -> str:
        return self.node("MatMul", [left, self.constant(f"{name}.matrix", right)], f"{name}.product")

    def add_and_norm(self, new: str, old: str, name: str, weights: Weights, bias: NDArray[np.float32]) -> str:
        return self.node(
            "SkipLayerNormalization",
            [
                new,
                old,
                self.constant(f"{name}.weight", weights[f"{name}.weight"]),
                self.constant(f"{name}.bias", weights[f"{name}.bias"]),
                self.constant(f"{name}.added_bias", bias),
            ],
            f"{name}.normed",
            domain=_FUSED,
            epsilon=self.epsilon,
        )

    def mean_pool(self, hidden: str) -> None:
        """sum(mask * hidden) / |sum(mask * hidden)|: the mean's length cancels in the scaling."""
        from onnx import TensorProto

        mask = self.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        row = self.node("Unsqueeze", [mask, self.constant("one", np.array([1]))], "mask_row")  # (B, 1, T)
        total = self.node("MatMul", [row, hidden], "masked_sum")  # (B, 1, H)
        flat = self.node("Squeeze", [total, "one"], "flat_sum")  # (B, H)
        self.node("LpNormalization", [flat], "sentence_embedding", axis=-1, p=2)
