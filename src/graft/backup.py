"""A workspace's folder <-> one file: the databases as they were at one moment, and all that cannot be made anew.

Indexes are left out, for they are made from the database, and pulled models, for they are pulled again. Nothing is
read from a backup before its checksums are right. It does not know what documents or models are.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.access import join_inside
from graft.errors import GraftError, UsageError

VERSION = 1
MANIFEST = "manifest.json"
_LEFT_OUT = frozenset({"index", "open.lock"})
_TEMPORARY = (".part", ".lock", "-wal", "-shm", "-journal")
_PIECE = 1 << 20
_LARGEST_MANIFEST = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a backup holds.

    Attributes:
        home: The folder that it was made of.
        created: UTC, ISO 8601.
        files: SHA-256 of each, by its path within the folder.
    """

    home: str
    created: str
    files: Mapping[str, str]
    size_bytes: int


def back_up(home: Path, into: Path, *, tell: Callable[[str], object] = lambda path: None) -> Backup:
    """Write a workspace's folder into one file, while it may be in use; the file appears whole or not at all.

    Args:
        tell: Told of each file.
    Raises:
        UsageError: There is no such folder, or the file lies in it or exists.
        GraftError: The disk is full, or a file cannot be read.
    """
    if not home.is_dir():
        raise UsageError(f"no workspace at {home}", fix="graft backup FILE --home FOLDER")
    target = into.absolute()
    if target.exists():
        raise UsageError(f"{into} exists", fix="choose another name, or remove it first")
    if target.is_relative_to(home.resolve()):
        raise UsageError(f"{into} lies in the workspace that it would hold", fix="choose a folder outside of it")
    part = target.with_name(target.name + ".part")
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it holds documents and digests of keys
        with os.fdopen(handle, "wb") as out, tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            files = {name: _add(tar, path, name, tell) for name, path in _whole(home)}
            manifest = {"version": VERSION, "home": str(home.resolve()), "created": created, "files": files}
            _add_bytes(tar, MANIFEST, json.dumps(manifest, indent=1).encode())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise GraftError(
            f"the backup cannot be written: {error}", fix="free some space, or choose another disk"
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Backup(home=str(home.resolve()), created=created, files=files, size_bytes=target.stat().st_size)


def restore(file: Path, home: Path, *, tell: Callable[[str], object] = lambda path: None) -> Backup:
    """Unpack a backup into a folder that does not exist yet, or is empty; it appears whole or not at all.

    Indexes are still to be made, and paths within the databases are still those of the old folder.

    Raises:
        UsageError: The folder holds something, or the file is no backup, or a damaged one.
    """
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise UsageError(f"{home} is not empty", fix="graft restore FILE --home NEW_FOLDER")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as folder:
        unpacked = Path(folder) / "home"
        unpacked.mkdir()
        found = _unpack(file, unpacked, tell)
        if home.is_dir():
            home.rmdir()
        unpacked.replace(home)
    return found


def _whole(home: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of all that is kept; a database as a copy of one moment."""
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if name.split("/")[0] in _LEFT_OUT or name.endswith(_TEMPORARY) or path.is_symlink() or not path.is_file():
            continue
        if path.suffix != ".db":
            yield name, path
            continue
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            _copy_database(path, copy)
            yield name, copy


def _copy_database(path: Path, copy: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def _add(tar: tarfile.TarFile, path: Path, name: str, tell: Callable[[str], object]) -> str:
    tell(name)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = os.fstat(file.fileno()).st_size, 0o600, int(path.stat().st_mtime)

        class Counted(io.RawIOBase):
            def read(self, size: int = -1) -> bytes:
                data = file.read(size)
                digest.update(data)
                return data

        tar.addfile(info, Counted())
    return digest.hexdigest()


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o600
    tar.addfile(info, io.BytesIO(content))


def _unpack(file: Path, folder: Path, tell: Callable[[str], object]) -> Backup:
    """Each file below the folder, and nothing else; then what the manifest says against what came.

    Raises:
        UsageError: It is no backup, or a damaged one.
    """
    damaged = UsageError(f"{file} is no backup of Graft, or a damaged one", fix="graft backup FILE makes one")
    digests: dict[str, str] = {}
    manifest: Any = None
    try:
        with tarfile.open(file, mode="r|") as tar:
            for member in tar:
                if not member.isfile():  # a link or a device leads elsewhere
                    raise damaged
                content = tar.extractfile(member)
                assert content is not None
                if member.name == MANIFEST:
                    manifest = json.loads(content.read(_LARGEST_MANIFEST))
                    continue
                path = join_inside(folder, *member.name.split("/"))
                tell(member.name)
                digests[member.name] = _written(content, path)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise damaged from error
    except FileNotFoundError as error:
        raise UsageError(f"no file {file}", fix="graft restore FILE --home NEW_FOLDER") from error
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION or manifest.get("files") != digests:
        raise damaged
    return Backup(
        home=str(manifest["home"]),
        created=str(manifest["created"]),
        files=digests,
        size_bytes=file.stat().st_size,
    )


def _written(content: Any, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        while piece := content.read(_PIECE):
            digest.update(piece)
            out.write(piece)
    return digest.hexdigest()
