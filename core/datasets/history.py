"""The history of labels: who gave an image which class, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, insert, literal, select
from sqlalchemy.orm import Session

from core.auth import Caller
from core.db.arrays import rows_of
from core.db.labelling import LabelChange
from core.db.models import Dataset
from core.db.paging import Page, fetch_page


@dataclass(frozen=True, slots=True)
class Change:
    """The class of an image before and after; None is no label."""

    image_id: UUID
    from_class: str | None
    to_class: str | None


def record_changes(
    session: Session, caller: Caller, dataset_id: UUID, changes: Sequence[Change]
) -> None:
    """Write changes of labels down, with the key of the caller."""
    if not changes:
        return
    given = rows_of(
        image_id=("uuid", [change.image_id for change in changes]),
        from_class=("text", [change.from_class for change in changes]),
        to_class=("text", [change.to_class for change in changes]),
    )
    who = {"dataset_id": dataset_id, "key_id": caller.key_id, "key_name": caller.key_name}
    same = [literal(value, LabelChange.__table__.c[name].type) for name, value in who.items()]
    rows = select(func.gen_random_uuid(), given, *same)
    columns = ["id", "image_id", "from_class", "to_class", *who]
    session.execute(insert(LabelChange).from_select(columns, rows, include_defaults=False))


def list_changes(
    session: Session,
    dataset: Dataset,
    *,
    image_id: UUID | None,
    cursor: str | None,
    limit: int,
) -> Page[LabelChange]:
    """Changes of labels of the dataset, or of one of its images, newest first."""
    statement = select(LabelChange).where(LabelChange.dataset_id == dataset.id)
    if image_id is not None:
        statement = statement.where(LabelChange.image_id == image_id)
    return fetch_page(session, statement, LabelChange, cursor=cursor, limit=limit)
