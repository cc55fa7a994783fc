"""Every failure Graft raises, as one tree.

    GraftError                 message + fix: what is wrong, and the next command to type
    ├── UsageError             a value the caller gave cannot be used (exit status 2)
    ├── NotFound               no such document, collection, model; names what exists
    ├── AccessDenied           the principals may not do this
    ├── LimitExceeded          a value is over a limit; names the value, the limit and the setting
    ├── ReadError              a file cannot be read as a document
    ├── FetchError             a URL cannot be opened, or may not be
    ├── StoreError             the database cannot be used
    │   └── IndexCorrupt       a derived index is damaged; it can be rebuilt from the database
    ├── EmbedderMismatch       vectors of two embedders would be mixed
    ├── TrainingError          a tuning run cannot start or cannot go on
    └── ModelError             a model cannot be had or cannot answer
        ├── ChecksumMismatch   the bytes are not the catalogue's
        └── ContextOverflow    the prompt does not fit the model's context

It does not know who shows an error: the doors print `message` and `fix`, the library never prints.
"""

from __future__ import annotations


class GraftError(Exception):
    """A failure with its remedy.

    >>> str(GraftError("no model named 'smolm2'; have smollm2-135m", fix="graft models list"))
    "no model named 'smolm2'; have smollm2-135m / fix: graft models list"
    """

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} / fix: {self.fix}"


class UsageError(GraftError):
    """A value the caller gave cannot be used."""


class NotFound(GraftError):
    """The named thing does not exist, or these principals may not know that it does."""


class AccessDenied(GraftError):
    """These principals may not do this."""


class LimitExceeded(GraftError):
    """A value is over a limit."""


class QuotaExceeded(LimitExceeded):
    """What somebody may use in a day or a month is used up."""


class ReadError(GraftError):
    """A file cannot be read as a document."""


class FetchError(GraftError):
    """A URL cannot be opened, or may not be."""


class StoreError(GraftError):
    """The database cannot be used."""


class IndexCorrupt(StoreError):
    """A derived index is damaged; it can be rebuilt from the database."""


class EmbedderMismatch(GraftError):
    """Vectors of two embedders would be mixed."""


class TrainingError(GraftError):
    """A tuning run cannot start or cannot go on; what was saved before stays valid."""


class ModelError(GraftError):
    """A model cannot be had or cannot answer."""


class ChecksumMismatch(ModelError):
    """The bytes are not those the catalogue names."""


class ContextOverflow(ModelError):
    """The prompt does not fit the model's context; nothing was cut off silently."""
