"""Texts -> vectors by ONNX Runtime in this process, without torch.

It does not know where weights come from (registry) or how a graph is made (graph).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.embedding.protocol import Vectors
from graft.errors import ModelError

BATCH_TOKENS = 1024
"""Padded tokens of one batch: measured best with the cache of a server core (4 texts of 256 tokens)."""

BATCH_TEXTS = 32
"""Most texts of one batch, however short."""


class OnnxEmbedder:
    """A sentence embedder in an ONNX file beside its tokenizer.json.

    One session with one thread per run; batches of like length run on `threads` of them at a time,
    which costs fewer CPU-seconds than several threads inside one small matrix product.

    Args:
        fix: What to do where the files cannot be loaded.
    """

    def __init__(
        self, graph: Path, tokenizer: Path, *, identity: str, max_tokens: int, fix: str, threads: int = 0
    ) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # both libraries raise their own untyped errors
            raise ModelError(
                f"{graph.name} or {tokenizer.name} in {graph.parent} cannot be loaded: {error}",
                fix=fix,
            ) from error
        self._inputs = {i.name: np.int32 if "int32" in i.type else np.int64 for i in self._session.get_inputs()}
        self._output = _sentence_output(self._session.get_outputs())
        self._max_tokens = max_tokens
        self._threads = threads or os.cpu_count() or 1
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special = self._tokenizer.num_special_tokens_to_add(False)
        self.identity = identity
        self.dimensions = int(self.embed(["dimension"]).shape[1])

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """See `Embedder.embed`. Texts longer than `max_tokens` are represented by their beginning."""
        ids = [self._clip(encoding.ids) for encoding in self._encode(texts)]
        batches = list(_batches([len(i) for i in ids]))
        rows: list[Vectors | None] = [None] * len(batches)

        def run(number: int) -> None:
            rows[number] = self._run([ids[i] for i in batches[number]])
            if progress is not None:
                progress(len(batches[number]))

        if len(batches) > 1 and self._threads > 1:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(run, range(len(batches))))
        else:
            for number in range(len(batches)):
                run(number)
        if not batches:
            return np.zeros((0, self.dimensions), np.float32)
        order = np.concatenate(batches)
        joined = np.concatenate([row for row in rows if row is not None])
        vectors = np.empty_like(joined)
        vectors[order] = joined
        return vectors

    def token_offsets(self, text: str) -> NDArray[np.int32]:
        """See `Embedder.token_offsets`."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return np.array(offsets, np.int32).reshape(-1, 2)

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        # A model reads at most max_tokens; no token is longer than 64 characters worth reading past.
        clipped = [text[: self._max_tokens * 64] for text in texts]
        encoded: list[Any] = self._tokenizer.encode_batch_fast(clipped)
        return encoded

    def _clip(self, ids: list[int]) -> list[int]:
        if len(ids) <= self._max_tokens:
            return ids
        tail = ids[-1:] if self._special else []
        return ids[: self._max_tokens - len(tail)] + tail

    def _run(self, ids: list[list[int]]) -> Vectors:
        longest = max(map(len, ids))
        tokens = np.zeros((len(ids), longest), np.int64)
        mask = np.zeros((len(ids), longest), np.int64)
        for row, values in enumerate(ids):
            tokens[row, : len(values)] = values
            mask[row, : len(values)] = 1
        known = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        feed = {name: known[name].astype(dtype) for name, dtype in self._inputs.items()}
        output = self._session.run([self._output], feed)[0]
        if output.ndim == 3:  # (batch, tokens, hidden): a graph without pooling
            output = (output * mask[:, :, None]).sum(axis=1)
        lengths = np.linalg.norm(output, axis=1, keepdims=True)
        vectors: Vectors = (output / np.maximum(lengths, 1e-12)).astype(np.float32)
        return vectors


def _batches(lengths: Sequence[int]) -> Iterator[NDArray[np.intp]]:
    """Indices grouped by like length, longest first, at most BATCH_TOKENS padded tokens a group."""
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = min(BATCH_TEXTS, max(1, BATCH_TOKENS // max(1, lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _sentence_output(outputs: Sequence[Any]) -> str:
    names = [output.name for output in outputs]
    return "sentence_embedding" if "sentence_embedding" in names else names[0]
