"""archives go straight to the object store; workers import them, and what lies in buckets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.drop_constraint(op.f("ck_imports_state_known"), "imports")
    op.create_check_constraint(
        op.f("ck_imports_state_known"),
        "imports",
        "state IN ('queued', 'running', 'complete', 'failed', 'interrupted')",
    )
    op.create_table(
        "direct_uploads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=True),
        sa.Column("import_id", sa.Uuid(), nullable=True),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("store_upload", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("part_count", sa.Integer(), nullable=False),
        sa.Column("held", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "byte_count > 0 AND part_count > 0", name=op.f("ck_direct_uploads_counts")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_direct_uploads_dataset_id_datasets"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["imports.id"],
            name=op.f("fk_direct_uploads_import_id_imports"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_direct_uploads")),
    )
    op.create_index(
        op.f("ix_direct_uploads_dataset_id"), "direct_uploads", ["dataset_id"], unique=False
    )
    op.create_index(
        "ix_direct_uploads_held",
        "direct_uploads",
        ["expires_at"],
        unique=False,
        postgresql_where="held",
    )
    op.create_table(
        "import_orders",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("source", postgresql.JSONB(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("fencing_token", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hinted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_file", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "attempt >= 0 AND fencing_token >= 0", name=op.f("ck_import_orders_counts")
        ),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["imports.id"],
            name=op.f("fk_import_orders_import_id_imports"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("import_id", name=op.f("pk_import_orders")),
    )


def downgrade() -> None:
    op.drop_table("import_orders")
    op.drop_table("direct_uploads")
    op.execute("UPDATE imports SET state = 'interrupted' WHERE state = 'queued'")
    op.drop_constraint(op.f("ck_imports_state_known"), "imports")
    op.create_check_constraint(
        op.f("ck_imports_state_known"),
        "imports",
        "state IN ('running', 'complete', 'failed', 'interrupted')",
    )
