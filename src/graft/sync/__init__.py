"""files, folders, URLs -> the store: what is new is added, what changed replaced, what is gone removed.

    adding.py                    the verbs: add, sync, reembed                  <- START READING HERE
    values.py                    what they are given and what they tell
    sources.py                   a location -> a source; sources listed and forgotten
    looking.py  fingerprints.py  a source -> the files of it that must be read
    taking.py  ahead.py          one such file -> a document; many at once, in order
    batches.py                   documents -> chunks -> vectors -> the store

A folder stays registered as a source, so that a later look finds what happened there since. Nothing is
lost to bad input: a file that cannot be read now keeps the version that could. A document that somebody
removed stays out, until its file is named in an `add`. It does not know formats, how text is cut, or how
the store keeps it.
"""

from graft.sync.adding import add, reembed, sync
from graft.sync.batches import title_of
from graft.sync.sources import is_url, list_sources, remove_source
from graft.sync.values import AddResult, Failure, Ingest, Progress, RemovedSource

__all__ = [
    "AddResult",
    "Failure",
    "Ingest",
    "Progress",
    "RemovedSource",
    "add",
    "is_url",
    "list_sources",
    "reembed",
    "remove_source",
    "sync",
    "title_of",
]
