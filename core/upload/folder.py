"""The image files of a folder, found while the first of them are on their way already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.images.archives.entries import is_junk
from core.images.formats import SUFFIXES


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An image file: where it lies, its path inside the folder, and its bytes in number."""

    path: Path
    name: str
    size: int

    @property
    def class_name(self) -> str | None:
        """The folder that it lies in directly; None at the top."""
        return PurePosixPath(self.name).parent.name or None


def image_files(root: Path) -> Iterator[LocalFile]:
    """Files whose names end as images do, in no particular order; hidden ones are left out.

    Links to files are followed, links to folders are not: they may lead in circles. Nothing is
    listed ahead, so that a million files need no more memory than one.

    Raises:
        OSError: A folder cannot be read.
    """
    waiting = [(root, "")]
    while waiting:
        place, prefix = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                # Names that are not UTF-8 are sent with a mark in place of the odd bytes.
                shown = os.fsencode(entry.name).decode("utf-8", "replace")
                folder = entry.is_dir(follow_symlinks=False)
                if is_junk(f"{shown}/" if folder else shown):
                    continue
                if folder:
                    waiting.append((Path(entry.path), f"{prefix}{shown}/"))
                elif Path(shown).suffix.lower() in SUFFIXES and entry.is_file():
                    yield LocalFile(Path(entry.path), prefix + shown, entry.stat().st_size)


def batches(
    files: Iterator[LocalFile], *, max_files: int, max_bytes: int
) -> Iterator[list[LocalFile]]:
    """Parts of so many files and bytes at most; a larger file is a part of its own."""
    part: list[LocalFile] = []
    size = 0
    for file in files:
        if part and (len(part) >= max_files or size + file.size > max_bytes):
            yield part
            part, size = [], 0
        part.append(file)
        size += file.size
    if part:
        yield part
