"""Imports: the life of an upload, and its report line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import Select, exists, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.db.direct import ImportOrder
from core.db.imports import Import, ImportLine
from core.db.models import Dataset
from core.errors import DatasetNotFound, FewlabelsError, ImportNotFound
from core.images.report import Outcome
from core.telemetry import logger

log = logger(__name__)
PART = 5_000


@dataclass(frozen=True, slots=True)
class LinePage:
    """Lines in the order of the upload; `next_after` is the number of the last, None at the end."""

    items: list[ImportLine]
    next_after: int | None


def start(sessions: sessionmaker[Session], dataset_id: UUID) -> UUID:
    """A running import; returns its id.

    Raises:
        DatasetNotFound: The dataset is gone.
    """
    with sessions.begin() as session:
        # Holds off a deletion until the row is there, which then goes with the dataset.
        held = select(Dataset.id).where(Dataset.id == dataset_id, Dataset.project_id.is_not(None))
        held = held.with_for_update(read=True, key_share=True)
        if session.scalar(held) is None:
            raise DatasetNotFound(f"dataset_id: no dataset has the id {dataset_id}")
        row = Import(id=uuid4(), dataset_id=dataset_id)
        session.add(row)
        return row.id


def complete(sessions: sessionmaker[Session], import_id: UUID) -> None:
    """All files of the upload are accounted for."""
    with sessions.begin() as session:
        _end(session, import_id, state="complete")


def fail(sessions: sessionmaker[Session], import_id: UUID, error: BaseException) -> None:
    """The upload ended before its last file; the reason is kept with what was recorded."""
    known = isinstance(error, FewlabelsError)
    code = error.code if isinstance(error, FewlabelsError) else "Interrupted"
    detail = str(error) if known else "the upload ended before its last file; send it again"
    try:
        with sessions.begin() as session:
            _end(session, import_id, state="failed", error_code=code, error_detail=detail)
    except SQLAlchemyError as lost:
        # The caller is told `error`; the import stays running until the sweep finds it silent.
        log.warning("an import's end could not be recorded", import_id=import_id, exc_info=lost)


def _end(session: Session, import_id: UUID, **values: str) -> None:
    session.execute(
        update(Import)
        .where(Import.id == import_id)
        .values(updated_at=func.clock_timestamp(), **values)
    )


def sweep(session: Session, *, silent: timedelta) -> int:
    """Imports whose process died are no longer running; returns how many were found."""
    ended = (
        update(Import)
        .where(
            Import.state == "running",
            Import.updated_at < func.clock_timestamp() - silent,
            ~exists().where(ImportOrder.import_id == Import.id),  # those have a lease
        )
        .values(state="interrupted")
        .returning(Import.id)
    )
    return len(session.scalars(ended).all())


def imports_of(dataset: Dataset) -> Select[Import]:
    """The imports to a dataset that the caller owns."""
    return select(Import).where(Import.dataset_id == dataset.id)


def get_import(session: Session, dataset: Dataset, import_id: UUID) -> Import:
    """An import to a dataset that the caller owns.

    Raises:
        ImportNotFound: The dataset has none of this id.
    """
    statement = select(Import).where(Import.id == import_id, Import.dataset_id == dataset.id)
    found = session.scalars(statement).one_or_none()
    if found is None:
        raise ImportNotFound(f"import_id: the dataset has no import {import_id}")
    return found


def page_of_lines(
    session: Session, found: Import, *, outcome: Outcome | None, after: int, limit: int
) -> LinePage:
    """The lines after the one of this number (-1: from the first), of one outcome or of all."""
    statement = select(ImportLine).where(
        ImportLine.import_id == found.id, ImportLine.number > after
    )
    if outcome is not None:
        statement = statement.where(ImportLine.outcome == outcome)
    rows = list(session.scalars(statement.order_by(ImportLine.number).limit(limit + 1)))
    more = len(rows) > limit
    return LinePage(rows[:limit], rows[limit - 1].number if more else None)


def all_lines(sessions: sessionmaker[Session], found: Import) -> Iterator[ImportLine]:
    """Every line in order, read in parts: no transaction stays open for a slow reader."""
    after: int | None = -1
    while after is not None:
        with sessions() as session:
            page = page_of_lines(session, found, outcome=None, after=after, limit=PART)
        yield from page.items
        after = page.next_after
