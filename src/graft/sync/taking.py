"""One file or URL that may have changed -> its document, or that it has not; in a reader's thread.

It does not know chunks, vectors or the store.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from graft.documents import Document
from graft.errors import ReadError
from graft.fetching import fetch
from graft.readers.sandbox import SandboxedReader, check_size
from graft.settings import ReadingSettings
from graft.store import DocumentRecord, SourceRecord, Touched

GRANT_ACCESS = "grant this user read access"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A file or URL to be looked into.

    Attributes:
        uri: Path within the source, or the URL; what the document is called.
        path: None: it is a URL.
        size, mtime_ns: Of the file when it was listed.
        old: The document that it is now.
        is_current: `old` would be made in the same way again, so the same bytes need no reading.
    """

    source: SourceRecord
    uri: str
    path: Path | None
    size: int = 0
    mtime_ns: int = 0
    old: DocumentRecord | None = None
    is_current: bool = False

    @property
    def shown(self) -> str:
        """The path or URL, for messages."""
        return self.uri if self.path is None else printable(str(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Bytes that became a document."""

    job: Job
    document: Document
    sha256: str
    size: int
    mtime_ns: int
    etag: str = ""
    last_modified: str = ""


def take(job: Job, reader: SandboxedReader, limits: ReadingSettings) -> Taken | Touched | None:
    """Look into a file or URL.

    Returns: Touched where only its marks are new, None where not even those are.
    Raises:
        ReadError, LimitExceeded, FetchError: It cannot be opened or read.
    """
    return _take_url(job, reader, limits) if job.path is None else _take_file(job, job.path, reader, limits)


def printable(name: str) -> str:
    """A file name as text that can be stored and shown; bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _take_file(job: Job, path: Path, reader: SandboxedReader, limits: ReadingSettings) -> Taken | Touched:
    data = _bytes(path, limits)
    digest = hashlib.sha256(data).hexdigest()
    if job.is_current and job.old is not None and job.old.source_sha256 == digest:
        return Touched(document_id=job.old.id, size=job.size, mtime_ns=job.mtime_ns)
    document = reader.read(data, name=job.uri)
    return Taken(job=job, document=document, sha256=digest, size=job.size, mtime_ns=job.mtime_ns)


def _bytes(path: Path, limits: ReadingSettings) -> bytes:
    try:
        path.stat()
        check_size(path, limits)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ReadError("the file vanished while the folder was read", fix="run the same command again") from error
    except OSError as error:
        raise ReadError(f"the file cannot be opened: {error.strerror}", fix=GRANT_ACCESS) from error


def _take_url(job: Job, reader: SandboxedReader, limits: ReadingSettings) -> Taken | Touched | None:
    had = job.old if job.is_current else None  # else it must be sent even if the server's version is the same
    fetched = fetch(
        job.uri,
        max_bytes=limits.max_file_mb * 1_000_000,
        timeout_seconds=limits.max_seconds,
        if_none_match=had.etag if had else None,
        if_modified_since=had.last_modified if had else None,
    )
    if fetched.not_modified:
        return None
    etag, last_modified = (fetched.etag or "")[:1000], (fetched.last_modified or "")[:100]
    digest, size = hashlib.sha256(fetched.data).hexdigest(), len(fetched.data)
    if had is not None and had.source_sha256 == digest:
        return Touched(document_id=had.id, size=size, mtime_ns=0, etag=etag, last_modified=last_modified)
    document = reader.read(fetched.data, name=job.uri)
    return Taken(
        job=job, document=document, sha256=digest, size=size, mtime_ns=0, etag=etag, last_modified=last_modified
    )
