"""A format and a file's name -> the reader's version, stored with each document that it made.

Raise a number when that reader would now return another text, other blocks, pages, boxes or metadata for the
same bytes: every document of the format is then read once more by the next add or sync.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from graft.readers.registry import third_party

VERSIONS = {
    "text": 1,
    "markdown": 1,
    "html": 1,
    "pdf": 1,  # scans too
    "docx": 1,
    "pptx": 1,
    "xlsx": 1,
    "csv": 1,
    "tsv": 1,
}
"""`Document.format` -> version of Graft's own reader."""


def reader_version(format: str, name: str) -> str:
    """What read a document of this format and file name; a third-party reader by its package's version.

    >>> reader_version("docx", "plan.docx")
    'docx/1'
    """
    entry = third_party().get(PurePosixPath(name.lower()).suffix)
    package = f"+{entry.dist.name}-{entry.dist.version}" if entry is not None and entry.dist is not None else ""
    return f"{format}/{VERSIONS.get(format, 0)}{package}"
