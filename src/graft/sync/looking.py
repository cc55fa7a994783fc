"""A source -> the files of it that must be read: new ones, changed ones, and those read otherwise than now.

What vanished is removed from the store here; what did not change is counted. It does not open files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from graft.errors import UsageError
from graft.store import Batch, DocumentRecord, SourceRecord
from graft.sync.taking import GRANT_ACCESS, Job, printable
from graft.sync.values import AddResult, Failure, Run


@dataclass(frozen=True, slots=True)
class _File:
    """A file found: `uri` is its path within the source."""

    uri: str
    path: Path
    size: int
    mtime_ns: int


@dataclass(slots=True)
class _Unread:
    """What could not be looked at, and may still be there: URIs of files, paths of folders."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def __contains__(self, uri: str) -> bool:
        above = (parent.as_posix() for parent in PurePosixPath(uri).parents)
        return uri in self.files or not self.folders.isdisjoint(above)


def look(source: SourceRecord, run: Run, *, named: bool = False) -> list[Job]:
    """What must be read of a source.

    Args:
        named: Somebody names the source now, so a file or URL that is all of it comes back if it was removed.
    Raises:
        UsageError: Its folder is not there, or empty; what it held is kept.
    """
    store, result = run.ingest.store, run.result
    known = {d.uri: d for d in store.documents(source_id=source.id, principals=run.principals)}
    back = named and source.kind != "folder"
    out = frozenset[str]() if back else store.removed_uris(source.id, principals=run.principals)
    if source.kind == "url":
        if source.uri in out:
            result.kept_out += 1
            return []
        old = known.get(source.uri)
        return [Job(source=source, uri=source.uri, path=None, old=old, is_current=_is_current(old, source, run))]
    unread = _Unread()
    files = _files(source, len(known), unread, run)
    seen = {file.uri for file in files}
    gone = [d.id for uri, d in known.items() if uri not in seen and uri not in unread]
    if gone:
        batch = Batch(collection=source.collection, vanished=gone)
        result.removed += len(store.write(batch, principals=run.principals).removed)
    result.kept_out += len(seen & out)
    jobs = (_job(file, known.get(file.uri), source, run) for file in files if file.uri not in out)
    return [job for job in jobs if job is not None]


def look_at_file(path: Path, source: SourceRecord) -> Job | None:
    """The job of bringing back one file of a folder; None where the file is gone."""
    file = _look(path, printable(path.relative_to(source.uri).as_posix()))
    if file is None:
        return None
    return Job(source=source, uri=file.uri, path=path, size=file.size, mtime_ns=file.mtime_ns)


def _is_current(old: DocumentRecord | None, source: SourceRecord, run: Run) -> bool:
    """Whether the same bytes would make the same document for the same readers."""
    return (
        old is not None
        and old.principals == source.principals
        and old.fingerprint == run.fingerprints.of(old.format, old.uri)
    )


def _job(file: _File, old: DocumentRecord | None, source: SourceRecord, run: Run) -> Job | None:
    is_current = _is_current(old, source, run)
    if old is not None and is_current and (old.size, old.mtime_ns) == (file.size, file.mtime_ns):
        run.result.unchanged += 1
        return None
    return Job(
        source=source,
        uri=file.uri,
        path=file.path,
        size=file.size,
        mtime_ns=file.mtime_ns,
        old=old,
        is_current=is_current,
    )


def _files(source: SourceRecord, documents: int, unread: _Unread, run: Run) -> list[_File]:
    root = Path(source.uri)
    if source.kind == "folder":
        if not _is_folder(root):
            raise UsageError(
                f"the folder {root} is not there; its {documents} documents are kept",
                fix=f"mount or restore it, or `graft remove` the documents of {root.name}",
            )
        if root == run.ingest.home:
            raise UsageError(
                f"{root} is the workspace's own folder; what Graft keeps there is no document",
                fix="put the documents into a folder of their own, or name another workspace by --home",
            )
        if documents and _is_empty(root):  # where a disk is not mounted, its empty mount point is left
            raise UsageError(
                f"the folder {root} is empty; its {documents} documents are kept",
                fix=f"mount or restore it, or `graft remove {root}` if its files were deleted on purpose",
            )
        return list(_walk(root, unread, run))
    if not _is_folder(root.parent):
        raise UsageError(f"the folder {root.parent} is not there; {root.name} is kept", fix="mount or restore it")
    file = _try_to_look(root, printable(root.name), unread, run.result)
    return [] if file is None else [file]


def _walk(root: Path, unread: _Unread, run: Run) -> Iterator[_File]:
    """The regular files under a folder in order of name; links to folders are not followed, so none can loop.

    A link to a file counts only if it stays inside; hidden names and the workspace's own folder are left out.
    """
    result, home = run.result, run.ingest.home

    def on_error(error: OSError) -> None:
        folder = Path(error.filename)
        unread.folders.add(printable(folder.relative_to(root).as_posix()))
        what = f"the folder cannot be listed: {error.strerror}"
        result.failed.append(Failure(printable(str(folder)), what, GRANT_ACCESS))

    yielded: set[str] = set()
    for folder, subfolders, names in os.walk(root, onerror=on_error):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and Path(folder, name) != home)
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith("."):
                continue
            uri = printable(path.relative_to(root).as_posix())
            if uri in yielded:
                what = f"its name is not text, and written as {uri} it is another file's"
                result.failed.append(Failure(printable(str(path)), what, "rename one of the two"))
                continue
            yielded.add(uri)
            file = _try_to_look(path, uri, unread, result, inside=root)
            if file is not None:
                yield file


def _is_folder(path: Path) -> bool:
    """Not Path.is_dir, which raises where the folder above may not be entered."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return False


def _stays_inside(path: Path, root: Path) -> bool:
    if not stat.S_ISLNK(path.lstat().st_mode):
        return True
    try:
        return root in path.resolve().parents
    except (OSError, RuntimeError):  # a link to itself
        return False


def _try_to_look(
    path: Path, uri: str, unread: _Unread, result: AddResult, *, inside: Path | None = None
) -> _File | None:
    """As `_look`, if no link leads out of `inside`; trouble is noted as a failure of this one file."""
    try:
        return _look(path, uri) if inside is None or _stays_inside(path, inside) else None
    except FileNotFoundError:
        return None  # gone since it was listed
    except OSError as error:
        unread.files.add(uri)
        what = f"the file cannot be looked at: {error.strerror}"
        result.failed.append(Failure(printable(str(path)), what, GRANT_ACCESS))
        return None


def _look(path: Path, uri: str) -> _File | None:
    """The file, or None where there is none; any other trouble is an OSError, for then it may still be there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None  # gone, or a link to nothing
    if not stat.S_ISREG(status.st_mode):
        return None
    return _File(uri, path, status.st_size, status.st_mtime_ns)
