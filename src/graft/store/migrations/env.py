"""Run by alembic with the connection that `graft.store.database` hands it; there is no alembic.ini."""

from alembic import context

if hasattr(context, "config"):  # not where a tool imports every module, as the doctest runner does
    context.configure(connection=context.config.attributes["connection"])
    context.run_migrations()
