"""How a document was made, and a URL's marks.

Documents of before have an empty fingerprint, so the next sync reads each of them once more. `removed` may
now be 2 as well (taken out by somebody); the tombstones of before are 1 and come back with their files.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("fingerprint", "etag", "last_modified"):
        op.add_column("documents", sa.Column(name, sa.Text, nullable=False, server_default=""))
