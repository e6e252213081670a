"""Orders to import: the row is the truth and a message a hint, as with jobs.

An order is there until its import has ended, so an accepted import outlives any process, and ends
once: whoever deletes the order, under the token that he claimed it with, writes the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from core.auth import Caller
from core.db.direct import ImportOrder
from core.db.imports import Import
from core.errors import FewlabelsError, LeaseLost
from core.jobs import outbox

HINT_AGE = timedelta(seconds=15)
LOST_WORKER = "the worker that imported fell silent"


@dataclass(frozen=True, slots=True)
class Held:
    """The right to work on an order while the lease is renewed, and what is done of it."""

    import_id: UUID
    dataset_id: UUID
    token: int
    source: dict[str, Any]
    last_file: str | None


def place(
    session: Session, dataset_id: UUID, source: dict[str, Any], *, max_attempts: int
) -> Import:
    """An import to a dataset that the caller holds; a worker begins once this has committed.

    `source` has `labelled_by` where images are to be labelled by their folders.
    """
    row = Import(id=uuid4(), dataset_id=dataset_id, state="queued")
    session.add(row)
    session.flush()
    session.add(ImportOrder(import_id=row.id, source=source, max_attempts=max_attempts))
    session.flush()
    _hint(session, row.id)
    return row


def labelled_by(caller: Caller) -> dict[str, str | None]:
    """Who labels by folders, as an order keeps it."""
    return {"key_id": str(caller.key_id) if caller.key_id else None, "key_name": caller.key_name}


def labelling_caller(held: Held, project_id: UUID) -> Caller | None:
    """Whoever asked for labels by folders; None where nobody did."""
    by = held.source.get("labelled_by")
    if by is None:
        return None
    key_id = UUID(by["key_id"]) if by["key_id"] else None
    return Caller(project_id, frozenset({"write"}), key_id, by["key_name"])


def claim(session: Session, import_id: UUID, *, lease_seconds: float) -> Held | None:
    """Take an order; None when somebody works on it, or it has ended (a second hint)."""
    taken = (
        update(ImportOrder)
        .where(ImportOrder.import_id == import_id, ImportOrder.lease_expires_at.is_(None))
        .values(
            attempt=ImportOrder.attempt + 1,
            fencing_token=ImportOrder.fencing_token + 1,
            lease_expires_at=_after(lease_seconds),
        )
        .returning(ImportOrder.fencing_token, ImportOrder.source, ImportOrder.last_file)
    )
    row = session.execute(taken).one_or_none()
    if row is None:
        return None
    dataset_id = _turn(session, import_id, "running")
    return Held(import_id, dataset_id, row.fencing_token, row.source, row.last_file)


def renew(session: Session, held: Held, *, lease_seconds: float) -> None:
    """Extend the lease.

    Raises:
        LeaseLost: Another worker holds the order, or it has ended.
    """
    _write(session, held, lease_expires_at=_after(lease_seconds))


def note(session: Session, held: Held, last_file: str) -> None:
    """So far the files are recorded, in this transaction.

    Raises:
        LeaseLost: As renew; the transaction must not commit.
    """
    _write(session, held, last_file=last_file)


def end(session: Session, held: Held, error: tuple[str, str] | None = None) -> None:
    """The import is complete, or failed for this reason: its code and a sentence.

    Raises:
        LeaseLost: As renew; somebody else writes the end.
    """
    if not _close(session, held.import_id, held.token, error):
        raise LeaseLost(f"import {held.import_id} is no longer held with token {held.token}")


def give_back(session: Session, held: Held, *, reason: FewlabelsError | None) -> None:
    """Somebody has to try again; for a reason so many times only, then the import fails for it.

    Raises:
        LeaseLost: As renew.
    """
    order = _locked(session, held)
    if reason is None:
        order.attempt -= 1
    elif order.attempt >= order.max_attempts:
        _close(session, order.import_id, held.token, (reason.code, str(reason)))
        return
    _release(session, order)
    if reason is None:
        # The worker that shuts down may swallow the hint: the sweep sends another.
        order.hinted_at = None
        outbox.enqueue_import(session, order.import_id)
    else:
        # The sweep hints a while later: what is away now is given time.
        order.hinted_at = session.scalar(select(func.clock_timestamp()))


def sweep(session: Session, *, hints_waiting: int) -> tuple[int, int]:
    """Take orders from silent workers, re-send lost hints; returns how many of each.

    While as many hints wait as there are orders that nobody works on, none was lost.
    """
    late = select(ImportOrder).where(ImportOrder.lease_expires_at < func.clock_timestamp())
    expired = session.scalars(late.with_for_update(skip_locked=True)).all()
    for order in expired:
        if order.attempt < order.max_attempts:
            _release(session, order)
            _hint(session, order.import_id)
        else:
            said = f"{LOST_WORKER} (attempt {order.attempt} of {order.max_attempts})"
            _close(session, order.import_id, order.fencing_token, ("ProcessDied", said))
    waiting = select(func.count()).where(ImportOrder.lease_expires_at.is_(None))
    if hints_waiting >= (session.scalar(waiting) or 0):
        return len(expired), 0
    old = ImportOrder.hinted_at < func.clock_timestamp() - HINT_AGE
    unheard = (
        select(ImportOrder.import_id)
        .where(ImportOrder.lease_expires_at.is_(None), or_(ImportOrder.hinted_at.is_(None), old))
        .order_by(ImportOrder.created_at)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(unheard))
    for import_id in ids:
        _hint(session, import_id)
    return len(expired), len(ids)


def _hint(session: Session, import_id: UUID) -> None:
    now = update(ImportOrder).where(ImportOrder.import_id == import_id)
    session.execute(now.values(hinted_at=func.clock_timestamp()))
    outbox.enqueue_import(session, import_id)


def _release(session: Session, order: ImportOrder) -> None:
    order.lease_expires_at = None
    order.fencing_token += 1  # whoever held it cannot write from now on
    session.flush()
    _turn(session, order.import_id, "queued")


def _turn(session: Session, import_id: UUID, state: str) -> UUID:
    turned = (
        update(Import)
        .where(Import.id == import_id)
        .values(state=state, updated_at=func.clock_timestamp())
        .returning(Import.dataset_id)
    )
    return session.scalars(turned).one()


def _close(session: Session, import_id: UUID, token: int, error: tuple[str, str] | None) -> bool:
    gone = (
        delete(ImportOrder)
        .where(ImportOrder.import_id == import_id, ImportOrder.fencing_token == token)
        .returning(ImportOrder.import_id)
    )
    if session.scalar(gone) is None:
        return False
    told = {} if error is None else {"error_code": error[0], "error_detail": error[1]}
    state = "complete" if error is None else "failed"
    ended = update(Import).where(Import.id == import_id)
    session.execute(ended.values(state=state, updated_at=func.clock_timestamp(), **told))
    return True


def _write(session: Session, held: Held, **values: object) -> None:
    statement = update(ImportOrder).where(
        ImportOrder.import_id == held.import_id, ImportOrder.fencing_token == held.token
    )
    written = session.scalar(statement.values(**values).returning(ImportOrder.import_id))
    if written is None:
        raise LeaseLost(f"import {held.import_id} is no longer held with token {held.token}")


def _locked(session: Session, held: Held) -> ImportOrder:
    statement = select(ImportOrder).where(
        ImportOrder.import_id == held.import_id, ImportOrder.fencing_token == held.token
    )
    statement = statement.with_for_update().execution_options(populate_existing=True)
    order = session.scalars(statement).one_or_none()
    if order is None:
        raise LeaseLost(f"import {held.import_id} is no longer held with token {held.token}")
    return order


def _after(seconds: float) -> object:
    return func.clock_timestamp() + timedelta(seconds=seconds)
