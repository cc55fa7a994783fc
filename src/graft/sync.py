"""files, folders, URLs -> the store: what is new is added, what changed replaced, what is gone removed.

A folder stays registered as a source, so that a later look finds what happened there since. Nothing is
lost to bad input: a file that cannot be read now keeps the version that could. It does not know formats,
how text is cut, or how the store keeps it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graft.access import Principals
from graft.chunking import Chunk, chunk, searchable
from graft.documents import BlockKind, Document
from graft.embedding import Embedder, Vectors
from graft.errors import GraftError, ReadError, UsageError
from graft.fetching import fetch
from graft.readers.sandbox import SandboxedReader, check_size
from graft.settings import ReadingSettings, Settings
from graft.store import Batch, DocumentRecord, NewDocument, SourceKind, SourceRecord, Store, Touched

BATCH_DOCUMENTS = 64
BATCH_CHUNKS = 512
"""A batch is one transaction and one round of embedding: large enough that texts of like length meet,
small enough that a killed process loses seconds of work."""

EMBED_AT_ONCE = 2048
"""Chunks whose texts and vectors are held at once."""

_GRANT_ACCESS = "grant this user read access"


@dataclass(frozen=True, slots=True)
class Failure:
    """A file or folder that could not be added, and what to do."""

    path: str
    error: str
    fix: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an add has come. `chunks` counts those embedded; `path` is the file at hand."""

    files: int
    total_files: int
    chunks: int
    path: str


