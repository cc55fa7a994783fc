"""The first tables."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    sequence = op.create_table(
        "sequence",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("last_document", sa.BigInteger, nullable=False),
        sa.Column("last_chunk", sa.BigInteger, nullable=False),
        sa.Column("store", sa.Text, nullable=False),
    )
    first = {"id": 1, "value": 0, "last_document": 0, "last_chunk": 0, "store": secrets.token_hex(8)}
    op.bulk_insert(sequence, [first])
    op.create_table(
        "embedders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("identity", sa.Text, nullable=False, unique=True),
        sa.Column("dimensions", sa.Integer, nullable=False),
    )
    op.create_table(
        "collections",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("principals", sa.Text, nullable=False),
        sa.Column("embedder_id", sa.Integer, sa.ForeignKey("embedders.id")),
        sa.Column("created_at", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "scopes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("collection_id", sa.Integer, nullable=False),
        sa.Column("principals", sa.Text, nullable=False),
        sa.UniqueConstraint("collection_id", "principals"),
    )
    op.create_table(
        "grants",
        sa.Column("principal", sa.Text, primary_key=True),
        sa.Column("scope_id", sa.Integer, sa.ForeignKey("scopes.id"), primary_key=True),
    )
    op.create_table(
        "sources",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("collection_id", sa.Integer, sa.ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("principals", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("last_sync", sa.Text),
        sa.UniqueConstraint("collection_id", "uri"),
        sqlite_autoincrement=True,
    )
    _create_documents()
    op.create_table(
        "models",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("spec", sa.Text, nullable=False),
    )


def _create_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("key", KEY, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("source_id", sa.Integer, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("scope_id", sa.Integer, sa.ForeignKey("scopes.id"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("source_sha256", sa.Text, nullable=False),
        sa.Column("chunks_sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("chunks", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, index=True),
        sa.Column("removed", sa.Integer, nullable=False),
        sa.Column("added_at", sa.Text, nullable=False),
        sa.UniqueConstraint("source_id", "uri"),
    )
    op.create_index("documents_by_scope", "documents", ["scope_id", "removed"])
    op.create_table(
        "versions",
        sa.Column("document_key", KEY, sa.ForeignKey("documents.key"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("source_sha256", sa.Text, nullable=False),
        sa.Column("text_sha256", sa.Text, nullable=False),
        sa.Column("characters", sa.Integer, nullable=False),
        sa.Column("pages", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("superseded_sequence", sa.BigInteger),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("boxes", sa.LargeBinary),
    )
    op.create_table(
        "chunks",
        sa.Column("id", KEY, primary_key=True, autoincrement=False),
        sa.Column("document_key", KEY, sa.ForeignKey("documents.key"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("end", sa.Integer, nullable=False),
        sa.Column("page", sa.Integer),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.UniqueConstraint("document_key", "ordinal"),
    )
    op.create_table(
        "vectors",
        sa.Column("chunk_id", KEY, sa.ForeignKey("chunks.id"), primary_key=True),
        sa.Column("embedder_id", sa.Integer, sa.ForeignKey("embedders.id"), primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
