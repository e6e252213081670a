"""uploads are recorded file by file; datasets count their images; loose blobs are marked."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    for name in ("image_count", "byte_count"):
        op.add_column(
            "datasets", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
        )
    op.execute(
        "UPDATE datasets SET image_count = counted.images, byte_count = counted.bytes FROM ("
        "SELECT dataset_id, count(*) AS images, sum(byte_count) AS bytes FROM images GROUP BY 1"
        ") AS counted WHERE counted.dataset_id = datasets.id"
    )
    op.create_check_constraint(
        op.f("ck_datasets_counts"), "datasets", "image_count >= 0 AND byte_count >= 0"
    )
    op.create_table(
        "imports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("added", sa.Integer(), server_default="0", nullable=False),
        sa.Column("duplicates", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rejected", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "state IN ('running', 'complete', 'failed', 'interrupted')",
            name=op.f("ck_imports_state_known"),
        ),
        sa.CheckConstraint(
            "(state = 'failed') = (error_code IS NOT NULL)",
            name=op.f("ck_imports_error_has_reason"),
        ),
        sa.CheckConstraint(
            "added >= 0 AND duplicates >= 0 AND rejected >= 0", name=op.f("ck_imports_counts")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_imports_dataset_id_datasets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    op.create_index(
        op.f("ix_imports_dataset_id_created_at_id"),
        "imports",
        ["dataset_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_imports_running",
        "imports",
        ["updated_at"],
        unique=False,
        postgresql_where="state = 'running'",
    )
    op.create_table(
        "import_lines",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("image_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('added', 'duplicate', 'rejected')",
            name=op.f("ck_import_lines_outcome_known"),
        ),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["imports.id"],
            name=op.f("fk_import_lines_import_id_imports"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("import_id", "number", name=op.f("pk_import_lines")),
    )
    op.create_table(
        "loose_blobs",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_loose_blobs")),
    )
    op.create_index(op.f("ix_loose_blobs_since"), "loose_blobs", ["since"], unique=False)


def downgrade() -> None:
    op.drop_table("loose_blobs")
    op.drop_table("import_lines")
    op.drop_table("imports")
    op.drop_column("datasets", "byte_count")
    op.drop_column("datasets", "image_count")
