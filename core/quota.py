"""What a project holds, and the most that it may hold; 0 is no limit."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Float, cast, func, select
from sqlalchemy.orm import Session

from core.auth import Caller
from core.db.models import UNFINISHED, Dataset, Job, Model, Project
from core.errors import ProjectFull, SpecInvalid, TooManyJobs

# A job that has not said yet how long it takes: long enough that asking again is worth it.
UNKNOWN_SECONDS = 30.0
LONGEST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a project holds."""

    datasets: int
    images: int
    bytes: int
    models: int
    jobs: dict[str, int]

    @property
    def unfinished_jobs(self) -> int:
        """Jobs that wait, are queued or run."""
        return sum(self.jobs.get(state, 0) for state in UNFINISHED)


def usage_of(session: Session, caller: Caller) -> Usage:
    """What the caller's project holds."""
    own = caller.project_id
    images, size = _images_and_bytes(session, own)
    states = select(Job.state, func.count()).where(Job.project_id == own).group_by(Job.state)
    return Usage(
        datasets=session.scalars(select(func.count()).where(Dataset.project_id == own)).one(),
        images=images,
        bytes=size,
        models=session.scalars(select(func.count()).where(Model.project_id == own)).one(),
        jobs=dict(iter(session.execute(states))),
    )


def require_image_room(session: Session, dataset: Dataset, *, images: int, size: int) -> None:
    """Refuse what was just added to a dataset where it is too much for the project.

    Until the commit uploads to one project take turns here, so that the sums hold.

    Args:
        session: The transaction that has added the images; it must end with the refusal.
        dataset: Where they were added; it is held, and its counts are those with them.
        images: Most images of the project; 0 is no limit.
        size: Most bytes of them; 0 is no limit.

    Raises:
        ProjectFull: The project holds more than it may.
    """
    if not images and not size:
        return
    session.flush()
    hold_project(session, dataset.project_id)
    found_images, found_bytes = _images_and_bytes(session, dataset.project_id)
    for found, most, noun in ((found_images, images, "images"), (found_bytes, size, "bytes")):
        if most and found > most:
            raise ProjectFull(
                f"files: with these the project would hold {found} {noun}, at most {most} are "
                "allowed"
            )


def require_job_room(session: Session, project_id: UUID, *, wanted: int, most: int) -> None:
    """Refuse jobs where the project has too many that are not finished.

    Until the commit those who make jobs in one project take turns here, so that the count holds.

    Raises:
        TooManyJobs: Some have to end first.
        SpecInvalid: Never could so many be made.
    """
    if not most:
        return
    if wanted > most:
        raise SpecInvalid(
            f"stage: this makes {wanted} jobs; at most {most} unfinished ones are allowed in a "
            "project, so ask for one stage at a time"
        )
    hold_project(session, project_id)
    unfinished = (Job.project_id == project_id, Job.state.in_(UNFINISHED))
    found = session.scalars(select(func.count()).where(*unfinished)).one()
    if found + wanted <= most:
        return
    left = cast(Job.progress["seconds_left"].astext, Float)
    soonest = session.scalar(select(func.min(left)).where(*unfinished, Job.state == "running"))
    raise TooManyJobs(
        f"found {found} unfinished jobs in the project, at most {most} are allowed and this "
        f"makes {wanted} more; wait for one to end, or cancel one",
        retry_after=min(soonest or UNKNOWN_SECONDS, LONGEST_SECONDS),
    )


def hold_project(session: Session, project_id: UUID) -> None:
    """Wait for one's turn in the project, after its dataset is held and before its jobs are."""
    # Not in the way of those who only refer to the project.
    row = select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)
    session.execute(row)


def _images_and_bytes(session: Session, project_id: UUID) -> tuple[int, int]:
    sums = select(func.sum(Dataset.image_count), func.sum(Dataset.byte_count))
    images, size = session.execute(sums.where(Dataset.project_id == project_id)).one()
    return int(images or 0), int(size or 0)
