"""The tables. Constraints make wrong states impossible; names follow one convention."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

# Their tables are in the metadata.
from core.db import answers, direct, events, imports, labelling, vectors, webhooks  # noqa: F401
from core.db.origin import Requested
from core.db.scheduling import Scheduled, scheduling_rules
from core.db.table import Json, Table, creation_time, name_length, primary_id


class Project(Table):
    """A wall: whatever has an owner belongs to one project."""

    __tablename__ = "projects"
    __table_args__ = (name_length(), UniqueConstraint("name"))

    id: Mapped[UUID] = primary_id()
    name: Mapped[str]
    created_at: Mapped[datetime] = creation_time()


class ApiKey(Table):
    """A key is kept as a SHA-256 digest; the key itself is shown once."""

    __tablename__ = "api_keys"
    __table_args__ = (
        name_length(),
        UniqueConstraint("digest"),
        Index(None, "project_id"),
        CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name="digest_form"),
        CheckConstraint(
            "scopes <@ ARRAY['read', 'write', 'infer', 'admin'] AND cardinality(scopes) > 0",
            name="scopes_known",
        ),
    )

    id: Mapped[UUID] = primary_id()
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str]
    digest: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = creation_time()
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Dataset(Table):
    """A named set of images and labels; the fractions say which images are never trained on."""

    __tablename__ = "datasets"
    __table_args__ = (
        name_length(),
        UniqueConstraint("project_id", "name"),
        UniqueConstraint("project_id", "id"),
        Index(None, "project_id", "created_at", "id"),
        CheckConstraint(
            "test_fraction >= 0 AND validation_fraction >= 0 "
            "AND test_fraction + validation_fraction <= 0.9",
            name="fractions",
        ),
        CheckConstraint("image_count >= 0 AND byte_count >= 0", name="counts"),
    )

    id: Mapped[UUID] = primary_id()
    # None of one that was deleted and waits for the sweep; who asks in a project never sees that.
    project_id: Mapped[UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), nullable=True
    )
    name: Mapped[str]
    test_fraction: Mapped[float]
    validation_fraction: Mapped[float]
    # Kept beside the rows: counting a million of them with every part of an upload would not do.
    image_count: Mapped[int] = mapped_column(BigInteger, server_default="0")
    byte_count: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = creation_time()


class Image(Table):
    """One distinct image of a dataset; its bytes lie in the blob store under its sha256."""

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("dataset_id", "sha256"),
        UniqueConstraint("dataset_id", "id"),
        Index(None, "dataset_id", "created_at", "id"),
        Index(None, "sha256"),
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256_form"),
        CheckConstraint("width > 0 AND height > 0 AND byte_count > 0", name="sizes_positive"),
        CheckConstraint(
            "format IN ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')", name="format_known"
        ),
    )

    id: Mapped[UUID] = primary_id()
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    sha256: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    format: Mapped[str]
    greyscale: Mapped[bool]
    byte_count: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = creation_time()


class ImageName(Table):
    """A file name under which an image was uploaded: one image may have several."""

    __tablename__ = "image_names"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset_id", "image_id"], ["images.dataset_id", "images.id"], ondelete="CASCADE"
        ),
        Index(None, "image_id"),
        CheckConstraint("length(name) BETWEEN 1 AND 1024", name="name_length"),
    )

    dataset_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    image_id: Mapped[UUID] = mapped_column(primary_key=True)


class Label(Table):
    """The class of an image, as people gave it."""

    __tablename__ = "labels"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset_id", "image_id"], ["images.dataset_id", "images.id"], ondelete="CASCADE"
        ),
        Index(None, "dataset_id", "class_name"),
        CheckConstraint("length(class_name) BETWEEN 1 AND 200", name="class_name_length"),
    )

    image_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset_id: Mapped[UUID]
    class_name: Mapped[str]
    updated_at: Mapped[datetime] = creation_time()


class Snapshot(Table):
    """A frozen list of (sha256, label, split); the list is a blob, its hash the identity."""

    __tablename__ = "snapshots"
    __table_args__ = (
        UniqueConstraint("dataset_id", "digest"),
        CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name="digest_form"),
        CheckConstraint(
            "image_count >= 0 AND label_count BETWEEN 0 AND image_count", name="counts"
        ),
    )

    id: Mapped[UUID] = primary_id()
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    digest: Mapped[str]
    image_count: Mapped[int]
    label_count: Mapped[int]
    class_names: Mapped[list[str]]
    facts: Mapped[Json]
    created_at: Mapped[datetime] = creation_time()


UNFINISHED = ("waiting", "queued", "running", "cancelling")
_FINISHED = "('succeeded', 'failed', 'crashed', 'cancelled')"


class Job(Scheduled, Requested, Table):
    """One stage on one snapshot; its state, lease and fencing token are the truth."""

    __tablename__ = "jobs"
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "needs_id"], ["jobs.project_id", "jobs.id"]),
        UniqueConstraint("project_id", "id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "needs_id"),
        Index(None, "dataset_id"),
        Index("ix_jobs_unfinished", "state", postgresql_where=f"state NOT IN {_FINISHED}"),
        CheckConstraint(
            "stage IN ('pretrain', 'finetune', 'distill', 'embed', 'evaluate')", name="stage_known"
        ),
        CheckConstraint(
            f"state IN ('waiting', 'queued', 'running', 'cancelling') OR state IN {_FINISHED}",
            name="state_known",
        ),
        CheckConstraint(
            "(state IN ('running', 'cancelling')) = (lease_expires_at IS NOT NULL)",
            name="lease_while_running",
        ),
        CheckConstraint(
            "(state IN ('failed', 'crashed')) = (error_code IS NOT NULL)", name="error_has_reason"
        ),
        CheckConstraint(
            f"(state IN {_FINISHED}) = (finished_at IS NOT NULL)", name="finished_has_time"
        ),
        CheckConstraint(
            f"state IN {_FINISHED} OR (dataset_id IS NOT NULL AND snapshot_id IS NOT NULL)",
            name="unfinished_has_data",
        ),
        CheckConstraint("state <> 'waiting' OR needs_id IS NOT NULL", name="waiting_has_need"),
        *scheduling_rules(),
    )

    id: Mapped[UUID] = primary_id()
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    snapshot_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("snapshots.id", ondelete="SET NULL")
    )
    pipeline_id: Mapped[UUID | None]
    needs_id: Mapped[UUID | None]
    stage: Mapped[str]
    state: Mapped[str]
    spec: Mapped[Json]
    plan: Mapped[Json]
    progress: Mapped[Json | None]
    fencing_token: Mapped[int] = mapped_column(BigInteger, server_default="0")
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    created_at: Mapped[datetime] = creation_time()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobMetric(Table):
    """One value of one series of a job at one step."""

    __tablename__ = "job_metrics"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float]
    recorded_at: Mapped[datetime] = creation_time()


class Model(Table):
    """What a job made: a manifest and files in the blob store. One job has one model."""

    __tablename__ = "models"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "job_id"], ["jobs.project_id", "jobs.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("job_id"),
        UniqueConstraint("project_id", "id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "parent_id"),
        CheckConstraint("kind IN ('encoder', 'classifier')", name="kind_known"),
        CheckConstraint("parent_id <> id", name="not_its_own_parent"),
    )

    id: Mapped[UUID] = primary_id()
    project_id: Mapped[UUID]
    job_id: Mapped[UUID]
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"))
    kind: Mapped[str]
    manifest: Mapped[Json]
    manifest_sha256: Mapped[str]
    created_at: Mapped[datetime] = creation_time()


class Alias(Table):
    """A stable name that an application calls; it points to one model at a time."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "model_id"], ["models.project_id", "models.id"]),
        Index(None, "model_id"),
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9._-]{0,99}$'", name="name_form"),
    )

    project_id: Mapped[UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[UUID]
    previous_model_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("models.id", ondelete="SET NULL")
    )
    updated_at: Mapped[datetime] = creation_time()
