"""Runs the migrations on the connection that core.db.session hands over."""

from alembic import context

from core.db.models import Project

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Project.metadata,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
