"""Images: upload, list, get back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session, sessionmaker

from api.auth import ReadCaller, WriteCaller
from api.dependencies import Cursor, Limit, SessionDep, SettingsDep, StoreDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.datasets import ImageOut, ImagePage, UploadOut
from api.schemas.text import Text
from api.uploads import (
    MULTIPART,
    form_files,
    incoming_from_archive,
    incoming_from_form,
    media_type,
    parsed_form,
    spooled,
)
from core.auth import Caller
from core.config import Settings
from core.datasets import service
from core.errors import (
    ArchiveInvalid,
    ArchiveTooLarge,
    BodyTooLarge,
    DatasetNotFound,
    ImageNotFound,
    ProjectFull,
    TooManyImages,
)
from core.images.ingest import ImageLimits, IncomingFile, IngestReport, image_key, ingest
from core.storage.store import BlobStore

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


@uploads.post(
    "/datasets/{dataset_id}/images",
    response_model=UploadOut,
    responses=responses(
        DatasetNotFound, ArchiveInvalid, ArchiveTooLarge, BodyTooLarge, TooManyImages, ProjectFull
    ),
    openapi_extra=UPLOAD_BODY,
    summary="Add images: multipart files, or a zip or tar archive as the body",
)
async def upload_images(
    dataset_id: UUID,
    request: Request,
    session: SessionDep,
    caller: WriteCaller,
    store: StoreDep,
    settings: SettingsDep,
) -> IngestReport:
    """Files that are not images that can be used are listed one by one and stop nothing."""
    sessions = request.app.state.sessions
    await run_in_threadpool(_refuse_early, sessions, caller, dataset_id)
    add = _Adder(session, caller, dataset_id, store, settings)
    if media_type(request) == MULTIPART:
        async with parsed_form(request, max_files=settings.max_upload_files) as form:
            files = incoming_from_form(form_files(form), max_bytes=settings.max_image_bytes)
            return await run_in_threadpool(add, files)
    async with spooled(request, settings.data_dir / "uploads") as path:
        return await run_in_threadpool(add, incoming_from_archive(path, settings))


def _refuse_early(sessions: sessionmaker[Session], caller: Caller, dataset_id: UUID) -> None:
    # In a transaction of its own: none stays open while the body arrives.
    with sessions.begin() as session:
        service.get_dataset(session, caller, dataset_id)


class _Adder:
    """Adds files to a dataset that the caller owns."""

    def __init__(
        self,
        session: Session,
        caller: Caller,
        dataset_id: UUID,
        store: BlobStore,
        settings: Settings,
    ) -> None:
        self.session, self.caller, self.dataset_id = session, caller, dataset_id
        self.store = store
        self.limits = ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            max_images=settings.max_images_per_dataset,
            max_project_images=settings.max_project_images,
            max_project_bytes=settings.max_project_bytes,
        )

    def __call__(self, files: Iterable[IncomingFile]) -> IngestReport:
        dataset = service.get_dataset(self.session, self.caller, self.dataset_id, lock=True)
        return ingest(self.session, self.store, dataset, files, limits=self.limits)


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
    responses=responses(ImageNotFound),
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
    headers = {
        "ETag": f'"{image.sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    return Response(
        store.get(image_key(image.sha256)),
        media_type=f"image/{image.format.lower()}",
        headers=headers,
    )


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
