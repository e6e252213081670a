"""Request bodies with files: a multipart form on disk, an archive as it arrives."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import from_thread
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from core.errors import RequestInvalid, TooManyImages
from core.images.archives import unsafe_name
from core.images.ingest import IncomingFile

MULTIPART = "multipart/form-data"
DRAINED_BYTES = 64 * 2**20


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


class ArrivingBody(io.RawIOBase):
    """A request's body as a file, for code in a thread of `run_in_threadpool`.

    Reading waits on the event loop for the next piece, so that a client that sends faster than
    its images are stored is slowed down instead of held in memory.
    """

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._pieces = request.stream()
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Up to so many bytes; none at the end of the body."""
        while not self._piece:
            piece = from_thread.run(self._next)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        taken = self._piece[: len(buffer)]
        buffer[: len(taken)] = taken
        self._piece = self._piece[len(taken) :]
        return len(taken)

    async def drain(self) -> None:
        """Read what is left, within reason: a client that still sends does not see an answer."""
        left = DRAINED_BYTES
        while left > 0 and (piece := await self._next()) is not None:
            left -= len(piece)

    async def _next(self) -> bytes | None:
        return await anext(self._pieces, None)
