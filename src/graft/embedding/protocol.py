"""What every embedder is to the rest of Graft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors whose dot product is their likeness in meaning."""

    @property
    def identity(self) -> str:
        """Changes whenever the vectors would (model, precision, weights); stored with them, never mixed."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that the model sees; what comes after does not count."""
        ...

    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """Embed each text.

        Args:
            progress: Called with the number of texts done since its last call.

        Shapes: (len(texts), dimensions), rows in the order of `texts`.
        Raises:
            ModelError: The model cannot be run or reached.
        """
        ...

    def token_offsets(self, text: str) -> NDArray[np.int32]:
        """Where each token of `text` stands, uncut and without special tokens.

        Shapes: (tokens, 2), start and end in characters, in order.
        """
        ...
