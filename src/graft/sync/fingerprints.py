"""How a document is made here and now -> a short text, stored with it, that differs when it would be made otherwise.

It names the reader's version, the cutter's, the [chunking] settings and the embedder's tokenizer, for these
decide the chunks of given bytes. The embedder itself is not in it: its vectors are made anew by `reembed`.
"""

from __future__ import annotations

import dataclasses
import hashlib

from graft.embedding import Embedder
from graft.readers.versions import reader_version
from graft.settings import ChunkingSettings

CUTTING = 1
"""Raise it when `graft.chunking`, or the choice of a title, cuts the same text otherwise than before."""

_PROBE = (
    "Unbelievably, Ångström's 1,234.56 e-mails (v2.0_final) cost €99 — naïve façade… https://example.org/a?b=c#d\n"
    "Donaudampfschifffahrtsgesellschaftskapitän; достопримечательность\n"
    "数据库检索系统, データベース, قاعدة بيانات, ฐานข้อมูล; "
    "def f(x): return {'key': [x ** 2 for _ in range(0x1F)]}  # antidisestablishmentarianism 🙂👍🏽"
)
"""Tokenizers that place all tokens of this alike place them alike anywhere that matters."""


class Fingerprints:
    """Fingerprints of documents made with these settings and this embedder's tokenizer."""

    def __init__(self, chunking: ChunkingSettings, embedder: Embedder) -> None:
        tokens = hashlib.sha256(embedder.token_offsets(_PROBE).astype("<i4").tobytes()).hexdigest()[:12]
        numbers = "-".join(str(value) for value in dataclasses.astuple(chunking))
        self._cut = f"cut/{CUTTING} {numbers} tokens/{tokens}"

    def of(self, format: str, uri: str) -> str:
        """The fingerprint of a document of this format (`Document.format`) and URI, if it were made now."""
        return f"{reader_version(format, uri)} {self._cut}"
