"""The rows of an upload's images: which are new, under which names, and a line for each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.arrays import rows_of
from core.db.imports import Import, ImportLine
from core.db.models import Dataset, Image, ImageName
from core.errors import DatasetNotFound, TooManyImages
from core.images.archives.entries import shown_name
from core.images.decoding import ImageInfo
from core.images.report import ReportLine
from core.quota import require_image_room

MAX_NAME_BYTES = 1024  # an index row of Postgres holds 2,704 bytes at most


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How many images a dataset may hold, and its project, and how many bytes (0: any)."""

    max_images: int
    max_project_images: int = 0
    max_project_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verified:
    """An image whose bytes are stored; `info` is None when the dataset had it before."""

    name: str
    sha256: str
    byte_count: int
    info: ImageInfo | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is not an image that can be used, and why."""

    name: str
    code: str
    detail: str


def image_key(sha256: str) -> str:
    """Where the bytes of an image lie in the blob store."""
    return f"images/{sha256}"


def stored_name(raw: str) -> str:
    """A file name as it is kept and looked up: fit to store, at most 1024 bytes of UTF-8."""
    return shown_name(raw).encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def known_hashes(session: Session, dataset_id: UUID, hashes: set[str]) -> set[str]:
    """Which of these images the dataset has."""
    return set(_image_ids(session, dataset_id, sorted(hashes)))


def missing(
    session: Session,
    dataset: Dataset,
    hashes: Sequence[str],
    names: Mapping[str, Sequence[str]],
) -> list[str]:
    """Those of the images that the dataset has not, in the order asked; names go to the others."""
    ids = _image_ids(session, dataset.id, sorted(set(hashes)))
    named = {(ids[sha256], name) for sha256 in ids for name in names.get(sha256, ())}
    _insert_names(session, dataset.id, named)
    return [sha256 for sha256 in dict.fromkeys(hashes) if sha256 not in ids]


def record(
    session: Session,
    dataset_id: UUID,
    import_id: UUID,
    results: Sequence[Verified | Refused],
    *,
    start: int,
    limits: ImageLimits,
) -> list[ReportLine]:
    """Record the images of a chunk, their names and what became of each file, `start` its first.

    Raises:
        DatasetNotFound: The dataset was deleted meanwhile.
        TooManyImages: The dataset would exceed its limit.
        ProjectFull: The project would exceed one of its own.
    """
    kept = [item for item in results if isinstance(item, Verified)]
    first = {item.sha256: item for item in reversed(kept)}
    # Until the commit uploads to this dataset take turns here, so that the counts hold.
    turn = select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id.is_not(None))
    turn = turn.with_for_update(key_share=True)
    dataset = session.scalars(turn.execution_options(populate_existing=True)).one_or_none()
    if dataset is None:
        raise DatasetNotFound(f"dataset_id: the dataset {dataset_id} was deleted meanwhile")
    fresh = _insert_images(session, dataset_id, first)
    room = limits.max_images - dataset.image_count
    if len(fresh) > room:
        raise TooManyImages(
            f"files: the dataset may hold {limits.max_images} images, {room} more than it has"
        )
    dataset.image_count += len(fresh)
    dataset.byte_count += sum(first[sha256].byte_count for sha256 in fresh)
    require_image_room(
        session, dataset, images=limits.max_project_images, size=limits.max_project_bytes
    )
    ids = _image_ids(session, dataset_id, sorted(first))
    named = {(ids[item.sha256], item.name) for item in kept if item.sha256 in ids}
    _insert_names(session, dataset_id, named)
    lines = [_line(item, first, fresh, ids) for item in results]
    _insert_lines(session, import_id, lines, start)
    _count(session, import_id, lines)
    return lines


def files_with_images(session: Session, import_id: UUID) -> list[tuple[str, UUID]]:
    """The files of an import that are images, in their order: the name, and which image."""
    rows = select(ImportLine.file, ImportLine.image_id).where(
        ImportLine.import_id == import_id,
        ImportLine.outcome.in_(("added", "duplicate")),
        ImportLine.image_id.is_not(None),
    )
    found = session.execute(rows.order_by(ImportLine.number))
    return [(row.file, row.image_id) for row in found]


def record_labels(
    session: Session, import_id: UUID, *, labelled: int, lines: Sequence[ReportLine]
) -> None:
    """How many images have the class of their folder, and a line for each that has not.

    Takes the place of what was recorded before: the same import may be labelled again.
    """
    told = select(Import).where(Import.id == import_id).with_for_update()
    row = session.scalars(told.execution_options(populate_existing=True)).one()
    earlier = (ImportLine.import_id == import_id, ImportLine.outcome == "unlabelled")
    session.execute(delete(ImportLine).where(*earlier))
    _insert_lines(session, import_id, lines, row.added + row.duplicates + row.rejected)
    row.labelled, row.unlabelled = labelled, len(lines)


def _insert_names(session: Session, dataset_id: UUID, names: set[tuple[UUID, str]]) -> None:
    ordered = sorted(names)
    given = rows_of(
        image_id=("uuid", [image_id for image_id, _ in ordered]),
        name=("text", [name for _, name in ordered]),
    )
    rows = select(literal(dataset_id), given.c.name, given.c.image_id)
    put = insert(ImageName).from_select(["dataset_id", "name", "image_id"], rows)
    session.execute(put.on_conflict_do_nothing())


def _line(
    item: Verified | Refused,
    first: Mapping[str, Verified],
    fresh: set[str],
    ids: Mapping[str, UUID],
) -> ReportLine:
    if isinstance(item, Refused):
        return ReportLine(item.name, "rejected", item.code, item.detail)
    image_id = ids.get(item.sha256)
    if image_id is None:  # known when the chunk came, gone when it was recorded
        detail = "the image was deleted while it was uploaded; send it again"
        return ReportLine(item.name, "rejected", "DeletedMeanwhile", detail)
    if item.sha256 in fresh and first[item.sha256] is item:
        return ReportLine(item.name, "added", image_id=image_id)
    detail = "the dataset has this image already; the name now refers to it as well"
    return ReportLine(item.name, "duplicate", "Duplicate", detail, image_id)


def _insert_images(session: Session, dataset_id: UUID, first: Mapping[str, Verified]) -> set[str]:
    fresh = [(item, item.info) for _, item in sorted(first.items()) if item.info]
    given = rows_of(
        id=("uuid", [uuid4() for _ in fresh]),
        sha256=("text", [item.sha256 for item, _ in fresh]),
        width=("integer", [info.width for _, info in fresh]),
        height=("integer", [info.height for _, info in fresh]),
        format=("text", [info.format for _, info in fresh]),
        greyscale=("boolean", [info.greyscale for _, info in fresh]),
        byte_count=("bigint", [item.byte_count for item, _ in fresh]),
    )
    rows = select(literal(dataset_id), *given.c)
    put = insert(Image).from_select(["dataset_id", *given.c.keys()], rows)
    unknown = put.on_conflict_do_nothing(index_elements=["dataset_id", "sha256"])
    return set(session.scalars(unknown.returning(Image.sha256)))


def _insert_lines(
    session: Session, import_id: UUID, lines: Sequence[ReportLine], start: int
) -> None:
    given = rows_of(
        number=("integer", range(start, start + len(lines))),
        file=("text", [line.file for line in lines]),
        outcome=("text", [line.outcome for line in lines]),
        code=("text", [line.code for line in lines]),
        detail=("text", [line.detail for line in lines]),
        image_id=("uuid", [line.image_id for line in lines]),
    )
    rows = select(literal(import_id), *given.c)
    session.execute(insert(ImportLine).from_select(["import_id", *given.c.keys()], rows))


def _count(session: Session, import_id: UUID, lines: Sequence[ReportLine]) -> None:
    outcomes = [line.outcome for line in lines]
    session.execute(
        update(Import)
        .where(Import.id == import_id)
        .values(
            added=Import.added + outcomes.count("added"),
            duplicates=Import.duplicates + outcomes.count("duplicate"),
            rejected=Import.rejected + outcomes.count("rejected"),
            updated_at=func.clock_timestamp(),
        )
    )


def _image_ids(session: Session, dataset_id: UUID, hashes: Sequence[str]) -> dict[str, UUID]:
    asked = rows_of(sha256=("text", hashes))
    statement = select(Image.sha256, Image.id).join(asked, asked.c.sha256 == Image.sha256)
    rows = session.execute(statement.where(Image.dataset_id == dataset_id))
    return {row.sha256: row.id for row in rows}
