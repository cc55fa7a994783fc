"""What adding is given and what it tells; plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from graft.access import Principals
from graft.embedding import Embedder
from graft.readers.sandbox import SandboxedReader
from graft.settings import Settings
from graft.store import SourceRecord, Store
from graft.sync.fingerprints import Fingerprints


@dataclass(frozen=True, slots=True)
class Failure:
    """A file or folder that could not be added, and what to do."""

    path: str
    error: str
    fix: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an add has come.

    Attributes:
        files, total_files: Of those that must be read; what did not change is not among them.
        chunks: Those written so far.
        path: The file at hand.
    """

    files: int
    total_files: int
    chunks: int
    path: str


@dataclass(slots=True)
class AddResult:
    """What an add or sync did; counts of documents, and of chunks written.

    Attributes:
        updated: Replaced, cut anew, or read anew because Graft or its settings read otherwise than before.
        kept_out: Files left alone because somebody removed their document; `add FILE` brings one back.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: list[Failure] = field(default_factory=list)
    chunks: int = 0
    seconds: float = 0.0
    kept_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """What adding needs: where to, what reads and embeds, and who is told.

    Attributes:
        reader: The first of `settings.reading.workers`; others are started for as long as they are needed.
        home: The workspace's own folder, in full; what Graft keeps there is no document.
    """

    store: Store
    reader: SandboxedReader
    embedder: Embedder
    settings: Settings
    home: Path | None = None
    progress: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One add or sync at work: what it is given, who asks, and what it has done so far."""

    ingest: Ingest
    principals: Principals
    fingerprints: Fingerprints
    result: AddResult = field(default_factory=AddResult)


@dataclass(frozen=True, slots=True)
class RemovedSource:
    """A source that is forgotten, and how many documents went with it."""

    source: SourceRecord
    documents: int
