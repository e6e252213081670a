"""sizes of datasets, and answers that are kept under an idempotency key."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0001"
branch_labels = None
depends_on = None

# Once a statement, not once a row: an upload inserts thousands.
ADDED = """
CREATE FUNCTION images_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO dataset_sizes AS size (dataset_id, image_count, byte_count)
    SELECT dataset_id, count(*), sum(byte_count) FROM added GROUP BY dataset_id ORDER BY dataset_id
    ON CONFLICT (dataset_id) DO UPDATE
    SET image_count = size.image_count + excluded.image_count,
        byte_count = size.byte_count + excluded.byte_count;
    RETURN NULL;
END $$
"""
# With its dataset the size goes, too: then there is nothing left to update.
REMOVED = """
CREATE FUNCTION images_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE dataset_sizes AS size
    SET image_count = size.image_count - gone.images, byte_count = size.byte_count - gone.bytes
    FROM (
        SELECT dataset_id, count(*) AS images, sum(byte_count) AS bytes
        FROM removed GROUP BY dataset_id ORDER BY dataset_id
    ) AS gone
    WHERE size.dataset_id = gone.dataset_id;
    RETURN NULL;
END $$
"""
EXISTING = """
INSERT INTO dataset_sizes (dataset_id, image_count, byte_count)
SELECT dataset_id, count(*), sum(byte_count) FROM images GROUP BY dataset_id
"""


def upgrade() -> None:
    op.create_table(
        "dataset_sizes",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("image_count", sa.BigInteger(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "image_count >= 0 AND byte_count >= 0", name=op.f("ck_dataset_sizes_counts")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_dataset_sizes_dataset_id_datasets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("dataset_id", name=op.f("pk_dataset_sizes")),
    )
    op.execute(EXISTING)
    op.execute(ADDED)
    op.execute(REMOVED)
    op.execute(
        "CREATE TRIGGER images_added AFTER INSERT ON images "
        "REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION images_added()"
    )
    op.execute(
        "CREATE TRIGGER images_removed AFTER DELETE ON images "
        "REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION images_removed()"
    )
    op.create_table(
        "kept_answers",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "length(key) BETWEEN 1 AND 255", name=op.f("ck_kept_answers_key_length")
        ),
        sa.CheckConstraint(
            "fingerprint ~ '^[0-9a-f]{64}$'", name=op.f("ck_kept_answers_fingerprint_form")
        ),
        sa.CheckConstraint(
            "status BETWEEN 200 AND 299", name=op.f("ck_kept_answers_status_of_success")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_kept_answers_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "key", name=op.f("pk_kept_answers")),
    )
    op.create_index(op.f("ix_kept_answers_created_at"), "kept_answers", ["created_at"])


def downgrade() -> None:
    op.drop_table("kept_answers")
    op.execute("DROP TRIGGER images_removed ON images")
    op.execute("DROP TRIGGER images_added ON images")
    op.execute("DROP FUNCTION images_removed()")
    op.execute("DROP FUNCTION images_added()")
    op.drop_table("dataset_sizes")
