"""The series of a job: all of their points, or few that show the same curve."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from core.db.models import Job, JobMetric

LEAST_POINTS = 4  # the first, the last, a lowest and a highest


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over the steps of a job."""

    name: str
    steps: list[int]
    values: list[float]


def list_series(
    session: Session, job: Job, *, name: str | None, points: int | None
) -> list[Series]:
    """The series of a job in the order of their steps, of each at most `points` (None: all)."""
    wanted = select(JobMetric.name, JobMetric.step, JobMetric.value).where(
        JobMetric.job_id == job.id
    )
    if name is not None:
        wanted = wanted.where(JobMetric.name == name)
    if points is not None:
        wanted = _thinned(wanted, points)
    columns = wanted.selected_columns
    rows = session.execute(wanted.order_by(columns["name"], columns["step"])).all()
    series = []
    for found, group in itertools.groupby(rows, key=lambda row: row.name):
        of_series = list(group)
        steps, values = [row.step for row in of_series], [row.value for row in of_series]
        series.append(Series(found, steps, values))
    return series


def _thinned(wanted: Any, points: int) -> Any:
    """Of each series the first and the last, and the lowest and highest of equal parts between.

    So a peak of one step stays, and a curve that is drawn at this width looks as it would in full.
    """
    parts = max(1, (points - 2) // 2)
    inner = wanted.subquery()
    number = func.row_number().over(partition_by=inner.c.name, order_by=inner.c.step)
    total = func.count().over(partition_by=inner.c.name)
    placed = select(inner, number.label("number"), total.label("total")).subquery()
    part = func.div((placed.c.number - 1) * parts, placed.c.total).label("part")
    split = select(placed, part).subquery()
    same = [split.c.name, split.c.part]
    lowest = func.row_number().over(partition_by=same, order_by=[split.c.value, split.c.step])
    highest = func.row_number().over(
        partition_by=same, order_by=[split.c.value.desc(), split.c.step]
    )
    ranked = select(split, lowest.label("lowest"), highest.label("highest")).subquery()
    kept = or_(
        ranked.c.total <= points,
        ranked.c.number == 1,
        ranked.c.number == ranked.c.total,
        ranked.c.lowest == 1,
        ranked.c.highest == 1,
    )
    return select(ranked.c.name, ranked.c.step, ranked.c.value).where(kept)
