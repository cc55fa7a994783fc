"""What every store is to the rest of Graft: the one place where documents, their text and vectors live.

Reads and searches take the `principals` who ask, always; there is no default. What they may not read does
not exist for them: same answer, same message. Writes are atomic. A store is made when something is
first added; until then it reads as empty and leaves nothing on disk. `graft.testing.store` checks all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from graft.access import Principals
from graft.documents import Boxes
from graft.embedding.protocol import Vectors
from graft.store.records import (
    Batch,
    ChunkRecord,
    CollectionRecord,
    DocumentRecord,
    Filter,
    Scored,
    SourceKind,
    SourceRecord,
    Unembedded,
    VersionRecord,
    WriteResult,
)


class Store(Protocol):
    """Collections of documents, and two searches in them."""

    def create_collection(
        self, name: str, *, principals: Principals, owners: Principals | None = None
    ) -> CollectionRecord:
        """Make a collection that `principals` may see and change, or return theirs of that name.

        Args:
            owners: Those of them whose it is where it is made; by default all.
        Raises:
            AccessDenied: The name is taken by others.
        """
        ...

    def collections(self, *, principals: Principals) -> list[CollectionRecord]:
        """Those granted to `principals`, and those with a document for them; by name."""
        ...

    def remove_collection(self, name: str, *, principals: Principals) -> WriteResult:
        """Remove it with its sources and all its documents, of whoever they are.

        Raises:
            NotFound, AccessDenied: Not theirs.
        """
        ...

    def add_source(
        self, collection: str, *, kind: SourceKind, uri: str, grant: Principals, principals: Principals
    ) -> SourceRecord:
        """Remember where documents come from; the same URI in the same collection is the same source.

        Args:
            grant: Who may read what it brings, and know of it.
        """
        ...

    def sources(self, collection: str, *, principals: Principals) -> list[SourceRecord]:
        """In the order in which they were added."""
        ...

    def mark_synced(self, source_id: int, *, principals: Principals) -> None:
        """Note the time at which the source was last looked through.

        Raises:
            NotFound, AccessDenied: Not theirs.
        """
        ...

    def remove_source(self, source_id: int, *, principals: Principals) -> WriteResult:
        """Forget the source and remove its documents, of whoever they are; added again it is another source.

        Raises:
            NotFound, AccessDenied: Not theirs.
        """
        ...

    def removed_uris(self, source_id: int, *, principals: Principals) -> frozenset[str]:
        """URIs of the source's documents that somebody took out (`Batch.removed`): a sync leaves them out.

        Those whose files vanished (`Batch.vanished`) are not among them. Writing a document of such a URI
        brings it back.
        """
        ...

    def write(self, batch: Batch, *, principals: Principals) -> WriteResult:
        """All of `batch` or, if it raises, nothing. Writing it again changes nothing.

        A document with the source, URI, bytes and text of a stored one is that one, and is only cut anew
        where its chunks differ; other text makes a new version. `principals` must own the collection.

        Raises:
            UsageError: The batch contradicts itself.
            NotFound: The collection, or a document to remove or to grant.
            EmbedderMismatch: The collection has another embedder's vectors.
            StoreError: The database cannot take it, as when the disk is full.
        """
        ...

    def documents(
        self,
        collection: str | None = None,
        *,
        source_id: int | None = None,
        limit: int | None = None,
        offset: int = 0,
        principals: Principals,
    ) -> list[DocumentRecord]:
        """By URI."""
        ...

    def document(self, document_id: str, *, principals: Principals) -> DocumentRecord:
        """Raises:
        NotFound: It is not there, or not theirs.
        """
        ...

    def version(self, document_id: str, number: int | None = None, *, principals: Principals) -> VersionRecord:
        """A version's text and whether it is current, superseded or removed; None is the newest.

        Raises:
            NotFound: It never was there, or is not theirs.
        """
        ...

    def text_range(self, document_id: str, number: int, start: int, end: int, *, principals: Principals) -> str:
        """Characters `start` to `end` of a version's text, without reading the rest of it.

        Raises:
            NotFound: It never was there, is removed, or is not theirs.
        """
        ...

    def boxes(self, document_id: str, number: int, start: int, end: int, *, principals: Principals) -> Boxes | None:
        """Where each character of the range stands, to a tenth of a point; None where the format has none.

        Shapes: (end - start, 4), see `graft.documents.Boxes`.
        """
        ...

    def chunks(self, chunk_ids: Sequence[int], *, principals: Principals) -> list[ChunkRecord]:
        """In the order given, without those that are gone or not theirs."""
        ...

    def neighbours(
        self, chunk_id: int, *, before: int = 1, after: int = 1, principals: Principals
    ) -> list[ChunkRecord]:
        """The chunk with those around it in its document, in order; empty when it is gone or not theirs."""
        ...

    def chunk_vectors(self, document_id: str, *, principals: Principals) -> dict[tuple[str, str], Vectors]:
        """Vectors by (context, text), so that an update embeds only what is new."""
        ...

    def search_vectors(self, query: Vectors, k: int, filter: Filter, *, embedder: str) -> list[Scored]:
        """The `k` chunks nearest to `query` by dot product, of all that `filter` allows. Best first.

        What was written before the call is found, what was removed is not.

        Args:
            query: Shape (dimensions,), by the embedder whose identity is `embedder`.
        Raises:
            NotFound: A collection named is not there, or not theirs.
            EmbedderMismatch: A collection to be searched has another embedder's vectors.
        """
        ...

    def search_text(self, query: str, k: int, filter: Filter) -> list[Scored]:
        """The `k` chunks whose words fit `query` best, of all that `filter` allows. Best first.

        `query` is any text of any length; it has no syntax.
        """
        ...

    def follow(self) -> None:
        """Bring the indexes up to date now, so that the next search need not."""
        ...

    def unembedded(self, collection: str, embedder: str, *, limit: int, principals: Principals) -> list[Unembedded]:
        """Chunks of the whole collection without a vector of `embedder`. First step of changing embedders."""
        ...

    def put_vectors(
        self, embedder: str, chunk_ids: Sequence[int], vectors: Vectors, *, principals: Principals
    ) -> None:
        """Keep vectors beside those in use. Second step.

        Those of chunks meanwhile gone, or in collections that are not theirs to change, are dropped.
        """
        ...

    def switch_embedder(self, collection: str, embedder: str, *, principals: Principals) -> int:
        """Use `embedder`'s vectors from now on and drop the others. Last step; returns the sequence.

        Raises:
            StoreError: Some chunks have none yet.
        """
        ...

    def move_sources(self, before: str, now: str) -> int:
        """Let the sources below one folder lie below another, as after a restore; how many they are."""
        ...

    def put_model(self, name: str, spec: Mapping[str, Any]) -> None:
        """Keep what describes a model, as JSON; replaces the one of that name."""
        ...

    def model(self, name: str) -> dict[str, Any]:
        """Raises:
        NotFound: Names those that exist.
        """
        ...

    def models(self) -> dict[str, dict[str, Any]]:
        """All, by name."""
        ...

    def remove_model(self, name: str) -> None:
        """Raises:
        NotFound: Names those that exist.
        """
        ...

    def rebuild_indexes(self) -> None:
        """Make all derived data anew from the truth."""
        ...

    def check(self) -> list[str]:
        """What is wrong with the truth and with the indexes, in words; empty when nothing is."""
        ...

    def close(self) -> None:
        """Give back files and connections."""
        ...
