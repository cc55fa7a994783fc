"""Run by alembic with the connection that `graft.store.database` hands it; there is no alembic.ini."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
