"""n texts -> (n, dim) float32 rows of unit length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors whose dot product is their likeness in meaning.

    Attributes:
        identity: Changes whenever the vectors would (model, precision, weights' hash); stored with
            them, so that two kinds are never mixed.
        dimensions: Length of a vector.
        max_tokens: Tokens of a text that count; what comes after is not seen by the model.
    """

    @property
    def identity(self) -> str: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...

    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """Shape (len(texts), dimensions), rows in the order of `texts`; `progress` gets counts of texts done."""
        ...

    def token_offsets(self, text: str) -> NDArray[np.int32]:
        """Shape (tokens, 2): start and end of each token of `text` in characters, in order, uncut."""
        ...
