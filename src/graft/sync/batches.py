"""jobs -> documents read on all cores -> chunks -> vectors -> the store, a batch at a time.

One thread cuts, embeds and writes, in the order of the jobs, so the same files make the same store however
many processes read them. It does not know how a file is found or read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graft.chunking import Chunk, chunk, searchable
from graft.documents import BlockKind, Document
from graft.embedding import Vectors
from graft.errors import GraftError
from graft.readers.sandbox import SandboxedReader
from graft.store import Batch, NewDocument, Touched
from graft.sync.ahead import read_ahead
from graft.sync.taking import Job, Taken, take
from graft.sync.values import Failure, Progress, Run

BATCH_DOCUMENTS = 64
BATCH_CHUNKS = 512
"""A batch is one transaction and one round of embedding: large enough that texts of like length meet,
small enough that a killed process loses seconds of work."""

EMBED_AT_ONCE = 2048
"""Chunks whose texts and vectors are held at once."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A document and its chunks, on the way to their vectors."""

    taken: Taken
    title: str
    chunks: Sequence[Chunk]


def work_off(jobs: Sequence[Job], run: Run, *, collection: str) -> None:
    """Read, cut, embed and write the files of one collection; what fails is noted and passed over.

    Raises:
        EmbedderMismatch: The collection holds another embedder's vectors.
        StoreError: The database cannot take it. What was written before stays.
    """
    ingest, result, limits = run.ingest, run.result, run.ingest.settings.reading
    writer = _Writer(run, collection, updates=any(job.old for job in jobs))
    workers = min(limits.workers or os.cpu_count() or 1, len(jobs))
    with ExitStack() as held:
        more = [held.enter_context(SandboxedReader(limits)) for _ in range(workers - 1)]
        outcomes = read_ahead(
            jobs,
            lambda job, reader: take(job, reader, limits),
            [ingest.reader, *more],
            weigh=lambda outcome: len(outcome.document.text) if isinstance(outcome, Taken) else 0,
        )
        held.enter_context(closing(outcomes))
        for number, job in enumerate(jobs):
            ingest.progress(Progress(number, len(jobs), result.chunks, job.uri))
            outcome = next(outcomes)
            if isinstance(outcome, GraftError):
                result.failed.append(Failure(job.shown, outcome.message, outcome.fix))
            elif isinstance(outcome, Taken):
                writer.put(outcome)
            else:
                result.unchanged += 1
                writer.touch(outcome)
    writer.flush()
    ingest.progress(Progress(len(jobs), len(jobs), result.chunks, ""))


def title_of(document: Document, uri: str) -> str:
    """The title that the file states, else its first heading of level 1, else its name without the ending."""
    stated = " ".join(document.metadata.get("title", "").split())
    if stated:
        return stated[:200]
    for block in document.blocks:
        if block.kind is BlockKind.HEADING and block.level == 1:
            return " ".join(document.text[block.start : block.end].lstrip("#").split())[:200]
    return Path(uri).stem.replace("_", " ").replace("-", " ")


class _Writer:
    """Gathers documents and writes them a batch at a time."""

    def __init__(self, run: Run, collection: str, *, updates: bool) -> None:
        self._run = run
        self._ingest = run.ingest
        self._collection = collection
        self._reuses = updates and self._has_our_vectors()
        self._documents: list[_Cut] = []
        self._touched: list[Touched] = []

    def put(self, taken: Taken) -> None:
        """Add or replace a document."""
        title = title_of(taken.document, taken.job.uri)
        tokens = self._ingest.embedder.token_offsets(taken.document.text)
        chunks = chunk(taken.document, tokens=tokens, title=title, settings=self._ingest.settings.chunking)
        self._documents.append(_Cut(taken, title, chunks))
        self._flush_if_full()

    def touch(self, touched: Touched | None) -> None:
        """Keep new marks of a document that is the same."""
        if touched is not None:
            self._touched.append(touched)
            self._flush_if_full()

    def flush(self) -> None:
        """Embed and write what was gathered, in one transaction."""
        if not self._documents and not self._touched:
            return
        batch = Batch(
            collection=self._collection,
            embedder=self._ingest.embedder.identity,
            documents=self._embedded(self._documents),
            touched=self._touched,
        )
        written = self._ingest.store.write(batch, principals=self._run.principals)
        self._documents, self._touched = [], []
        self._run.result.added += len(written.added)
        self._run.result.updated += len(written.updated)
        self._run.result.unchanged += len(written.unchanged)
        self._run.result.chunks += written.chunks

    def _flush_if_full(self) -> None:
        chunks = sum(len(cut.chunks) for cut in self._documents)
        if chunks >= BATCH_CHUNKS or len(self._documents) + len(self._touched) >= BATCH_DOCUMENTS:
            self.flush()

    def _embedded(self, documents: Sequence[_Cut]) -> list[NewDocument]:
        """The documents with vectors; those of chunks that an old version has too are taken from there."""
        with_known = [(cut, self._known_vectors(cut)) for cut in documents]
        new = [c for cut, known in with_known for c in cut.chunks if (c.context, c.text) not in known]
        made = iter(self._embed(new))
        none = np.zeros((0, self._ingest.embedder.dimensions), np.float32)
        finished = []
        for cut, known in with_known:
            rows = [known[c.context, c.text] if (c.context, c.text) in known else next(made) for c in cut.chunks]
            finished.append(self._new_document(cut, np.stack(rows) if rows else none))
        return finished

    def _known_vectors(self, cut: _Cut) -> dict[tuple[str, str], Vectors]:
        old = cut.taken.job.old
        if old is None or not self._reuses:
            return {}
        return self._ingest.store.chunk_vectors(old.id, principals=self._run.principals)

    def _has_our_vectors(self) -> bool:
        collections = self._ingest.store.collections(principals=self._run.principals)
        ours = self._ingest.embedder.identity
        return any(c.name == self._collection and c.embedder == ours for c in collections)

    def _embed(self, chunks: Sequence[Chunk]) -> Vectors:
        texts = [searchable(c.context, c.text) for c in chunks]
        embedder = self._ingest.embedder
        parts = [
            embedder.embed(texts[start : start + EMBED_AT_ONCE]) for start in range(0, len(texts), EMBED_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, embedder.dimensions), np.float32)

    def _new_document(self, cut: _Cut, vectors: Vectors) -> NewDocument:
        taken, source = cut.taken, cut.taken.job.source
        return NewDocument(
            uri=taken.job.uri,
            source_id=source.id,
            title=cut.title,
            principals=source.principals,
            document=taken.document,
            source_sha256=taken.sha256,
            size=taken.size,
            mtime_ns=taken.mtime_ns,
            chunks=cut.chunks,
            vectors=vectors,
            fingerprint=self._run.fingerprints.of(taken.document.format, taken.job.uri),
            etag=taken.etag,
            last_modified=taken.last_modified,
        )
