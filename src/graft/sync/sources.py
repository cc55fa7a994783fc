"""A location as typed -> a source as stored: (kind, absolute address); sources listed and forgotten.

It does not know what lies in a source.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from graft.access import Principals
from graft.errors import NotFound, UsageError
from graft.store import SourceKind, SourceRecord, Store
from graft.sync.taking import printable
from graft.sync.values import RemovedSource


def source_at(location: str) -> tuple[SourceKind, str]:
    """("url" | "folder" | "file", its absolute address).

    Raises:
        UsageError: Nothing is there.
    """
    if is_url(location):
        return "url", location
    if not location.strip():
        raise UsageError("a location is empty", fix="name a file, a folder or a URL; `graft add .` is this folder")
    try:
        address = address_of(location)
        mode = Path(address).stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"{printable(location)} does not exist"
        raise UsageError(what, fix="check the spelling; `ls` shows what is there") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        what = f"{printable(location)[:200]} cannot be looked at: {reason}"
        raise UsageError(what, fix="check its name and its permissions") from error
    if printable(address) != address:
        raise UsageError(f"{printable(address)}: the name is not text", fix="rename it, or add the folder above it")
    if stat.S_ISDIR(mode):
        return "folder", address
    if not stat.S_ISREG(mode):
        raise UsageError(f"{location} is neither a file nor a folder", fix="name a regular file or a folder")
    return "file", address


def address_of(location: str) -> str:
    """A URL as it is; a path in full, its links followed, whether or not anything is there."""
    if is_url(location) or not location:
        return location
    # Not Path.expanduser and Path.resolve: they raise for "~$draft.docx" and for a link to itself.
    return os.path.realpath(os.path.expanduser(location))  # noqa: PTH111


def is_url(location: str) -> bool:
    return location.lower().startswith(("http://", "https://"))


def list_sources(collection: str | None, *, store: Store, principals: Principals) -> list[SourceRecord]:
    """The folders, files and URLs that were added to a collection, or to all.

    Raises:
        NotFound: There is no such collection.
    """
    names = [c.name for c in store.collections(principals=principals)] if collection is None else [collection]
    return [source for name in names for source in store.sources(name, principals=principals)]


def remove_source(location: str, *, store: Store, collection: str | None, principals: Principals) -> RemovedSource:
    """Forget a folder, file or URL that was added, with its documents; the next sync does not look there.

    Args:
        location: As it was added; it need not be there any more.
        collection: Where more than one has it.
    Raises:
        NotFound: It was never added, or is not theirs to know.
        AccessDenied: The collection is not theirs to change.
        UsageError: Several collections have it.
    """
    sources = list_sources(collection, store=store, principals=principals)
    found = [source for source in sources if source.uri in (location, address_of(location))]
    if not found:
        have = ", ".join(source.uri for source in sources[:5]) + (", ..." if len(sources) > 5 else "")
        raise NotFound(f"{location} is no source; have {have or 'none'}", fix="graft list")
    if len(found) > 1:
        names = ", ".join(source.collection for source in found)
        raise UsageError(
            f"{location} is a source of several collections: {names}",
            fix=f"graft remove {location} --collection {found[0].collection}",
        )
    removed = store.remove_source(found[0].id, principals=principals).removed
    return RemovedSource(found[0], len(removed))
