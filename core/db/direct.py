"""The tables of what comes past the API: archives on their way to the object store, orders."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.db.table import Json, Table, creation_time, primary_id


class DirectUpload(Table):
    """An archive that a client sends to the object store, until its bytes there are removed.

    The row outlives its dataset: it is what knows of the bytes.
    """

    __tablename__ = "direct_uploads"
    __table_args__ = (
        Index(None, "dataset_id"),
        Index("ix_direct_uploads_held", "expires_at", postgresql_where="held"),
        CheckConstraint("byte_count > 0 AND part_count > 0", name="counts"),
    )

    id: Mapped[UUID] = primary_id()
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    import_id: Mapped[UUID | None] = mapped_column(ForeignKey("imports.id", ondelete="SET NULL"))
    key: Mapped[str]
    store_upload: Mapped[str]  # the store's own name of it
    file: Mapped[str]
    byte_count: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    part_count: Mapped[int]
    held: Mapped[bool] = mapped_column(server_default="true")  # the store may have bytes of it
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = creation_time()


class ImportOrder(Table):
    """What a worker has to import, until that has ended: claimed, leased and fenced as jobs are."""

    __tablename__ = "import_orders"
    __table_args__ = (CheckConstraint("attempt >= 0 AND fencing_token >= 0", name="counts"),)

    import_id: Mapped[UUID] = mapped_column(
        ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True
    )
    source: Mapped[Json]
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int]
    fencing_token: Mapped[int] = mapped_column(server_default="0")
    lease_expires_at: Mapped[datetime | None]  # null: nobody works on it
    hinted_at: Mapped[datetime | None]
    last_file: Mapped[str | None]  # recorded so far, in the source's own words
    created_at: Mapped[datetime] = creation_time()
