"""The one truth (SQL) and the derived indexes that follow it: batches in, records and scored chunks out.

    protocol.py                        what a store is                               <- START READING HERE
    sql.py                             ours: opens transactions, hands the work on
    records.py  encoding.py            its values; how columns hold them
    database.py  tables.py  migrations/
    reading.py  reading_collections.py what reads mean, inside a transaction
    writing.py  removing.py  embedders.py   what writes mean
    following.py                       indexes catch up with the database before every search
    vector_index.py  text_index.py  index_state.py

It does not read files, embed texts, fuse rankings or answer questions.
"""

from graft.store.protocol import Store
from graft.store.records import (
    Batch,
    ChunkRecord,
    CollectionRecord,
    DocumentRecord,
    Filter,
    NewDocument,
    Scored,
    SourceKind,
    SourceRecord,
    Touched,
    Unembedded,
    VersionRecord,
    VersionState,
    WriteResult,
)
from graft.store.sql import SqlStore

__all__ = [
    "Batch",
    "ChunkRecord",
    "CollectionRecord",
    "DocumentRecord",
    "Filter",
    "NewDocument",
    "Scored",
    "SourceKind",
    "SourceRecord",
    "SqlStore",
    "Store",
    "Touched",
    "Unembedded",
    "VersionRecord",
    "VersionState",
    "WriteResult",
]
