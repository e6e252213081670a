"""Runs the migrations on the connection that core.db.session hands over."""

from alembic import context

from core.db import imports, models  # noqa: F401 - the tables are known once imported
from core.db.table import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
