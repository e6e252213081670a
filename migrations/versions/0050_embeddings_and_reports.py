"""vectors of images, and reports of jobs that make no model."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from core.db.vectors import HalfVector

revision = "0050"
down_revision = "0006"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
LEAST_VERSION = (0, 8)  # iterative scans, without which a filter may leave an index search empty


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    found = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    version = str(op.get_bind().scalar(sa.text(found)))
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_VERSION:
        raise RuntimeError(
            f"pgvector: found {version}, 0.8 or newer is needed; install it beside Postgres and "
            "run ALTER EXTENSION vector UPDATE"
        )
    _make_embeddings()
    _make_reports()
    op.drop_constraint(op.f("ck_jobs_stage_known"), "jobs", type_="check")
    op.create_check_constraint(
        op.f("ck_jobs_stage_known"),
        "jobs",
        "stage IN ('pretrain', 'finetune', 'distill', 'embed', 'evaluate')",
    )


def _make_embeddings() -> None:
    op.create_table(
        "embeddings",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("embedding", HalfVector(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "model_id"],
            ["models.project_id", "models.id"],
            name=op.f("fk_embeddings_project_id_model_id_models"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "dataset_id"],
            ["datasets.project_id", "datasets.id"],
            name=op.f("fk_embeddings_project_id_dataset_id_datasets"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id", "image_id"],
            ["images.dataset_id", "images.id"],
            name=op.f("fk_embeddings_dataset_id_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_id", "dataset_id", "image_id", name=op.f("pk_embeddings")),
    )
    op.create_index(
        op.f("ix_embeddings_dataset_id_image_id"), "embeddings", ["dataset_id", "image_id"]
    )


def _make_reports() -> None:
    op.create_table(
        "reports",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint("stage IN ('embed', 'evaluate')", name=op.f("ck_reports_stage_known")),
        sa.ForeignKeyConstraint(
            ["project_id", "job_id"],
            ["jobs.project_id", "jobs.id"],
            name=op.f("fk_reports_project_id_job_id_jobs"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "model_id"],
            ["models.project_id", "models.id"],
            name=op.f("fk_reports_project_id_model_id_models"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_reports_dataset_id_datasets"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_reports")),
    )
    op.create_index(op.f("ix_reports_model_id_created_at"), "reports", ["model_id", "created_at"])
    op.create_index(op.f("ix_reports_dataset_id"), "reports", ["dataset_id"])


def downgrade() -> None:
    op.drop_table("reports")
    op.drop_table("embeddings")  # with the indexes that jobs have built on it
    op.execute("DELETE FROM jobs WHERE stage IN ('embed', 'evaluate')")
    op.drop_constraint(op.f("ck_jobs_stage_known"), "jobs", type_="check")
    op.create_check_constraint(
        op.f("ck_jobs_stage_known"), "jobs", "stage IN ('pretrain', 'finetune', 'distill')"
    )
