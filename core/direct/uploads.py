"""Archives that clients send straight to the object store: announced, completed, cleared away."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session, sessionmaker

from core.auth import Caller
from core.datasets.service import get_dataset
from core.db.direct import DirectUpload, ImportOrder
from core.db.imports import Import
from core.db.models import Dataset
from core.direct import orders
from core.direct.stores import Place
from core.errors import BodyTooLarge, InUse, PartsInvalid, TooManyUploads, UploadNotFound
from core.quota import hold_project
from core.storage.s3.multipart import MOST_PARTS

NAMESPACE = "incoming"
SWEPT = 20
RETRY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Announced:
    """The archive that will come."""

    file: str
    byte_count: int
    media_type: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Started:
    """An upload, and where its parts of so many bytes go, in order."""

    upload: DirectUpload
    part_bytes: int
    addresses: list[str]


def start(
    session: Session,
    caller: Caller,
    dataset_id: UUID,
    announced: Announced,
    *,
    place: Place,
) -> Started:
    """Addresses to which a client PUTs the parts of an archive.

    Raises:
        DatasetNotFound: There is none, or it is another project's.
        NoObjectStore: Blobs lie in a folder.
        BodyTooLarge: The archive is larger than allowed.
        TooManyUploads: The project has too many under way.
        StoreUnavailable: The object store does not answer.
    """
    dataset = get_dataset(session, caller, dataset_id, lock=True)
    remote = place.multipart_uploads()
    most = place.settings.max_direct_bytes
    if announced.byte_count > most:
        raise BodyTooLarge(f"bytes: found {announced.byte_count}; at most {most} are allowed")
    _require_room(session, dataset, place.settings.max_direct_uploads)
    part_bytes = max(place.settings.direct_part_bytes, -(-announced.byte_count // MOST_PARTS))
    key = f"{NAMESPACE}/{secrets.token_hex(32)}"
    lifetime = timedelta(hours=place.settings.direct_hours)
    upload = DirectUpload(
        id=uuid4(),
        dataset_id=dataset.id,
        key=key,
        store_upload=remote.start(key, announced.media_type),
        file=announced.file,
        byte_count=announced.byte_count,
        sha256=announced.sha256,
        part_count=-(-announced.byte_count // part_bytes),
        expires_at=func.clock_timestamp() + lifetime,
    )
    session.add(upload)
    session.flush()
    addresses = remote.addresses(
        key, upload.store_upload, parts=upload.part_count, hours=place.settings.direct_hours
    )
    return Started(upload, part_bytes, addresses)


def complete(
    session: Session,
    caller: Caller,
    dataset_id: UUID,
    upload_id: UUID,
    etags: list[str],
    *,
    by_folder: bool,
    place: Place,
) -> Import:
    """Make one object of the parts and order its import; a second call gives the same import.

    `by_folder` has the images labelled by their folders.

    Raises:
        DatasetNotFound, UploadNotFound: There is none, or it is another project's.
        NoObjectStore: Blobs lie in a folder.
        PartsInvalid: The parts are not those that have arrived.
        StoreUnavailable: The object store does not answer.
    """
    dataset = get_dataset(session, caller, dataset_id, lock=True)
    upload = get_upload(session, dataset, upload_id)
    remote = place.multipart_uploads()
    if upload.import_id is not None:
        return session.scalars(select(Import).where(Import.id == upload.import_id)).one()
    if len(etags) != upload.part_count:
        raise PartsInvalid(
            f"etags: found {len(etags)}; the upload has {upload.part_count} parts, and each one's "
            "ETag is needed, in their order"
        )
    remote.complete(upload.key, upload.store_upload, etags, size=upload.byte_count)
    source: dict[str, Any] = {
        "key": upload.key,
        "file": upload.file,
        "sha256": upload.sha256,
    }
    if by_folder:
        source["labelled_by"] = orders.labelled_by(caller)
    ordered = orders.place(
        session, dataset.id, source, max_attempts=place.settings.job_max_attempts
    )
    upload.import_id = ordered.id
    return ordered


def abort(
    session: Session,
    caller: Caller,
    dataset_id: UUID,
    upload_id: UUID,
    *,
    place: Place,
) -> None:
    """Forget an upload and what has arrived of it.

    Raises:
        DatasetNotFound, UploadNotFound: There is none, or it is another project's.
        NoObjectStore: Blobs lie in a folder.
        InUse: It is complete, and its import accepted.
        StoreUnavailable: The object store does not answer.
    """
    dataset = get_dataset(session, caller, dataset_id, lock=True)
    upload = get_upload(session, dataset, upload_id)
    remote = place.multipart_uploads()
    if upload.import_id is not None:
        raise InUse(f"upload_id: it is complete; import {upload.import_id} sees to the rest")
    remote.abort(upload.key, upload.store_upload)
    place.blobs.delete(upload.key)
    session.delete(upload)


def get_upload(session: Session, dataset: Dataset, upload_id: UUID) -> DirectUpload:
    """An upload to a dataset that the caller owns, held until the transaction ends.

    Raises:
        UploadNotFound: The dataset has none of this id.
    """
    statement = select(DirectUpload).where(
        DirectUpload.id == upload_id, DirectUpload.dataset_id == dataset.id
    )
    found = session.scalars(statement.with_for_update()).one_or_none()
    if found is None:
        raise UploadNotFound(f"upload_id: the dataset has no upload {upload_id}")
    return found


def sweep(sessions: sessionmaker[Session], place: Place) -> int:
    """Remove the bytes of some uploads that were abandoned, imported, or whose dataset is gone.

    Returns:
        How many were removed.

    Raises:
        StoreUnavailable: Nothing is forgotten.
    """
    if not place.is_remote:
        return 0
    remote = place.multipart_uploads()
    ordered = exists().where(ImportOrder.import_id == DirectUpload.import_id)
    abandoned = and_(
        DirectUpload.import_id.is_(None), DirectUpload.expires_at < func.clock_timestamp()
    )
    done = and_(DirectUpload.import_id.is_not(None), ~ordered)
    due = select(DirectUpload).where(
        DirectUpload.held, or_(DirectUpload.dataset_id.is_(None), abandoned, done)
    )
    with sessions.begin() as session:
        found = session.scalars(due.limit(SWEPT).with_for_update(skip_locked=True)).all()
        for upload in found:
            if upload.import_id is None:
                remote.abort(upload.key, upload.store_upload)
            place.blobs.delete(upload.key)
            if upload.dataset_id is None or upload.import_id is None:
                session.delete(upload)
            else:
                upload.held = False  # the row answers whoever completes it again
    return len(found)


def _require_room(session: Session, dataset: Dataset, most: int) -> None:
    hold_project(session, dataset.project_id)
    under_way = (
        select(func.count())
        .select_from(DirectUpload)
        .join(Dataset, Dataset.id == DirectUpload.dataset_id)
        .where(DirectUpload.held, Dataset.project_id == dataset.project_id)
    )
    found = session.scalar(under_way) or 0
    if found >= most:
        raise TooManyUploads(
            f"found {found} uploads of the project on their way to the object store or not "
            f"imported yet; at most {most} are allowed, so complete or abort one",
            retry_after=RETRY_SECONDS,
        )
