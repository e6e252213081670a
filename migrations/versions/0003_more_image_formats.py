"""more image formats."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAME = "ck_images_format_known"


def upgrade() -> None:
    op.drop_constraint(op.f(NAME), "images", type_="check")
    op.create_check_constraint(
        op.f(NAME), "images", "format IN ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')"
    )


def downgrade() -> None:
    # Refused while there are images of the newer formats: taking them away is no downgrade.
    op.drop_constraint(op.f(NAME), "images", type_="check")
    op.create_check_constraint(op.f(NAME), "images", "format IN ('JPEG', 'PNG', 'WEBP')")
