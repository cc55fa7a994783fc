"""The contract of an Embedder, as tests to inherit.

class TestMine(EmbedderContract):
    @pytest.fixture
    def embedder(self): return MyEmbedder()
"""

from __future__ import annotations

import numpy as np

from graft.embedding import Embedder


class EmbedderContract:
    """Inherit it in a test class and give it a fixture `embedder`."""

    def test_rows_are_unit_vectors_in_the_order_of_the_texts(self, embedder: Embedder) -> None:
        texts = ["a cat", "the central bank raised interest rates again in March", "", "a cat"]
        vectors = embedder.embed(texts)
        assert vectors.shape == (4, embedder.dimensions) and vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        alone = np.concatenate([embedder.embed([text]) for text in texts])
        likeness = (alone * vectors).sum(axis=1)[[0, 1, 3]]
        assert (likeness > 0.98).all()  # a quantised model scales by what else is in the batch

    def test_no_texts_give_no_rows(self, embedder: Embedder) -> None:
        assert embedder.embed([]).shape == (0, embedder.dimensions)

    def test_like_meanings_are_nearer_than_unlike_ones(self, embedder: Embedder) -> None:
        cat, kitten, bank = embedder.embed(["a cat sleeps", "a kitten is sleeping", "the bank raised interest rates"])
        assert cat @ kitten > cat @ bank

    def test_progress_counts_every_text_once(self, embedder: Embedder) -> None:
        done: list[int] = []
        embedder.embed([f"text number {i} " * (i % 7) for i in range(50)], progress=done.append)
        assert sum(done) == 50

    def test_token_offsets_are_in_order_and_cover_every_letter(self, embedder: Embedder) -> None:
        text = "Überstunden: 40,5 h — 日本語 and naïve cafés 🚲."
        offsets = embedder.token_offsets(text)
        assert offsets.shape[1] == 2 and (np.diff(offsets[:, 0]) >= 0).all()
        covered = np.zeros(len(text), bool)
        for start, end in offsets:
            covered[start:end] = True
        assert all(covered[i] for i, letter in enumerate(text) if letter.isalnum())

    def test_a_text_far_over_the_limit_is_embedded_by_its_beginning(self, embedder: Embedder) -> None:
        long = "the quick brown fox jumps over the lazy dog. " * 2_000
        assert float(embedder.embed([long])[0] @ embedder.embed([long[:4_000]])[0]) > 0.9

    def test_the_identity_is_stable(self, embedder: Embedder) -> None:
        assert embedder.identity and embedder.identity == embedder.identity
