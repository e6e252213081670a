"""Verify, content-address, store and record images; account for every file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import Dataset, Image, ImageName
from core.errors import ImageInvalid, TooManyImages
from core.images.decoding import ImageInfo, decode
from core.storage.store import BlobStore

CHUNK_FILES = 64
CHUNK_BYTES = 32 * 2**20
MAX_NAME = 1024
STORE_THREADS = 8


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file as it came: a name and bytes, or the reason why there are none."""

    name: str
    data: bytes | None
    problem: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How large one image may be and how many a dataset may hold."""

    max_bytes: int
    max_pixels: int
    max_images: int


@dataclass(frozen=True, slots=True)
class ReportLine:
    """A file that was not added, and why."""

    file: str
    outcome: str
    code: str
    detail: str
    image_id: UUID | None = None


@dataclass(slots=True)
class IngestReport:
    """What became of the files of one upload."""

    added: int = 0
    duplicates: int = 0
    rejected: int = 0
    lines: list[ReportLine] = field(default_factory=list)

    def reject(self, name: str, code: str, detail: str) -> None:
        """Count a file that is not an image that can be used."""
        self.rejected += 1
        self.lines.append(ReportLine(name, "rejected", code, detail))

    def duplicate(self, name: str, image_id: UUID) -> None:
        """Count a file whose bytes the dataset has already."""
        self.duplicates += 1
        detail = "the dataset has this image already; the name now refers to it as well"
        self.lines.append(ReportLine(name, "duplicate", "Duplicate", detail, image_id))


@dataclass(frozen=True, slots=True)
class _Verified:
    name: str
    data: bytes
    sha256: str
    info: ImageInfo


def image_key(sha256: str) -> str:
    """Where the bytes of an image lie in the blob store."""
    return f"images/{sha256}"


def ingest(
    session: Session,
    store: BlobStore,
    dataset: Dataset,
    files: Iterable[IncomingFile],
    *,
    limits: ImageLimits,
) -> IngestReport:
    """Add images to a dataset; a bad file is a line in the report and stops nothing.

    Memory holds one chunk of files at a time.

    Raises:
        TooManyImages: The dataset would exceed its limit; nothing is added.
    """
    report = IngestReport()
    present = select(func.count()).select_from(Image).where(Image.dataset_id == dataset.id)
    room = limits.max_images - (session.scalar(present) or 0)

    def verify(file: IncomingFile) -> _Verified | ImageInvalid:
        assert file.data is not None
        try:
            decoded = decode(file.data, max_bytes=limits.max_bytes, max_pixels=limits.max_pixels)
        except ImageInvalid as error:
            return error
        digest = hashlib.sha256(file.data).hexdigest()
        return _Verified(file.name[:MAX_NAME], file.data, digest, decoded.info)

    # Decoding needs a core and the image's memory each; storing mostly waits for a disk.
    with ThreadPoolExecutor(os.cpu_count()) as pool, ThreadPoolExecutor(STORE_THREADS) as writers:
        for chunk in _chunks(files, report):
            results = list(pool.map(verify, chunk))
            good: list[_Verified] = []
            for file, result in zip(chunk, results, strict=True):
                if isinstance(result, ImageInvalid):
                    report.reject(file.name, result.code, str(result))
                else:
                    good.append(result)
            _record(session, dataset.id, good, report, store_all(writers, store))
            if report.added > room:
                raise TooManyImages(
                    f"files: the dataset may hold {limits.max_images} images, "
                    f"{room} more than it has; nothing was added"
                )
    return report


def store_all(
    pool: ThreadPoolExecutor, store: BlobStore
) -> Callable[[Iterable[tuple[str, bytes]]], None]:
    """A function that puts many blobs at once and raises the first error."""

    def put(blobs: Iterable[tuple[str, bytes]]) -> None:
        for future in [pool.submit(store.put, key, data) for key, data in blobs]:
            future.result()

    return put


def _chunks(files: Iterable[IncomingFile], report: IngestReport) -> Iterator[list[IncomingFile]]:
    chunk: list[IncomingFile] = []
    size = 0
    for file in files:
        if file.data is None:
            code, detail = file.problem or ("Unreadable", "the file could not be read")
            report.reject(file.name, code, detail)
            continue
        chunk.append(file)
        size += len(file.data)
        if len(chunk) >= CHUNK_FILES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _record(
    session: Session,
    dataset_id: UUID,
    verified: list[_Verified],
    report: IngestReport,
    put_blobs: Callable[[Iterable[tuple[str, bytes]]], None],
) -> None:
    if not verified:
        return
    first = {item.sha256: item for item in reversed(verified)}
    # Blobs before rows: a row never refers to bytes that are not there.
    put_blobs((image_key(item.sha256), item.data) for item in first.values())
    fresh = {
        sha256: image_id
        for image_id, sha256 in session.execute(
            insert(Image)
            .values([_row(dataset_id, first[sha256]) for sha256 in sorted(first)])
            .on_conflict_do_nothing(index_elements=["dataset_id", "sha256"])
            .returning(Image.id, Image.sha256)
        )
    }
    known = {
        sha256: image_id
        for image_id, sha256 in session.execute(
            select(Image.id, Image.sha256).where(
                Image.dataset_id == dataset_id, Image.sha256.in_(first)
            )
        )
    }
    names = {(item.name, known[item.sha256]) for item in verified}
    session.execute(
        insert(ImageName)
        .values([{"dataset_id": dataset_id, "name": n, "image_id": i} for n, i in sorted(names)])
        .on_conflict_do_nothing()
    )
    for item in verified:
        if first[item.sha256] is item and item.sha256 in fresh:
            report.added += 1
        else:
            report.duplicate(item.name, known[item.sha256])


def _row(dataset_id: UUID, item: _Verified) -> dict[str, object]:
    return {
        "id": uuid4(),
        "dataset_id": dataset_id,
        "sha256": item.sha256,
        "width": item.info.width,
        "height": item.info.height,
        "format": item.info.format,
        "greyscale": item.info.greyscale,
        "byte_count": len(item.data),
    }
