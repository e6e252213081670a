"""when and where a job may run, and checkpoints in the blob store."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0056"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Each has a default, so that the code from before goes on writing jobs.
    op.add_column("jobs", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("device", sa.Text(), server_default="cpu", nullable=False))
    op.add_column("jobs", sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("beginning", sa.Integer(), server_default="0", nullable=False))
    op.create_check_constraint(
        op.f("ck_jobs_priority_bounded"), "jobs", "priority BETWEEN -100 AND 100"
    )
    op.create_check_constraint(op.f("ck_jobs_device_known"), "jobs", "device IN ('cpu', 'gpu')")
    op.create_table(
        "job_checkpoints",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column(
            "saved_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_job_checkpoints_sha256_form")
        ),
        sa.CheckConstraint("step >= 0 AND byte_count > 0", name=op.f("ck_job_checkpoints_sizes")),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
            name=op.f("fk_job_checkpoints_job_id_jobs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "folder", name=op.f("pk_job_checkpoints")),
    )


def downgrade() -> None:
    op.drop_table("job_checkpoints")
    for name in ("beginning", "not_before", "device", "priority"):
        op.drop_column("jobs", name)
