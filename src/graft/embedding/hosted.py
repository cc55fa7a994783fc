"""Texts -> vectors by a hosted embedder that LiteLLM reaches.

It does not know keys: they stay in the environment, where LiteLLM reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graft.embedding.protocol import Vectors
from graft.models.hosted import embedding_limits, hosted_embeddings

BATCH_TEXTS = 64
"""Texts of one request: within every provider's limit that LiteLLM lists."""

_TOKEN = re.compile(r"\w{1,4}|[^\w\s]")
"""A hosted model's tokenizer is out of reach: four letters a token counts too many rather than too few."""


class HostedEmbedder:
    """One of LiteLLM's embedders, as `PROVIDER/MODEL`."""

    def __init__(self, model: str, *, api_base: str | None = None) -> None:
        self._model = model
        self._api_base = api_base
        self.identity = f"litellm/{model}"

    @property
    def max_tokens(self) -> int:
        return embedding_limits(self._model)

    @cached_property
    def dimensions(self) -> int:
        return int(self.embed(["dimension"]).shape[1])

    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """See `Embedder.embed`."""
        parts: list[Vectors] = []
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = list(texts[start : start + BATCH_TEXTS])
            vectors = hosted_embeddings(self._model, batch, api_base=self._api_base).vectors
            parts.append(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
            if progress is not None:
                progress(len(batch))
        if not parts:
            return np.zeros((0, self.dimensions), np.float32)
        return np.concatenate(parts).astype(np.float32)

    def token_offsets(self, text: str) -> NDArray[np.int32]:
        """Pieces of at most four letters: an upper estimate of the hosted model's tokens."""
        return np.array([match.span() for match in _TOKEN.finditer(text)], np.int32).reshape(-1, 2)
