"""What must hold when everything has ended; each line it gives is a promise that was broken."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core import blobs
from core.db.events import JobEvent
from core.db.imports import LooseBlob
from core.db.models import Job, JobMetric, Model
from core.jobs.chain import NEED_FAILED
from core.jobs.states import ALLOWED, FINISHED, RETRYABLE, JobState
from core.registry.artifact import file_key, stored_files
from tests.chaos.orders import Ordered
from tests.chaos.stack import Stack

STUCK_SECONDS = 180.0
SWEPT_SECONDS = 60.0
# Of the clock, not of what was learned.
OF_TIME = frozenset({"images_per_second", "data_wait"})


@dataclass(frozen=True)
class Run:
    """What a job that was not disturbed has made: the same must come out of the others."""

    weights: dict[str, str] = field(default_factory=dict)
    series: dict[tuple[str, int], float] = field(default_factory=dict)


def settled(stack: Stack, ordered: Sequence[Ordered], tell: Callable[[str], None]) -> list[str]:
    """Wait until every job has ended; those that do not are told."""
    ids = [one.job_id for one in ordered]
    left, since = len(ids), time.monotonic()
    while left:
        with stack.sessions.begin() as session:
            rows = session.execute(
                select(Job.id, Job.state, Job.attempt).where(
                    Job.id.in_(ids), Job.state.not_in(FINISHED)
                )
            ).all()
        if len(rows) != left:
            left, since = len(rows), time.monotonic()
            tell(f"{left} jobs have not ended yet")
        if time.monotonic() - since > STUCK_SECONDS:
            return [f"{row.id} never ended: {row.state}, attempt {row.attempt}" for row in rows]
        time.sleep(0.5)
    return []


def violations(stack: Stack, ordered: Sequence[Ordered], undisturbed: dict[str, Run]) -> list[str]:
    """Everything that does not hold of jobs that have ended."""
    found: list[str] = []
    with stack.sessions.begin() as session:
        for one in ordered:
            found += [f"{one.job_id} ({one.kind}): {said}" for said in _of_job(session, one)]
            run = run_of(session, one.job_id)
            expected = undisturbed.get(one.kind)
            if expected is not None and run.weights:
                said = _compared(run, expected)
                found += [f"{one.job_id} ({one.kind}): {line}" for line in said]
        known = set(session.scalars(select(Job.id)))
        found += _of_models(session, stack, known)
    return found + _of_blobs(stack)


def run_of(session: Session, job_id: UUID) -> Run:
    """What the job has made and told; nothing of one without a model."""
    model = session.scalars(select(Model).where(Model.job_id == job_id)).one_or_none()
    if model is None:
        return Run()
    points = select(JobMetric.name, JobMetric.step, JobMetric.value)
    rows = session.execute(points.where(JobMetric.job_id == job_id)).all()
    return Run(
        {name: one.sha256 for name, one in stored_files(model.manifest).items()},
        {(row.name, row.step): row.value for row in rows if row.name not in OF_TIME},
    )


def attempts_of(stack: Stack, ordered: Sequence[Ordered]) -> int:
    """How often a job was begun, those that were begun again included."""
    ids = [one.job_id for one in ordered]
    with stack.sessions.begin() as session:
        tokens = session.scalar(select(func.sum(Job.fencing_token)).where(Job.id.in_(ids)))
    return int(tokens or 0)


def _of_job(session: Session, one: Ordered) -> Iterator[str]:
    row = session.scalars(select(Job).where(Job.id == one.job_id)).one_or_none()
    if row is None:
        yield "accepted, and not there"
        return
    yield from _of_end(session, one, row)
    made = session.scalars(select(func.count()).where(Model.job_id == row.id)).one()
    expected = int(row.state == "succeeded" and row.stage != "embed")
    if made != expected:
        yield f"{row.state} with {made} models"
    told = select(JobEvent.body["state"].astext)
    told = told.where(JobEvent.job_id == row.id, JobEvent.kind == "state").order_by(JobEvent.id)
    life = [JobState(state) for state in session.scalars(told)]
    for before, after in pairwise(life):
        if after not in ALLOWED[before]:
            yield f"went from {before} to {after}"
    if not life or life[-1] != row.state:
        yield f"is {row.state}, and the last event says {life[-1:]}"


def _of_end(session: Session, one: Ordered, row: Job) -> Iterator[str]:
    if row.state not in FINISHED:
        yield f"has not ended: {row.state}"
    elif row.state == "cancelled" and not one.cancelled:
        yield "was cancelled by nobody"
    elif row.error_code == NEED_FAILED:
        need = session.scalar(select(Job.state).where(Job.id == row.needs_id))
        if need not in RETRYABLE:
            yield f"failed for want of a job that is {need}"
    elif row.state in {"failed", "crashed"}:
        yield f"{row.state} by itself: {row.error_code}: {row.error_detail}"


def _compared(run: Run, expected: Run) -> Iterator[str]:
    for name, digest in expected.weights.items():
        if run.weights.get(name) != digest:
            yield f"{name} is not that of the undisturbed run"
    lost, more = (
        expected.series.keys() - run.series.keys(),
        run.series.keys() - expected.series.keys(),
    )
    if lost:
        yield f"{len(lost)} points of metrics are lost, such as {sorted(lost)[:3]}"
    if more:
        yield f"{len(more)} points of metrics are made up, such as {sorted(more)[:3]}"
    wrong = [
        key
        for key in expected.series.keys() & run.series.keys()
        if expected.series[key] != run.series[key]
    ]
    if wrong:
        yield f"{len(wrong)} points of metrics have other values, such as {sorted(wrong)[:3]}"


def _of_models(session: Session, stack: Stack, known: set[UUID]) -> Iterator[str]:
    models = session.scalars(select(Model)).all()
    for job_id, count in Counter(model.job_id for model in models).items():
        if count > 1 or job_id not in known:
            yield f"{job_id} has {count} models"
    for model in models:
        wanted = {model.manifest_sha256, *_digests(model.manifest)}
        for digest in wanted:
            data = stack.store.get(file_key(digest))
            if hashlib.sha256(data).hexdigest() != digest:
                yield f"model {model.id}: {digest} is not what lies in the store"


def _digests(manifest: dict[str, Any]) -> set[str]:
    return {one.sha256 for one in stored_files(manifest).values()}


def _of_blobs(stack: Stack) -> list[str]:
    """Bytes that nothing refers to have a mark, and go once their time of grace is over."""
    with stack.sessions.begin() as session:
        marked = set(session.scalars(select(LooseBlob.key)))
    unmarked = [key for key in blobs.orphans(stack.sessions, stack.store) if key not in marked]
    found = [f"orphan without a mark: {key}" for key in unmarked]
    with stack.sessions.begin() as session:
        long_ago = func.clock_timestamp() - func.make_interval(0, 0, 0, 1)
        session.execute(update(LooseBlob).values(since=long_ago))
    deadline = time.monotonic() + SWEPT_SECONDS
    while left := [
        key for key in blobs.orphans(stack.sessions, stack.store) if key not in unmarked
    ]:
        if time.monotonic() > deadline:
            return [*found, *(f"orphan that no sweep takes: {key}" for key in left)]
        time.sleep(1)
    return found
