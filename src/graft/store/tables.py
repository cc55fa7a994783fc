"""The tables of the truth, as SQLAlchemy sees them. migrations/ makes them; a test holds the two together.

Every write transaction first takes the next number of `sequence`, which also puts writers in line, so
numbers are committed in order. A document carries the number of its last change of any kind: the derived
indexes follow by asking which documents have a number above the one they have reached.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA = "0007"
"""The newest migration; a database that says so needs none."""

THERE, VANISHED, TAKEN_OUT = 0, 1, 2
"""Values of `documents.removed`. A document whose file vanished returns with it; one that somebody took out
stays out for every sync."""

metadata = MetaData()

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_KEY = BigInteger().with_variant(Integer, "sqlite")

sequence = Table(
    "sequence",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    Column("last_document", BigInteger, nullable=False),  # keys are handed out here, under the writer's lock,
    Column("last_chunk", BigInteger, nullable=False),  # and never again: an index cannot show another's text
    Column("store", Text, nullable=False),  # random name: an index of another database is not taken for ours
)

embedders = Table(
    "embedders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("identity", Text, nullable=False, unique=True),
    Column("dimensions", Integer, nullable=False),
)

collections = Table(
    "collections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("principals", Text, nullable=False),
    Column("embedder_id", ForeignKey("embedders.id")),
    Column("created_at", Text, nullable=False),
    sqlite_autoincrement=True,
)

# A distinct pair of collection and set of readers: an access filter becomes a small set of these.
# Rows never change and are never removed, so an id means the same for ever.
scopes = Table(
    "scopes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("collection_id", Integer, nullable=False),
    Column("principals", Text, nullable=False),
    UniqueConstraint("collection_id", "principals"),
)

grants = Table(
    "grants",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("scope_id", ForeignKey("scopes.id"), primary_key=True),
)

sources = Table(
    "sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("principals", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("last_sync", Text),
    UniqueConstraint("collection_id", "uri"),
    sqlite_autoincrement=True,  # tombstones remember their source's id
)

documents = Table(
    "documents",
    metadata,
    Column("key", _KEY, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("collection", Text, nullable=False),  # by name: a tombstone outlives its collection and source
    Column("source_id", Integer, nullable=False),
    Column("uri", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("scope_id", ForeignKey("scopes.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("source_sha256", Text, nullable=False),
    Column("chunks_sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False, index=True),
    Column("removed", Integer, nullable=False),  # THERE, or a tombstone, so that a citation says "removed"
    Column("added_at", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, server_default=""),
    Column("etag", Text, nullable=False, server_default=""),
    Column("last_modified", Text, nullable=False, server_default=""),
    UniqueConstraint("source_id", "uri"),
    Index("documents_by_scope", "scope_id", "removed"),
)

versions = Table(
    "versions",
    metadata,
    Column("document_key", ForeignKey("documents.key"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("title", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("source_sha256", Text, nullable=False),
    Column("text_sha256", Text, nullable=False),
    Column("characters", Integer, nullable=False),
    Column("pages", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("superseded_sequence", BigInteger),
    Column("text", Text, nullable=False),
    Column("boxes", LargeBinary),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", _KEY, primary_key=True, autoincrement=False),
    Column("document_key", ForeignKey("documents.key"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("page", Integer),
    Column("context", Text, nullable=False),
    Column("text", Text, nullable=False),
    UniqueConstraint("document_key", "ordinal"),
)

vectors = Table(
    "vectors",
    metadata,
    Column("chunk_id", ForeignKey("chunks.id"), primary_key=True),
    Column("embedder_id", ForeignKey("embedders.id"), primary_key=True),
    Column("data", LargeBinary, nullable=False),  # float32, little endian
)

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", Text, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("groups", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("budget_usd", Float),  # a month
    Column("origin", Text, nullable=False, server_default="hand"),  # or "oidc": made by signing in
    Column("subject", Text),  # issuer and subject of who signs in as this user
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True),  # of the cookie, which is kept nowhere
    Column("user", Text, nullable=False),  # "" of one that was begun with a key
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("key", Text),  # digest of that key
)

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),  # of the key, which is kept nowhere
    Column("user", Text),  # whose rights it has; a service's key has principals of its own instead
    Column("principals", Text),
    Column("role", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("requests_per_minute", Integer),
    Column("tokens_per_day", BigInteger),
)

spending = Table(
    "spending",
    metadata,
    Column("subject", Text, primary_key=True),  # user:NAME or key:NAME
    Column("period", Text, primary_key=True),  # a day, 2026-01-31, or a month, 2026-01
    Column("answers", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Float, nullable=False),
)

objects = Table(
    "objects",
    metadata,
    Column("number", Integer, primary_key=True),  # in the order in which they were made
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("parent", Text),
    Column("principals", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("objects_by_kind", "kind", "parent", "number"),
    sqlite_autoincrement=True,
)
