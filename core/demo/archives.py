"""Image files packed into zip archives of a bounded size."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.demo.images import Sample

ARCHIVE_BYTES = 200 * 10**6
ARCHIVE_FILES = 20_000


def archives(samples: Sequence[Sample], *, most_bytes: int = ARCHIVE_BYTES) -> Iterator[Path]:
    """Zip archives with all files, each on disk only until the next one is asked for."""
    for part in _parts(samples, most_bytes):
        with tempfile.NamedTemporaryFile(suffix=".zip") as file:
            # Images are compressed already; a file's date may be older than zip can tell.
            with zipfile.ZipFile(file, "w", strict_timestamps=False) as archive:
                for sample in part:
                    archive.write(sample.path, sample.name)
            file.flush()
            yield Path(file.name)


def _parts(samples: Sequence[Sample], most_bytes: int) -> Iterator[list[Sample]]:
    part: list[Sample] = []
    total = 0
    for sample in samples:
        size = sample.path.stat().st_size
        if part and (total + size > most_bytes or len(part) >= ARCHIVE_FILES):
            yield part
            part, total = [], 0
        part.append(sample)
        total += size
    if part:
        yield part
