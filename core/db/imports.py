"""The tables of what comes in: uploads, a line for every file, bytes that no row refers to."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.db.table import Table, creation_time, primary_id


class Import(Table):
    """One upload to a dataset: how far it came and what became of its files."""

    __tablename__ = "imports"
    __table_args__ = (
        Index(None, "dataset_id", "created_at", "id"),
        Index("ix_imports_running", "updated_at", postgresql_where="state = 'running'"),
        CheckConstraint(
            "state IN ('queued', 'running', 'complete', 'failed', 'interrupted')",
            name="state_known",
        ),
        CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name="error_has_reason"),
        CheckConstraint("added >= 0 AND duplicates >= 0 AND rejected >= 0", name="counts"),
    )

    id: Mapped[UUID] = primary_id()
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(server_default="running")
    added: Mapped[int] = mapped_column(server_default="0")
    duplicates: Mapped[int] = mapped_column(server_default="0")
    rejected: Mapped[int] = mapped_column(server_default="0")
    labelled: Mapped[int] = mapped_column(server_default="0")
    unlabelled: Mapped[int] = mapped_column(server_default="0")
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    created_at: Mapped[datetime] = creation_time()
    updated_at: Mapped[datetime] = creation_time()


class ImportLine(Table):
    """What became of one file of an upload, in the order in which the files came.

    After those come lines of images that did not get the class of their folder.
    """

    __tablename__ = "import_lines"
    __table_args__ = (
        CheckConstraint(
            "outcome IN ('added', 'duplicate', 'rejected', 'unlabelled')", name="outcome_known"
        ),
    )

    import_id: Mapped[UUID] = mapped_column(
        ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    file: Mapped[str]
    outcome: Mapped[str]
    code: Mapped[str | None]
    detail: Mapped[str | None]
    # No foreign key: the line stays what it was when the image is deleted.
    image_id: Mapped[UUID | None]


class LooseBlob(Table):
    """Bytes that perhaps no row refers to: about to be recorded, or left behind by a deletion.

    A key is marked before its bytes are written and before the last row with it goes, so that a
    process that dies in between leaves a mark, not a blob that nobody knows.
    """

    __tablename__ = "loose_blobs"
    __table_args__ = (Index(None, "since"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime] = creation_time()
