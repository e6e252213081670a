"""a dataset that was deleted has no project until the sweep has removed its rows."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0055"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("datasets", "project_id", existing_type=sa.Uuid(), nullable=True)


def downgrade() -> None:
    op.execute("DELETE FROM datasets WHERE project_id IS NULL")
    op.alter_column("datasets", "project_id", existing_type=sa.Uuid(), nullable=False)
