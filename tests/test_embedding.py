"""The embedder gives the vectors that the paper's model gives, at both precisions."""

from __future__ import annotations

import json
from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from graft.embedding import Embedder
from graft.embedding.registry import open_embedder
from graft.errors import UsageError
from graft.settings import EmbeddingSettings
from graft.testing.embedder import EmbedderContract

TEXTS = [
    "Unused leave may be carried over until 31 March.",
    "short",
    "A much longer passage that tells how a customer may return a bicycle within thirty days of delivery, "
    "provided that it is unused and complete with its charger and keys.",
]


class TestFp32Embedder(EmbedderContract):
    @pytest.fixture
    def embedder(self, models: Path) -> Embedder:
        return open_embedder(EmbeddingSettings(precision="fp32", threads=2), cache=models)


class TestInt8Embedder(EmbedderContract):
    @pytest.fixture
    def embedder(self, models: Path) -> Embedder:
        return open_embedder(EmbeddingSettings(precision="int8", threads=1), cache=models)


def bert(folder: Path, ids: list[int]) -> np.ndarray:
    """Devlin et al. 2019, written out in numpy: one text's mean-pooled, normalised vector."""
    w = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    gelu = np.vectorize(lambda v: 0.5 * v * (1 + erf(v / sqrt(2))))
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        q, k, v = (
            dense(x, f"{at}.attention.self.{p}").reshape(len(ids), heads, -1).transpose(1, 0, 2)
            for p in ("query", "key", "value")
        )  # (H, T, D)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = (weights @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(dense(attended, f"{at}.attention.output.dense") + x, f"{at}.attention.output.LayerNorm")
        x = norm(
            dense(gelu(dense(x, f"{at}.intermediate.dense")), f"{at}.output.dense") + x, f"{at}.output.LayerNorm"
        )
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("int8", 0.98)])
def test_vectors_agree_with_the_model_written_out_in_numpy(models: Path, precision: str, least: float) -> None:
    from tokenizers import Tokenizer

    folder = models / "all-minilm-l6-v2"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    reference = np.stack([bert(folder, tokenizer.encode(text).ids) for text in TEXTS])
    ours = open_embedder(EmbeddingSettings(precision=precision), cache=models).embed(TEXTS)
    assert ((reference * ours).sum(axis=1) > least).all()


def test_precisions_have_different_identities(models: Path) -> None:
    identities = {open_embedder(EmbeddingSettings(precision=p), cache=models).identity for p in ("fp32", "int8")}
    assert len(identities) == 2


def test_an_unknown_embedder_names_those_that_exist(models: Path) -> None:
    with pytest.raises(UsageError, match=r"no embedder named 'minilm'; have all-minilm-l6-v2"):
        open_embedder(EmbeddingSettings(model="minilm"), cache=models)


def test_an_unknown_precision_is_refused(models: Path) -> None:
    with pytest.raises(UsageError, match="precision = 'fp16'; have fp32, int8"):
        open_embedder(EmbeddingSettings(precision="fp16"), cache=models)
