"""The values that go into and come out of the store.

They are plain data: what may be read by whom, and how it is kept, is decided in the other modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from graft.access import Principals
from graft.chunking import Chunk
from graft.documents import Document, Page
from graft.embedding.protocol import Vectors

SourceKind = Literal["folder", "file", "url"]
VersionState = Literal["current", "superseded", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDocument:
    """A document as it is to be from now on; replaces what has the same source and URI.

    Attributes:
        uri: Path or URL, unique within the source.
        source_id: Of `Store.add_source`.
        principals: Who may read it.
        source_sha256: Hex digest of the bytes that were read.
        size, mtime_ns: Of the file, for a quick look whether it changed; 0 where unknown.
        vectors: One row for each chunk, by the batch's embedder.
        fingerprint: How it was made (reader, cutting); where it differs from the stored one, the document
            counts as updated, even if nothing else of it is new. "" where unknown.
        etag, last_modified: The server's marks of this version of a URL; "" where it sent none.
    Shapes: vectors (len(chunks), dimensions).
    """

    uri: str
    source_id: int
    title: str
    principals: Principals
    document: Document
    source_sha256: str
    size: int
    mtime_ns: int
    chunks: Sequence[Chunk]
    vectors: Vectors
    fingerprint: str = ""
    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A document whose file or URL has new marks (time, size, ETag) but, having been looked at, the same bytes."""

    document_id: str
    size: int
    mtime_ns: int
    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What happens at once or not at all.

    Attributes:
        collection: Name of an existing collection.
        embedder: Identity of the embedder of all vectors; None when there are no documents.
        documents: To add or to replace.
        removed: Ids of documents that somebody takes out; see `Store.removed_uris`.
        vanished: Ids of documents to remove because their files are gone; they may come back with them.
        access: New grants, by document id.
        touched: Unchanged documents with new marks.
    """

    collection: str
    embedder: str | None = None
    documents: Sequence[NewDocument] = ()
    removed: Sequence[str] = ()
    vanished: Sequence[str] = ()
    access: Mapping[str, Principals] = field(default_factory=dict)
    touched: Sequence[Touched] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """What a batch changed.

    Attributes:
        sequence: A search that begins after this finds all of it.
        added, updated, unchanged: Ids of the batch's documents.
        removed: Ids that were there and are gone.
        chunks: How many were written.
    """

    sequence: int
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    chunks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionRecord:
    """A named set of documents with one embedder. Counts are of what the asking principals may read."""

    name: str
    embedder: str | None
    dimensions: int | None
    documents: int
    chunks: int
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """Where documents come from, so that a later look can find what changed there."""

    id: int
    collection: str
    kind: SourceKind
    uri: str
    principals: Principals
    created_at: str
    last_sync: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRecord:
    """A document as it is now; `fingerprint`, `etag` and `last_modified` as in `NewDocument`."""

    id: str
    collection: str
    source_id: int
    uri: str
    title: str
    format: str
    version: int
    principals: Principals
    source_sha256: str
    size: int
    mtime_ns: int
    characters: int
    chunks: int
    added_at: str
    fingerprint: str = ""
    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """One version of a document's text, which a citation names for ever.

    Attributes:
        state: "removed" when the document is gone; then text is "" and pages are empty.
    """

    document_id: str
    collection: str
    uri: str
    number: int
    state: VersionState
    title: str
    format: str
    text: str
    pages: tuple[Page, ...]
    metadata: Mapping[str, str]
    source_sha256: str
    text_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """A searched range with what is needed to show and to cite it."""

    id: int
    document_id: str
    version: int
    collection: str
    uri: str
    title: str
    ordinal: int
    start: int
    end: int
    text: str
    context: str
    page: int | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A chunk and how well it fits: a dot product or a BM25 score; greater is better."""

    chunk_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Filter:
    """What a search may find.

    Attributes:
        principals: Who asks; there is no default.
        collections: Names, or None for all.
        documents: Ids, or None for all.
    """

    principals: Principals
    collections: tuple[str, ...] | None = None
    documents: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Unembedded:
    """A chunk that has no vector of some embedder yet."""

    chunk_id: int
    context: str
    text: str
