"""Verify, content-address, store and record images; account for every file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import Dataset, Image, ImageName
from core.errors import ImageInvalid, TooManyImages
from core.images.archives.entries import shown_name
from core.images.decoding import ImageInfo, decode
from core.quota import require_image_room
from core.storage.store import BlobStore

RowT = TypeVar("RowT")
CHUNK_FILES = 64
CHUNK_BYTES = 32 * 2**20
STATEMENT_ROWS = 2_000
MAX_NAME_BYTES = 1024  # an index row of Postgres holds 2,704 bytes at most
STORE_THREADS = 8


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file as it came: a name and bytes, or the reason why there are none."""

    name: str
    data: bytes | None
    problem: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How large one image may be, and how much a dataset and its project may hold (0: any)."""

    max_bytes: int
    max_pixels: int
    max_images: int
    max_project_images: int = 0
    max_project_bytes: int = 0


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
    sha256: str
    byte_count: int
    info: ImageInfo


def image_key(sha256: str) -> str:
    """Where the bytes of an image lie in the blob store."""
    return f"images/{sha256}"


def stored_name(raw: str) -> str:
    """A file name as it is kept and looked up: fit to store, at most 1024 bytes of UTF-8."""
    return shown_name(raw).encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def ingest(
    session: Session,
    store: BlobStore,
    dataset: Dataset,
    files: Iterable[IncomingFile],
    *,
    limits: ImageLimits,
) -> IngestReport:
    """Add images to a dataset; a bad file is a line in the report and stops nothing.

    Memory holds the bytes of one chunk of files at a time.

    Raises:
        TooManyImages: The dataset would exceed its limit; nothing is added.
        ProjectFull: The project would exceed a limit; nothing is added.
    """
    report = IngestReport()
    kept: list[_Verified] = []

    def keep(file: IncomingFile) -> _Verified | ImageInvalid:
        assert file.data is not None
        try:
            decoded = decode(file.data, max_bytes=limits.max_bytes, max_pixels=limits.max_pixels)
        except ImageInvalid as error:
            return error
        digest = hashlib.sha256(file.data).hexdigest()
        # Blobs before rows: a row never refers to bytes that are not there.
        store.put(image_key(digest), file.data)
        return _Verified(stored_name(file.name), digest, len(file.data), decoded.info)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for chunk in _chunks(files, report):
            for file, result in zip(chunk, pool.map(keep, chunk), strict=True):
                if isinstance(result, ImageInvalid):
                    report.reject(stored_name(file.name), result.code, str(result))
                else:
                    kept.append(result)
    _record(session, dataset.id, kept, report, limits)
    return report


def _chunks(files: Iterable[IncomingFile], report: IngestReport) -> Iterator[list[IncomingFile]]:
    chunk: list[IncomingFile] = []
    size = 0
    for file in files:
        if file.data is None:
            code, detail = file.problem or ("Unreadable", "the file could not be read")
            report.reject(stored_name(file.name), code, detail)
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
    kept: list[_Verified],
    report: IngestReport,
    limits: ImageLimits,
) -> None:
    first = {item.sha256: item for item in reversed(kept)}
    present = select(func.count()).select_from(Image).where(Image.dataset_id == dataset_id)
    # Until the commit uploads to this dataset take turns here, so that the count holds.
    turn = select(Dataset.id).where(Dataset.id == dataset_id).with_for_update(key_share=True)
    session.execute(turn)
    room = limits.max_images - (session.scalar(present) or 0)
    fresh = _insert_images(session, dataset_id, first)
    if len(fresh) > room:
        raise TooManyImages(
            f"files: the dataset may hold {limits.max_images} images, "
            f"{room} more than it has; nothing was added"
        )
    require_image_room(
        session, dataset_id, images=limits.max_project_images, size=limits.max_project_bytes
    )
    ids = _image_ids(session, dataset_id, list(first))
    _insert_names(session, dataset_id, {(ids[item.sha256], item.name) for item in kept})
    for item in kept:
        if first[item.sha256] is item and item.sha256 in fresh:
            report.added += 1
        else:
            report.duplicate(item.name, ids[item.sha256])


def _insert_images(session: Session, dataset_id: UUID, first: Mapping[str, _Verified]) -> set[str]:
    fresh: set[str] = set()
    for hashes in _batched(sorted(first)):
        statement = insert(Image).values([_row(dataset_id, first[sha256]) for sha256 in hashes])
        unknown = statement.on_conflict_do_nothing(index_elements=["dataset_id", "sha256"])
        fresh.update(session.scalars(unknown.returning(Image.sha256)))
    return fresh


def _insert_names(session: Session, dataset_id: UUID, names: set[tuple[UUID, str]]) -> None:
    for part in _batched(sorted(names)):
        rows = [{"dataset_id": dataset_id, "name": n, "image_id": i} for i, n in part]
        session.execute(insert(ImageName).values(rows).on_conflict_do_nothing())


def _image_ids(session: Session, dataset_id: UUID, hashes: list[str]) -> dict[str, UUID]:
    found: dict[str, UUID] = {}
    for part in _batched(hashes):
        rows = session.execute(
            select(Image.sha256, Image.id).where(
                Image.dataset_id == dataset_id, Image.sha256.in_(part)
            )
        )
        found.update((sha256, image_id) for sha256, image_id in rows)
    return found


def _batched(items: Sequence[RowT]) -> Iterator[Sequence[RowT]]:
    """Parts that fit into one statement: Postgres takes 65,535 parameters."""
    return (items[start : start + STATEMENT_ROWS] for start in range(0, len(items), STATEMENT_ROWS))


def _row(dataset_id: UUID, item: _Verified) -> dict[str, object]:
    return {
        "id": uuid4(),
        "dataset_id": dataset_id,
        "sha256": item.sha256,
        "width": item.info.width,
        "height": item.info.height,
        "format": item.info.format,
        "greyscale": item.info.greyscale,
        "byte_count": item.byte_count,
    }
