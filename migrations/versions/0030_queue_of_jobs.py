"""an index in the order in which queued jobs are claimed."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Partial: it holds what is queued, so that making it takes no time that a claim would notice.
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        ["device", sa.text("priority DESC"), "created_at", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_queue", "jobs")
