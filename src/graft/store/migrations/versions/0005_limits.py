"""What a key may ask for in a minute and a day, what a user may spend in a month, and what they have."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("requests_per_minute", sa.Integer))
    op.add_column("keys", sa.Column("tokens_per_day", sa.BigInteger))
    op.add_column("users", sa.Column("budget_usd", sa.Float))
    op.create_table(
        "spending",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("answers", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Float, nullable=False),
    )
