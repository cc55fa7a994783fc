"""Files -> examples: read, check, remove duplicates, split, generate from documents.

It does not know how a model is trained.
"""

from graft.dataset.examples import Example

__all__ = ["Example"]
