"""A derived index's state.json: how far it has come, replaced in one step, and the lock of its writers.

What the state names is complete on disk before the state is written, so a crash leaves the old state with
perhaps some unnamed bytes behind it, never a state that promises more than there is.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from graft.errors import IndexCorrupt

REBUILD = "graft collections rebuild"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """How far an index has come.

    Attributes:
        store: Random name of the database that it follows.
        sequence: Every change up to this one is in it.
        generation: Part of its files' names; a rewritten index has new files.
        rows: Rows in use, dead ones included; 0 where the index does not count.
    """

    store: str
    sequence: int
    generation: int
    rows: int = 0


def read_state(folder: Path) -> IndexState:
    """The state of the index in `folder`.

    Raises:
        IndexCorrupt: It is missing, damaged or of another format.
    """
    path = folder / "state.json"
    try:
        saved = json.loads(path.read_bytes())
        if saved["format"] != _FORMAT or saved["check"] != _check(saved["state"]):
            raise ValueError("wrong format or check sum")
        return IndexState(**saved["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexCorrupt(f"{path} is missing or damaged: {error}", fix=REBUILD) from error


def write_state(folder: Path, state: IndexState) -> None:
    """Replace the state of the index in `folder`, whose files must be on disk by now."""
    body = asdict(state)
    draft = folder / "state.json.new"
    with draft.open("w", encoding="utf-8") as file:
        json.dump({"format": _FORMAT, "state": body, "check": _check(body)}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / "state.json")
    sync_folder(folder)


def drop_state(folder: Path) -> None:
    """Leave an index without a state: whoever opens it next builds it anew."""
    (folder / "state.json").unlink(missing_ok=True)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make new names in `folder` outlive a power cut, where the system knows how."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def index_lock(folder: Path) -> Iterator[None]:
    """Only one thread of one process at a time; the system frees it when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        yield


def _check(body: dict[str, object]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
