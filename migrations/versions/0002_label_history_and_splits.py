"""label history, and splits that people gave."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "label_changes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("key_name", sa.Text(), nullable=False),
        sa.Column("from_class", sa.Text(), nullable=True),
        sa.Column("to_class", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "from_class IS DISTINCT FROM to_class", name=op.f("ck_label_changes_is_a_change")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id", "image_id"],
            ["images.dataset_id", "images.id"],
            name=op.f("fk_label_changes_dataset_id_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_changes")),
    )
    for first in ("dataset_id", "image_id"):
        op.create_index(
            op.f(f"ix_label_changes_{first}_created_at_id"),
            "label_changes",
            [first, "created_at", "id"],
            unique=False,
        )
    op.create_table(
        "image_splits",
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "split IN ('train', 'validation', 'test')", name=op.f("ck_image_splits_split_known")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id", "image_id"],
            ["images.dataset_id", "images.id"],
            name=op.f("fk_image_splits_dataset_id_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_image_splits")),
    )
    op.create_index(op.f("ix_image_splits_dataset_id"), "image_splits", ["dataset_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_image_splits_dataset_id"), table_name="image_splits")
    op.drop_table("image_splits")
    for first in ("image_id", "dataset_id"):
        op.drop_index(op.f(f"ix_label_changes_{first}_created_at_id"), table_name="label_changes")
    op.drop_table("label_changes")
