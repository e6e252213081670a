"""Images: upload, list, get back, whole or small."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session, sessionmaker

from api.auth import ReadCaller, WriteCaller
from api.dependencies import Cursor, DecodersDep, Limit, SessionDep, SettingsDep, StoreDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.datasets import ImageOut, ImagePage
from api.schemas.text import Text
from api.schemas.uploads import HashesIn, MissingOut, UploadOut
from api.uploads import (
    MULTIPART,
    ArrivingBody,
    form_files,
    incoming_from_form,
    media_type,
    parsed_form,
)
from core.auth import Caller
from core.datasets import service
from core.datasets.folders import label_by_folder
from core.db.models import Image
from core.errors import (
    ArchiveInvalid,
    ArchiveTooLarge,
    BodyTooLarge,
    DatasetNotFound,
    FewlabelsError,
    ImageNotFound,
    ImageTooCostly,
    InUse,
    LabelsInvalid,
    Overloaded,
    ProjectFull,
    TooManyImages,
)
from core.images import formats
from core.images.incoming import image_limits, incoming_from_archive
from core.images.ingest import IncomingFile, ingest
from core.images.recording import image_key, missing, stored_name
from core.images.report import IngestReport
from core.images.thumbnails import MEDIA_TYPE, SIZES, thumbnail, thumbnail_digest

uploads = APIRouter(tags=["images"], route_class=GuardedRoute)
router = APIRouter(tags=["images"], route_class=GuardedRoute)

BINARY = {"schema": {"type": "string", "format": "binary"}}
UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Image files as a multipart form, or one zip or tar archive as the body.",
        "content": {
            MULTIPART: {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/zip": BINARY,
            "application/x-tar": BINARY,
        },
    }
}

# A browser that is sent here runs nothing, whatever the bytes are, and other sites cannot use it.
SAFE = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file; its type by its format. TIFF files are sent as attachments.",
        "content": {formats.media_type(known): BINARY for known in formats.FORMATS},
    },
    304: {"description": "The caller has it: `If-None-Match` names its ETag."},
}
THUMBNAIL: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture.", "content": {MEDIA_TYPE: BINARY}},
    304: CONTENT[304],
}


@uploads.post(
    "/datasets/{dataset_id}/images",
    response_model=UploadOut,
    responses=responses(
        *(DatasetNotFound, ArchiveInvalid, ArchiveTooLarge, BodyTooLarge),
        *(TooManyImages, ProjectFull, LabelsInvalid),
    ),
    openapi_extra=UPLOAD_BODY,
    summary="Add images: multipart files, or a zip or tar archive as the body",
)
async def upload_images(
    dataset_id: UUID,
    request: Request,
    caller: WriteCaller,
    store: StoreDep,
    decoders: DecodersDep,
    settings: SettingsDep,
    labels: Annotated[
        Literal["folders"] | None,
        Query(description="`folders`: the innermost folder of each file is its image's label."),
    ] = None,
) -> IngestReport:
    """Files that are not images that can be used are listed one by one and stop nothing.

    What arrived stays when the upload breaks off: send it again, and what is there is skipped.
    """
    sessions = request.app.state.sessions

    def add(files: Iterable[IncomingFile]) -> IngestReport:
        limits = image_limits(settings)
        report = ingest(sessions, store, dataset_id, files, limits=limits, decoders=decoders)
        if labels == "folders":
            _label(sessions, caller, dataset_id, report, settings.max_classes)
        return report

    await run_in_threadpool(_check_owner, sessions, caller, dataset_id)
    if media_type(request) == MULTIPART:
        async with parsed_form(request, max_files=settings.max_upload_files) as form:
            files = incoming_from_form(form_files(form), max_bytes=settings.max_image_bytes)
            return await run_in_threadpool(add, files)
    body = ArrivingBody(request)
    try:
        files = incoming_from_archive(body, settings, scratch=settings.data_dir / "uploads")
        return await run_in_threadpool(add, files)
    except FewlabelsError:
        await body.drain()
        raise


def _check_owner(sessions: sessionmaker[Session], caller: Caller, dataset_id: UUID) -> None:
    # In a transaction of its own: none stays open while the body arrives.
    with sessions.begin() as session:
        service.get_dataset(session, caller, dataset_id)


def _label(
    sessions: sessionmaker[Session],
    caller: Caller,
    dataset_id: UUID,
    report: IngestReport,
    max_classes: int,
) -> None:
    try:
        with sessions.begin() as session:
            dataset = service.get_dataset(session, caller, dataset_id, lock=True)
            found = label_by_folder(
                session, caller, dataset, report.import_id, max_classes=max_classes
            )
    except LabelsInvalid as error:
        kept = f"{report.added} images of this upload were added, no label was set"
        raise LabelsInvalid(f"{error}; {kept}", problems=error.problems) from error
    report.labelled = found.labelled
    report.take(found.lines)


@router.post(
    "/datasets/{dataset_id}/images/missing",
    responses=responses(DatasetNotFound, BodyTooLarge),
    summary="Which images, by the SHA-256 of their bytes, are not there yet",
)
def missing_images(
    dataset_id: UUID, body: HashesIn, session: SessionDep, caller: WriteCaller
) -> MissingOut:
    """Send those that are missing; names that come along are kept for the others."""
    dataset = service.get_dataset(session, caller, dataset_id, lock=True)
    names = {sha256: [stored_name(raw) for raw in raws] for sha256, raws in body.names.items()}
    return MissingOut(missing=missing(session, dataset, body.sha256, names))


@router.get(
    "/datasets/{dataset_id}/images",
    responses=responses(DatasetNotFound),
    summary="List the images of a dataset, newest first",
)
def list_images(
    dataset_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    name: Annotated[Text | None, Query(description="Only images of this file name.")] = None,
    labelled: Annotated[bool | None, Query(description="Only with, or without, a label.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> ImagePage:
    dataset = service.get_dataset(session, caller, dataset_id)
    listed, next_cursor = service.list_images(
        session, dataset, name=name, labelled=labelled, cursor=cursor, limit=limit
    )
    return ImagePage(items=[_out(item) for item in listed], next_cursor=next_cursor)


@router.get(
    "/images/{image_id}/content",
    response_class=Response,
    responses={**CONTENT, **responses(ImageNotFound)},
    summary="The bytes of an image, as they were uploaded",
)
def image_content(
    image_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    store: StoreDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    image = service.get_image(session, caller, image_id)
    headers = {**SAFE, "ETag": f'"{image.sha256}"', "Content-Disposition": disposition(image)}
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    content = store.get(image_key(image.sha256))
    return Response(content, media_type=formats.media_type(image.format), headers=headers)


class ThumbnailSize(IntEnum):
    """Sides in pixels of the square that a thumbnail fits into."""

    SMALLEST, SMALL, USUAL, LARGE = SIZES


@router.get(
    "/images/{image_id}/thumbnail",
    response_class=Response,
    responses={**THUMBNAIL, **responses(ImageNotFound, Overloaded, ImageTooCostly)},
    summary="A small picture of an image, as WebP",
)
def image_thumbnail(
    image_id: UUID,
    request: Request,
    caller: ReadCaller,
    store: StoreDep,
    decoders: DecodersDep,
    size: ThumbnailSize = ThumbnailSize.USUAL,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The whole image, at most `size` pixels wide and high, and never larger than it is."""
    # A transaction of its own: no connection is held while the picture is made.
    with request.app.state.sessions.begin() as session:
        sha256 = service.get_image(session, caller, image_id).sha256
    headers = {**SAFE, "ETag": f'"{thumbnail_digest(sha256, size)}"'}
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    made = thumbnail(store, decoders, sha256, size)
    return Response(made, media_type=MEDIA_TYPE, headers=headers)


def disposition(image: Image) -> str:
    """Whether a browser shows the file or saves it; the name is none that a user gave."""
    shown = "attachment" if image.format == formats.TIFF else "inline"
    return f'{shown}; filename="{image.sha256[:16]}.{image.format.lower()}"'


@router.delete(
    "/images/{image_id}",
    status_code=204,
    responses=responses(ImageNotFound, InUse),
    summary="Delete an image with its names and label; models trained on it stay",
)
def delete_image(image_id: UUID, session: SessionDep, caller: WriteCaller) -> None:
    service.delete_image(session, caller, image_id)


def _out(item: service.ListedImage) -> ImageOut:
    image = item.image
    return ImageOut(
        id=image.id,
        names=item.names,
        sha256=image.sha256,
        width=image.width,
        height=image.height,
        format=image.format,
        bytes=image.byte_count,
        label=item.label,
        created_at=image.created_at,
    )