@dataclass(slots=True)
class AddResult:
    """What an add or sync did; counts of documents, and of chunks written."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: list[Failure] = field(default_factory=list)
    chunks: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """What adding needs: where to, what reads and embeds, and who is told."""

    store: Store
    reader: SandboxedReader
    embedder: Embedder
    settings: Settings
    progress: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _File:
    """A file found: `uri` is its path within the source."""

    uri: str
    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class _Read:
    """Bytes that became a document."""

    uri: str
    size: int
    mtime_ns: int
    sha256: str
    document: Document
    title: str
    chunks: Sequence[Chunk]


def add(
    locations: Sequence[str], *, ingest: Ingest, collection: str, principals: Principals, grant: Principals
) -> AddResult:
    """Add files, folders and URLs to a collection; each becomes a source that `sync` looks at again.

    Args:
        principals: Who adds.
        grant: Who may read what is added.
    Raises:
        UsageError: A location does not exist.
        EmbedderMismatch: The collection holds another embedder's vectors.
    """
    sources = [_source(location) for location in locations]
    ingest.store.create_collection(collection, principals=principals)
    result, began = AddResult(), time.perf_counter()
    for kind, uri in sources:
        source = ingest.store.add_source(collection, kind=kind, uri=uri, grant=grant, principals=principals)
        _sync_source(source, ingest, principals, result)
    ingest.store.follow()
    result.seconds = round(time.perf_counter() - began, 3)
    return result


def sync(*, ingest: Ingest, collection: str | None, principals: Principals) -> AddResult:
    """Look again at every source of a collection, or of all."""
    result, began = AddResult(), time.perf_counter()
    names = [c.name for c in ingest.store.collections(principals=principals)] if collection is None else [collection]
    for source in (s for name in names for s in ingest.store.sources(name, principals=principals)):
        try:
            _sync_source(source, ingest, principals, result)
        except UsageError as error:  # a folder that is not there: what it held is kept
            result.failed.append(Failure(source.uri, error.message, error.fix))
    ingest.store.follow()
    result.seconds = round(time.perf_counter() - began, 3)
    return result


def _source(location: str) -> tuple[SourceKind, str]:
    """("url" | "folder" | "file", its absolute address)."""
    if location.lower().startswith(("http://", "https://")):
        return "url", location
    path = Path(location).expanduser()
    if not path.exists():
        raise UsageError(f"{location} does not exist", fix="check the spelling; `ls` shows what is there")
    absolute = path.resolve()
    if absolute.is_dir():
        return "folder", str(absolute)
    if not absolute.is_file():
        raise UsageError(f"{location} is neither a file nor a folder", fix="name a regular file or a folder")
    return "file", str(absolute)


def _sync_source(source: SourceRecord, ingest: Ingest, principals: Principals, result: AddResult) -> None:
    known = {d.uri: d for d in ingest.store.documents(source_id=source.id, principals=principals)}
    if source.kind == "url":
        _sync_url(source, known, ingest, principals, result)
        return
    root = Path(source.uri)
    unreadable: list[str] = []
    if source.kind == "folder":
        if not root.is_dir():
            raise UsageError(
                f"the folder {root} is not there; its {len(known)} documents are kept",
                fix=f"mount or restore it, or `graft remove` the documents of {root.name}",
            )
        files = list(_walk(root, unreadable, result))
    else:
        if not root.parent.is_dir():
            raise UsageError(f"the folder {root.parent} is not there; {root.name} is kept", fix="mount or restore it")
        files = [f for f in [_look(root, _printable(root.name))] if f is not None]
    seen = {file.uri for file in files}
    gone = [d.id for uri, d in known.items() if uri not in seen and not uri.startswith(tuple(unreadable))]
    if gone:
        written = ingest.store.write(Batch(collection=source.collection, removed=gone), principals=principals)
        result.removed += len(written.removed)
    _write_in_batches(_read_changed(files, known, source, ingest, result), source, ingest, principals, result)
    ingest.store.mark_synced(source.id)


def _walk(root: Path, unreadable: list[str], result: AddResult) -> Iterator[_File]:
    """The regular files under a folder in order of name; links to folders are not followed, so none can loop.

    A link to a file counts only if it stays inside; hidden names are left out.
    """

    def on_error(error: OSError) -> None:
        folder = Path(error.filename)
        unreadable.append(f"{folder.relative_to(root).as_posix()}/" if folder != root else "")
        result.failed.append(Failure(str(folder), f"the folder cannot be listed: {error.strerror}", _GRANT_ACCESS))

    for folder, subfolders, names in os.walk(root, onerror=on_error):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") or not _stays_inside(path, root):
                continue
            uri = _printable(path.relative_to(root).as_posix())
            try:
                file = _look(path, uri)
            except OSError as error:
                unreadable.append(uri)
                failure = Failure(
                    _printable(str(path)), f"the file cannot be looked at: {error.strerror}", _GRANT_ACCESS
                )
                result.failed.append(failure)
                continue
            if file is not None:
                yield file


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return not path.is_symlink() or root in path.resolve().parents
    except (OSError, RuntimeError):  # a link to itself
        return False


def _printable(name: str) -> str:
    """A file name as text that can be stored and shown; bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _look(path: Path, uri: str) -> _File | None:
    """The file, or None where there is none; any other trouble is an OSError, for then it may still be there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None  # gone since it was listed, or a link to nothing
    if not stat.S_ISREG(status.st_mode):
        return None
    return _File(uri, path, status.st_size, status.st_mtime_ns)


def _read_changed(
    files: Sequence[_File],
    known: dict[str, DocumentRecord],
    source: SourceRecord,
    ingest: Ingest,
    result: AddResult,
) -> Iterator[_Read | Touched]:
    """Documents of the files that are new or changed; what fails is noted and passed over."""
    for number, file in enumerate(files):
        ingest.progress(Progress(number, len(files), result.chunks, file.uri))
        old = known.get(file.uri)
        if old is not None and (old.size, old.mtime_ns, old.principals) == (
            file.size,
            file.mtime_ns,
            source.principals,
        ):
            result.unchanged += 1
            continue
        try:
            data = _bytes(file.path, ingest.settings.reading)
            digest = hashlib.sha256(data).hexdigest()
            if old is not None and old.source_sha256 == digest and old.principals == source.principals:
                result.unchanged += 1
                yield Touched(document_id=old.id, size=file.size, mtime_ns=file.mtime_ns)
            else:
                yield _document(file.uri, data, digest, file.size, file.mtime_ns, ingest)
        except GraftError as error:
            result.failed.append(Failure(_printable(str(file.path)), error.message, error.fix))
    ingest.progress(Progress(len(files), len(files), result.chunks, ""))


def _bytes(path: Path, limits: ReadingSettings) -> bytes:
    if not path.exists():
        raise ReadError("the file vanished while the folder was read", fix="run the same command again")
    check_size(path, limits)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReadError(f"the file cannot be opened: {error.strerror}", fix="grant this user read access") from error


def _document(uri: str, data: bytes, digest: str, size: int, mtime_ns: int, ingest: Ingest) -> _Read:
    document = ingest.reader.read(data, name=uri)
    title = title_of(document, uri)
    chunks = chunk(
        document,
        tokens=ingest.embedder.token_offsets(document.text),
        title=title,
        settings=ingest.settings.chunking,
    )
    return _Read(uri, size, mtime_ns, digest, document, title, chunks)


def title_of(document: Document, uri: str) -> str:
    """The title that the file states, else its first heading of level 1, else its name without the ending."""
    stated = " ".join(document.metadata.get("title", "").split())
    if stated:
        return stated[:200]
    for block in document.blocks:
        if block.kind is BlockKind.HEADING and block.level == 1:
            return " ".join(document.text[block.start : block.end].lstrip("#").split())[:200]
    return Path(uri).stem.replace("_", " ").replace("-", " ")


def _sync_url(
    source: SourceRecord,
    known: dict[str, DocumentRecord],
    ingest: Ingest,
    principals: Principals,
    result: AddResult,
) -> None:
    ingest.progress(Progress(0, 1, result.chunks, source.uri))
    old = known.get(source.uri)
    try:
        fetched = fetch(
            source.uri,
            max_bytes=ingest.settings.reading.max_file_mb * 1_000_000,
            timeout_seconds=ingest.settings.reading.max_seconds,
        )
        digest = hashlib.sha256(fetched.data).hexdigest()
        if old is not None and old.source_sha256 == digest and old.principals == source.principals:
            result.unchanged += 1
            return
        read = _document(source.uri, fetched.data, digest, len(fetched.data), 0, ingest)
    except GraftError as error:
        result.failed.append(Failure(source.uri, error.message, error.fix))
        return
    _write_in_batches([read], source, ingest, principals, result)
    ingest.store.mark_synced(source.id)


def _write_in_batches(
    changes: Iterable[_Read | Touched],
    source: SourceRecord,
    ingest: Ingest,
    principals: Principals,
    result: AddResult,
) -> None:
    documents: list[_Read] = []
    touched: list[Touched] = []
    for change in changes:
        if isinstance(change, Touched):
            touched.append(change)
        else:
            documents.append(change)
        full = sum(len(d.chunks) for d in documents) >= BATCH_CHUNKS
        if full or len(documents) + len(touched) >= BATCH_DOCUMENTS:
            _write(documents, touched, source, ingest, principals, result)
            documents, touched = [], []
    if documents or touched:
        _write(documents, touched, source, ingest, principals, result)


def _write(
    documents: Sequence[_Read],
    touched: Sequence[Touched],
    source: SourceRecord,
    ingest: Ingest,
    principals: Principals,
    result: AddResult,
) -> None:
    vectors = _embed([c for d in documents for c in d.chunks], ingest)
    new: list[NewDocument] = []
    first = 0
    for read in documents:
        last = first + len(read.chunks)
        new.append(
            NewDocument(
                uri=read.uri,
                source_id=source.id,
                title=read.title,
                principals=source.principals,
                document=read.document,
                source_sha256=read.sha256,
                size=read.size,
                mtime_ns=read.mtime_ns,
                chunks=read.chunks,
                vectors=vectors[first:last],
            )
        )
        first = last
    written = ingest.store.write(
        Batch(collection=source.collection, embedder=ingest.embedder.identity, documents=new, touched=touched),
        principals=principals,
    )
    result.added += len(written.added)
    result.updated += len(written.updated)
    result.unchanged += len(written.unchanged)
    result.chunks += written.chunks


def _embed(chunks: Sequence[Chunk], ingest: Ingest) -> Vectors:
    texts = [searchable(c.context, c.text) for c in chunks]
    parts: list[Vectors] = []
    for start in range(0, len(texts), EMBED_AT_ONCE):
        parts.append(ingest.embedder.embed(texts[start : start + EMBED_AT_ONCE]))
    return np.concatenate(parts) if parts else np.zeros((0, ingest.embedder.dimensions), np.float32)


def reembed(collection: str, *, ingest: Ingest, principals: Principals) -> int:
    """Make a collection's vectors anew with the ingest's embedder; the old ones serve until all are there.

    Returns: How many chunks were embedded; one that was interrupted goes on where it stopped.
    """
    identity = ingest.embedder.identity
    done = 0
    while chunks := ingest.store.unembedded(collection, identity, limit=EMBED_AT_ONCE, principals=principals):
        vectors = ingest.embedder.embed([searchable(c.context, c.text) for c in chunks])
        ingest.store.put_vectors(identity, [c.chunk_id for c in chunks], vectors)
        done += len(chunks)
        ingest.progress(Progress(0, 1, done, collection))
    ingest.store.switch_embedder(collection, identity, principals=principals)
    return done
