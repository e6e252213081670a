"""Answers that are made in a file first: whole or not at all, and no connection waits for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from fastapi import Response
from fastapi.responses import StreamingResponse

CHUNK_BYTES = 2**16
MEMORY_BYTES = 2**20


def attachment(
    write: Callable[[IO[bytes]], None], *, name: str, media_type: str, folder: Path
) -> Response:
    """A file for the caller to save, which `write` fills before the answer begins.

    Small ones stay in memory, others lie in `folder` until they are sent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        file: IO[bytes] = opened.enter_context(
            tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=str(folder), prefix="download-")
        )
        write(file)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        sending = opened.pop_all()
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(size),
    }
    return StreamingResponse(_pieces(file, sending), media_type=media_type, headers=headers)


def _pieces(file: IO[bytes], sending: ExitStack) -> Iterator[bytes]:
    with sending:
        while piece := file.read(CHUNK_BYTES):
            yield piece
