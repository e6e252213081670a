"""initial schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name=op.f("ck_projects_name_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name=op.f("ck_api_keys_digest_form")),
        sa.CheckConstraint(
            "scopes <@ ARRAY['read', 'write', 'infer', 'admin'] AND cardinality(scopes) > 0",
            name=op.f("ck_api_keys_scopes_known"),
        ),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name=op.f("ck_api_keys_name_length")),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_api_keys_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_index(op.f("ix_api_keys_project_id"), "api_keys", ["project_id"], unique=False)
    op.create_table(
        "datasets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("test_fraction", sa.Double(), nullable=False),
        sa.Column("validation_fraction", sa.Double(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name=op.f("ck_datasets_name_length")),
        sa.CheckConstraint(
            "test_fraction >= 0 AND validation_fraction >= 0 AND test_fraction + validation_fraction <= 0.9",
            name=op.f("ck_datasets_fractions"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_datasets_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_datasets_project_id_id")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_datasets_project_id_name")),
    )
    op.create_index(
        op.f("ix_datasets_project_id_created_at_id"),
        "datasets",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "images",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("greyscale", sa.Boolean(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "format IN ('JPEG', 'PNG', 'WEBP')", name=op.f("ck_images_format_known")
        ),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_images_sha256_form")),
        sa.CheckConstraint(
            "width > 0 AND height > 0 AND byte_count > 0", name=op.f("ck_images_sizes_positive")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_images_dataset_id_datasets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("dataset_id", "id", name=op.f("uq_images_dataset_id_id")),
        sa.UniqueConstraint("dataset_id", "sha256", name=op.f("uq_images_dataset_id_sha256")),
    )
    op.create_index(
        op.f("ix_images_dataset_id_created_at_id"),
        "images",
        ["dataset_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_images_sha256"), "images", ["sha256"], unique=False)
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("image_count", sa.Integer(), nullable=False),
        sa.Column("label_count", sa.Integer(), nullable=False),
        sa.Column("class_names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name=op.f("ck_snapshots_digest_form")),
        sa.CheckConstraint(
            "image_count >= 0 AND label_count BETWEEN 0 AND image_count",
            name=op.f("ck_snapshots_counts"),
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_snapshots_dataset_id_datasets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("dataset_id", "digest", name=op.f("uq_snapshots_dataset_id_digest")),
    )
    op.create_table(
        "image_names",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "length(name) BETWEEN 1 AND 1024", name=op.f("ck_image_names_name_length")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id", "image_id"],
            ["images.dataset_id", "images.id"],
            name=op.f("fk_image_names_dataset_id_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("dataset_id", "name", "image_id", name=op.f("pk_image_names")),
    )
    op.create_index(op.f("ix_image_names_image_id"), "image_names", ["image_id"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=True),
        sa.Column("snapshot_id", sa.Uuid(), nullable=True),
        sa.Column("pipeline_id", sa.Uuid(), nullable=True),
        sa.Column("needs_id", sa.Uuid(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("plan", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("hinted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('failed', 'crashed')) = (error_code IS NOT NULL)",
            name=op.f("ck_jobs_error_has_reason"),
        ),
        sa.CheckConstraint(
            "(state IN ('running', 'cancelling')) = (lease_expires_at IS NOT NULL)",
            name=op.f("ck_jobs_lease_while_running"),
        ),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'failed', 'crashed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished_has_time"),
        ),
        sa.CheckConstraint(
            "stage IN ('pretrain', 'finetune', 'distill')", name=op.f("ck_jobs_stage_known")
        ),
        sa.CheckConstraint(
            "state <> 'waiting' OR needs_id IS NOT NULL", name=op.f("ck_jobs_waiting_has_need")
        ),
        sa.CheckConstraint(
            "state IN ('succeeded', 'failed', 'crashed', 'cancelled') OR (dataset_id IS NOT NULL AND snapshot_id IS NOT NULL)",
            name=op.f("ck_jobs_unfinished_has_data"),
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'queued', 'running', 'cancelling') OR state IN ('succeeded', 'failed', 'crashed', 'cancelled')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.CheckConstraint("attempt BETWEEN 0 AND max_attempts", name=op.f("ck_jobs_attempts")),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_jobs_dataset_id_datasets"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "needs_id"],
            ["jobs.project_id", "jobs.id"],
            name=op.f("fk_jobs_project_id_needs_id_jobs"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_jobs_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["snapshots.id"],
            name=op.f("fk_jobs_snapshot_id_snapshots"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_jobs_project_id_id")),
    )
    op.create_index(op.f("ix_jobs_dataset_id"), "jobs", ["dataset_id"], unique=False)
    op.create_index(op.f("ix_jobs_needs_id"), "jobs", ["needs_id"], unique=False)
    op.create_index(
        op.f("ix_jobs_project_id_created_at_id"),
        "jobs",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["state"],
        unique=False,
        postgresql_where="state NOT IN ('succeeded', 'failed', 'crashed', 'cancelled')",
    )
    op.create_table(
        "labels",
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("class_name", sa.Text(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "length(class_name) BETWEEN 1 AND 200", name=op.f("ck_labels_class_name_length")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id", "image_id"],
            ["images.dataset_id", "images.id"],
            name=op.f("fk_labels_dataset_id_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_labels")),
    )
    op.create_index(
        op.f("ix_labels_dataset_id_class_name"),
        "labels",
        ["dataset_id", "class_name"],
        unique=False,
    )
    op.create_table(
        "job_metrics",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_job_metrics_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "name", "step", name=op.f("pk_job_metrics")),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("manifest", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("kind IN ('encoder', 'classifier')", name=op.f("ck_models_kind_known")),
        sa.CheckConstraint("parent_id <> id", name=op.f("ck_models_not_its_own_parent")),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["models.id"],
            name=op.f("fk_models_parent_id_models"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "job_id"],
            ["jobs.project_id", "jobs.id"],
            name=op.f("fk_models_project_id_job_id_jobs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("job_id", name=op.f("uq_models_job_id")),
        sa.UniqueConstraint("project_id", "id", name=op.f("uq_models_project_id_id")),
    )
    op.create_index(op.f("ix_models_parent_id"), "models", ["parent_id"], unique=False)
    op.create_index(
        op.f("ix_models_project_id_created_at_id"),
        "models",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "aliases",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("previous_model_id", sa.Uuid(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "name ~ '^[a-z0-9][a-z0-9._-]{0,99}$'", name=op.f("ck_aliases_name_form")
        ),
        sa.ForeignKeyConstraint(
            ["previous_model_id"],
            ["models.id"],
            name=op.f("fk_aliases_previous_model_id_models"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "model_id"],
            ["models.project_id", "models.id"],
            name=op.f("fk_aliases_project_id_model_id_models"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_aliases_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_aliases")),
    )
    op.create_index(op.f("ix_aliases_model_id"), "aliases", ["model_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_aliases_model_id"), table_name="aliases")
    op.drop_table("aliases")
    op.drop_index(op.f("ix_models_project_id_created_at_id"), table_name="models")
    op.drop_index(op.f("ix_models_parent_id"), table_name="models")
    op.drop_table("models")
    op.drop_table("job_metrics")
    op.drop_index(op.f("ix_labels_dataset_id_class_name"), table_name="labels")
    op.drop_table("labels")
    op.drop_index(
        "ix_jobs_unfinished",
        table_name="jobs",
        postgresql_where="state NOT IN ('succeeded', 'failed', 'crashed', 'cancelled')",
    )
    op.drop_index(op.f("ix_jobs_project_id_created_at_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_needs_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_dataset_id"), table_name="jobs")
    op.drop_table("jobs")
    op.drop_index(op.f("ix_image_names_image_id"), table_name="image_names")
    op.drop_table("image_names")
    op.drop_table("snapshots")
    op.drop_index(op.f("ix_images_sha256"), table_name="images")
    op.drop_index(op.f("ix_images_dataset_id_created_at_id"), table_name="images")
    op.drop_table("images")
    op.drop_index(op.f("ix_datasets_project_id_created_at_id"), table_name="datasets")
    op.drop_table("datasets")
    op.drop_index(op.f("ix_api_keys_project_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("projects")
