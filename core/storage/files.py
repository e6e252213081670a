"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, *, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends without an error.

    Args:
        path: The final place; readers see the old content or all of the new one.
        scratch: Folder for the unfinished file, in the same filesystem; default: path's own.

    Raises:
        OSError: The file cannot be written, flushed to the disk or moved into its place.
    """
    handle, name = tempfile.mkstemp(prefix=".part-", dir=scratch or path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
