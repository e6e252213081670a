"""How much each dataset holds, kept by the database itself as images come and go."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.db.table import Table


class DatasetSize(Table):
    """Images and their bytes; written by the triggers `images_added` and `images_removed` only.

    A limit is asked about with every upload: counting a million rows each time would take longer
    than the upload.
    """

    __tablename__ = "dataset_sizes"
    __table_args__ = (CheckConstraint("image_count >= 0 AND byte_count >= 0", name="counts"),)

    dataset_id: Mapped[UUID] = mapped_column(
        ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True
    )
    image_count: Mapped[int] = mapped_column(BigInteger)
    byte_count: Mapped[int] = mapped_column(BigInteger)
