"""The verbs over sources: add them, look at them again, and make a collection's vectors anew.

It does not know formats, how text is cut, or how the store keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from graft.access import Principals
from graft.chunking import searchable
from graft.errors import UsageError
from graft.store import SourceRecord
from graft.sync.batches import EMBED_AT_ONCE, work_off
from graft.sync.fingerprints import Fingerprints
from graft.sync.looking import look, look_at_file
from graft.sync.sources import list_sources, source_at
from graft.sync.taking import Job, printable
from graft.sync.values import AddResult, Failure, Ingest, Progress, Run


def add(
    locations: Sequence[str],
    *,
    ingest: Ingest,
    collection: str,
    principals: Principals,
    grant: Principals,
    owners: Principals | None = None,
) -> AddResult:
    """Add files, folders and URLs to a collection; each becomes a source that `sync` looks at again.

    What somebody removed from a folder stays out of it when the folder is added again. Naming the file itself
    brings it back, under its folder if that was added for the same readers; so does naming a removed URL.

    Args:
        principals: Who adds.
        grant: Who may read what is added.
        owners: Whose the collection is where it is made by this, if not all of `principals`: a user's groups read,
            and do not own.
    Raises:
        UsageError: A location does not exist.
        AccessDenied: The collection is somebody else's.
        EmbedderMismatch: The collection holds another embedder's vectors.
    """
    found = list(dict.fromkeys(source_at(location) for location in locations))
    began, store = time.perf_counter(), ingest.store
    store.create_collection(collection, principals=principals, owners=owners)
    run = _begin(ingest, principals)
    jobs: list[Job] = []
    sources: list[SourceRecord] = []
    for kind, uri in found:
        job = _removed_from_folder(Path(uri), run, collection, grant) if kind == "file" else None
        if job is not None:
            jobs.append(job)
            continue
        source = store.add_source(collection, kind=kind, uri=uri, grant=grant, principals=principals)
        sources.append(source)
        jobs += look(source, run, named=True)
    _read(jobs, sources, run, collection)
    return _end(run, began)


def sync(*, ingest: Ingest, collection: str | None, principals: Principals) -> AddResult:
    """Look again at every source of a collection, or of all.

    Raises:
        NotFound: There is no such collection.
        EmbedderMismatch: A collection holds another embedder's vectors.
    """
    began, run = time.perf_counter(), _begin(ingest, principals)
    by_collection: dict[str, list[SourceRecord]] = {}
    for source in list_sources(collection, store=ingest.store, principals=principals):
        by_collection.setdefault(source.collection, []).append(source)
    for name, sources in by_collection.items():
        jobs: list[Job] = []
        looked_at = []
        for source in sources:
            try:
                jobs += look(source, run)
                looked_at.append(source)
            except UsageError as error:  # a folder that is not there: what it held is kept
                run.result.failed.append(Failure(source.uri, error.message, error.fix))
        _read(jobs, looked_at, run, name)
    return _end(run, began)


def reembed(collection: str, *, ingest: Ingest, principals: Principals) -> int:
    """Make a collection's vectors anew with the ingest's embedder; the old ones serve until all are there.

    Returns: How many chunks were embedded; one that was interrupted goes on where it stopped.
    """
    identity, store = ingest.embedder.identity, ingest.store
    done = 0
    while chunks := store.unembedded(collection, identity, limit=EMBED_AT_ONCE, principals=principals):
        vectors = ingest.embedder.embed([searchable(c.context, c.text) for c in chunks])
        store.put_vectors(identity, [c.chunk_id for c in chunks], vectors, principals=principals)
        done += len(chunks)
        ingest.progress(Progress(0, 1, done, collection))
    store.switch_embedder(collection, identity, principals=principals)
    return done


def _begin(ingest: Ingest, principals: Principals) -> Run:
    fingerprints = Fingerprints(ingest.settings.chunking, ingest.embedder)
    return Run(ingest=ingest, principals=principals, fingerprints=fingerprints)


def _end(run: Run, began: float) -> AddResult:
    run.ingest.store.follow()
    run.result.seconds = round(time.perf_counter() - began, 3)
    return run.result


def _read(jobs: Sequence[Job], sources: Sequence[SourceRecord], run: Run, collection: str) -> None:
    work_off(jobs, run, collection=collection)
    failed = {failure.path for failure in run.result.failed}
    for source in sources:
        if source.uri not in failed:  # a URL that did not answer was not looked at
            run.ingest.store.mark_synced(source.id, principals=run.principals)


def _removed_from_folder(path: Path, run: Run, collection: str, grant: Principals) -> Job | None:
    """The job of bringing back a file under the folder from which somebody removed its document."""
    store = run.ingest.store
    for source in store.sources(collection, principals=run.principals):
        if source.kind != "folder" or source.principals != grant or not path.is_relative_to(source.uri):
            continue
        uri = printable(path.relative_to(source.uri).as_posix())
        if uri in store.removed_uris(source.id, principals=run.principals):
            return look_at_file(path, source)
    return None
