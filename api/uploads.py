"""Request bodies with files: a multipart form or an archive, on disk rather than in memory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from core.config import Settings
from core.errors import RequestInvalid, TooManyImages
from core.images.archives import ArchiveLimits, members, unsafe_name
from core.images.ingest import IncomingFile

MULTIPART = "multipart/form-data"


def media_type(request: Request) -> str:
    """The content type without its parameters, lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class _Form(MultiPartParser):
    """Knows whether the form came to its end: a cut one is otherwise taken as it stands."""

    complete = False

    def on_end(self) -> None:
        self.complete = True


@asynccontextmanager
async def parsed_form(request: Request, *, max_files: int) -> AsyncIterator[FormData]:
    """The multipart form of a request; its files are closed with the block.

    Raises:
        RequestInvalid: The body is not a whole multipart form.
        TooManyImages: It has more files than that.
    """

    async def pieces() -> AsyncGenerator[bytes, None]:
        async for piece in request.stream():
            yield piece
        if not parser.complete:
            raise MultiPartException("it ends before its closing boundary")

    parser = _Form(request.headers, pieces(), max_files=max_files)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise TooManyImages(
                f"files: found more than {max_files}; at most {max_files} in one request"
            ) from None
        raise RequestInvalid(f"body: not a multipart form: {error.message}") from None
    except UnicodeError as error:  # the client names the charset, and Python knows odd ones
        raise RequestInvalid(f"body: the form does not fit its charset: {error}") from None
    try:
        yield form
    finally:
        await form.close()


def form_files(form: FormData) -> list[UploadFile]:
    """The files of a form, whatever their fields are called.

    Raises:
        RequestInvalid: There is none.
    """
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise RequestInvalid(
            "files: the form has no file; send each as a part with a filename, "
            "for instance curl -F files=@image.png"
        )
    return files


def incoming_from_form(files: list[UploadFile], *, max_bytes: int) -> Iterator[IncomingFile]:
    """The files of a form one at a time; one that is too large is not read."""
    for upload in files:
        name = upload.filename or "unnamed"
        if refused := unsafe_name(name):
            yield IncomingFile(name, None, (refused.code, refused.detail))
        elif upload.size is not None and upload.size > max_bytes:
            detail = f"{upload.size} bytes; at most {max_bytes} are allowed"
            yield IncomingFile(name, None, ("ImageTooLarge", detail))
        else:
            yield IncomingFile(name, upload.file.read())


def incoming_from_archive(path: Path, settings: Settings) -> Iterator[IncomingFile]:
    """The files of a zip or tar archive one at a time.

    Raises:
        ArchiveInvalid: It cannot be read to its end.
        ArchiveTooLarge: It exceeds a limit.
    """
    limits = ArchiveLimits(
        max_entries=settings.max_archive_entries,
        max_bytes=settings.max_archive_bytes,
        max_ratio=settings.max_archive_ratio,
        max_file_bytes=settings.max_image_bytes,
    )
    for member in members(path, limits=limits):
        if member.rejected is None:
            yield IncomingFile(member.name, member.data)
        else:
            yield IncomingFile(member.name, None, (member.rejected.code, member.rejected.detail))


@asynccontextmanager
async def spooled(request: Request, folder: Path) -> AsyncIterator[Path]:
    """The request's body in a temporary file, written as it arrives."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
        async for piece in request.stream():
            await run_in_threadpool(file.write, piece)
        file.flush()
        yield Path(file.name)
