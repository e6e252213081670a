"""an import says how many images it labelled by their folders, and why others have no label."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

NAME = "ck_import_lines_outcome_known"
FILES = "'added', 'duplicate', 'rejected'"


def upgrade() -> None:
    for column in ("labelled", "unlabelled"):
        op.add_column(
            "imports", sa.Column(column, sa.Integer(), server_default="0", nullable=False)
        )
    _known(f"{FILES}, 'unlabelled'")


def downgrade() -> None:
    op.execute("DELETE FROM import_lines WHERE outcome = 'unlabelled'")
    _known(FILES)
    for column in ("labelled", "unlabelled"):
        op.drop_column("imports", column)


def _known(outcomes: str) -> None:
    op.drop_constraint(op.f(NAME), "import_lines", type_="check")
    op.create_check_constraint(op.f(NAME), "import_lines", f"outcome IN ({outcomes})")
