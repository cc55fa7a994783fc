"""n texts -> (n, dim) float32 rows of unit length, by a local ONNX model or a hosted one.

It does not know chunks, stores or questions.
"""

from graft.embedding.protocol import Embedder, Vectors

__all__ = ["Embedder", "Vectors"]
