"""The name of a format -> its reader, imported when first used.

Third-party readers come from entry points (see `graft.readers.protocol`). They take files whose content is
of no format of Graft's own, by suffix, so that a PDF called .epub is still read as the PDF that it is.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import PurePosixPath
from typing import cast

from graft.errors import ReadError
from graft.readers.detecting import SUFFIXES, detect
from graft.readers.protocol import ENTRY_POINTS, Reader

_MODULES = {
    "text": "text",
    "markdown": "markdown",
    "html": "html",
    "pdf": "pdf",
    "scan": "scan",
    "docx": "docx",
    "pptx": "pptx",
    "xlsx": "sheets",
    "csv": "delimited",
}


@cache
def third_party() -> dict[str, EntryPoint]:
    """Suffix, with its dot -> the entry point of the package that reads it; nothing is imported."""
    return {f".{entry.name.lower()}": entry for entry in entry_points(group=ENTRY_POINTS)}


def suffixes() -> frozenset[str]:
    """Every suffix that some installed reader takes, lower case, with its dot."""
    return frozenset(SUFFIXES) | frozenset(third_party())


def reader_for(data: bytes, name: str) -> Reader:
    """Choose by content, then by suffix.

    Raises:
        ReadError: No reader takes it, or a third-party reader cannot be loaded.
    """
    entry = third_party().get(PurePosixPath(name.lower()).suffix)
    try:
        format = detect(data, name)
    except ReadError:
        if entry is None:
            raise
        return _loaded(entry)
    return _loaded(entry) if entry is not None and format == "text" else own_reader(format)


def own_reader(format: str) -> Reader:
    """One of Graft's own readers: a module with a `read` function."""
    return cast(Reader, importlib.import_module(f"graft.readers.{_MODULES[format]}"))


def _loaded(entry: EntryPoint) -> Reader:
    try:
        found = entry.load()
    except Exception as error:  # whatever a foreign package's import may raise
        raise ReadError(
            f"the reader {entry.value} for .{entry.name} cannot be loaded: {error}",
            fix="upgrade or remove the package that brings it",
        ) from error
    return cast(Reader, found() if isinstance(found, type) else found)
