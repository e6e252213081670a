"""Data that does not pass through the API: archives to the object store, files in a bucket."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from api.auth import WriteCaller
from api.dependencies import SessionDep, SettingsDep, StoreDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.direct import DirectUploadIn, DirectUploadOut, ImportIn, PartsIn
from api.schemas.uploads import ImportOut
from core.db.imports import Import
from core.direct import sources, uploads
from core.direct.stores import Place
from core.errors import (
    BodyTooLarge,
    BucketNotAllowed,
    DatasetNotFound,
    InUse,
    NoObjectStore,
    PartsInvalid,
    StoreUnavailable,
    TooManyUploads,
    UploadNotFound,
)


def get_place(store: StoreDep, settings: SettingsDep) -> Place:
    """Where data may go past the API."""
    return Place(store, settings)


PlaceDep = Annotated[Place, Depends(get_place)]
router = APIRouter(tags=["images"], route_class=GuardedRoute)


@router.post(
    "/datasets/{dataset_id}/uploads",
    status_code=201,
    responses=responses(
        DatasetNotFound, NoObjectStore, BodyTooLarge, TooManyUploads, StoreUnavailable
    ),
    summary="Announce an archive, and get addresses in the object store for its parts",
)
def start_upload(
    dataset_id: UUID,
    body: DirectUploadIn,
    session: SessionDep,
    caller: WriteCaller,
    place: PlaceDep,
) -> DirectUploadOut:
    """Where the server keeps blobs in a folder this is refused: send the body to `/images`."""
    announced = uploads.Announced(
        file=body.file, byte_count=body.bytes, media_type=body.media_type, sha256=body.sha256
    )
    started = uploads.start(session, caller, dataset_id, announced, place=place)
    return DirectUploadOut(
        id=started.upload.id,
        dataset_id=dataset_id,
        part_bytes=started.part_bytes,
        urls=started.addresses,
        expires_at=started.upload.expires_at,
    )


@router.post(
    "/datasets/{dataset_id}/uploads/{upload_id}/complete",
    status_code=202,
    response_model=ImportOut,
    responses=responses(
        DatasetNotFound, UploadNotFound, NoObjectStore, PartsInvalid, BodyTooLarge, StoreUnavailable
    ),
    summary="All parts are there: a worker imports the archive",
)
def complete_upload(
    dataset_id: UUID,
    upload_id: UUID,
    body: PartsIn,
    response: Response,
    session: SessionDep,
    caller: WriteCaller,
    place: PlaceDep,
) -> Import:
    """A second call gives the same import. How far it is: `GET /datasets/{id}/imports/{id}`."""
    accepted = uploads.complete(
        session,
        caller,
        dataset_id,
        upload_id,
        body.etags,
        by_folder=body.labels == "folders",
        place=place,
    )
    response.headers["Location"] = f"/datasets/{dataset_id}/imports/{accepted.id}"
    return accepted


@router.delete(
    "/datasets/{dataset_id}/uploads/{upload_id}",
    status_code=204,
    responses=responses(DatasetNotFound, UploadNotFound, NoObjectStore, InUse, StoreUnavailable),
    summary="Abort an upload; what has arrived is removed",
)
def abort_upload(
    dataset_id: UUID,
    upload_id: UUID,
    session: SessionDep,
    caller: WriteCaller,
    place: PlaceDep,
) -> None:
    uploads.abort(session, caller, dataset_id, upload_id, place=place)


@router.post(
    "/datasets/{dataset_id}/imports",
    status_code=202,
    response_model=ImportOut,
    responses=responses(DatasetNotFound, NoObjectStore, BucketNotAllowed, BodyTooLarge),
    summary="Import what lies in a bucket that the server may read",
)
def start_import(
    dataset_id: UUID,
    body: ImportIn,
    response: Response,
    session: SessionDep,
    caller: WriteCaller,
    place: PlaceDep,
) -> Import:
    """A worker reads the objects below the prefix in the order of their names."""
    accepted = sources.order_bucket(
        session,
        caller,
        dataset_id,
        bucket=body.source.bucket,
        prefix=body.source.prefix,
        by_folder=body.labels == "folders",
        place=place,
    )
    response.headers["Location"] = f"/datasets/{dataset_id}/imports/{accepted.id}"
    return accepted
