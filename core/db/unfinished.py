"""Unfinished jobs, which hold what they need."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from core.db.models import UNFINISHED, Job
from core.errors import InUse

NAMED = 3


def require_unneeded(session: Session, needs: ColumnElement[bool], what: str) -> None:
    """Refuse where an unfinished job needs what is to be deleted.

    Args:
        session: A transaction that keeps new jobs from needing it.
        needs: Which jobs do.
        what: The field and what it names, as in "dataset_id: this dataset".

    Raises:
        InUse: There are such jobs; it says which.
    """
    found = session.execute(
        select(Job.id, Job.state, func.count().over())
        .where(Job.state.in_(UNFINISHED), needs)
        .order_by(Job.created_at, Job.id)
        .limit(NAMED)
    ).all()
    if not found:
        return
    count = found[0][2]
    named = ", ".join(f"{job_id} ({state})" for job_id, state, _ in found)
    more = ", …" if count > len(found) else ""
    jobs, they = ("job needs", "it") if count == 1 else ("jobs need", "them")
    raise InUse(
        f"{what} cannot be deleted: {count} unfinished {jobs} it: {named}{more}; "
        f"cancel {they} first"
    )
