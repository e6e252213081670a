"""Archives as the files that come out of them, under the limits of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.config import Settings
from core.images.archives import ArchiveLimits, members
from core.images.archives.arriving import Readable
from core.images.ingest import IncomingFile
from core.images.recording import ImageLimits


def image_limits(settings: Settings) -> ImageLimits:
    """How many images a dataset and a project may hold."""
    return ImageLimits(
        max_images=settings.max_images_per_dataset,
        max_project_images=settings.max_project_images,
        max_project_bytes=settings.max_project_bytes,
    )


def incoming_from_archive(
    body: Readable, settings: Settings, *, scratch: Path
) -> Iterator[IncomingFile]:
    """The files of a zip or tar archive one at a time, as they arrive.

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
    for member in members(body, limits=limits, scratch=scratch):
        if member.rejected is None:
            yield IncomingFile(member.name, member.data)
        else:
            yield IncomingFile(member.name, None, (member.rejected.code, member.rejected.detail))
