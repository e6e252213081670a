"""Why a job failed, in a code and in words that tell people what to do."""

from __future__ import annotations

import errno
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.datasets.references import names_of
from core.db.models import Job
from core.errors import FewlabelsError, ImageCorrupt, StoreUnavailable
from core.learning.encoders import WeightsUnavailable
from core.learning.trainer import Diverged
from worker.death import LESS_MEMORY

NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def describe(error: Exception, *, data_dir: Path) -> tuple[str, str]:
    """A code and words for people; the folder is where the worker writes."""
    if isinstance(error, MemoryError) or any(said in str(error).lower() for said in NO_MEMORY):
        return "OutOfMemory", f"the job needs more memory than there is: {LESS_MEMORY}"
    if disk_is_full(error):
        where = f"the disk of the worker's data folder {data_dir} (FEWLABELS_DATA_DIR)"
        if isinstance(error, StoreUnavailable):
            where = "the disk of the blob store, or of what is fetched from it,"
        return "DiskFull", f"{where} is full; make room and retry the job: {error}"
    if isinstance(error, FewlabelsError):
        return error.code, str(error)
    if isinstance(error, Diverged | WeightsUnavailable):
        return type(error).__name__, str(error)
    return "InternalError", f"{type(error).__name__}: {error}; the job's log has more"


def named_images(session: Session, job_id: UUID, error: Exception) -> str:
    """The names by which people know the image that the error is about; "" if it is about none."""
    if not isinstance(error, ImageCorrupt):
        return ""
    dataset_id = session.scalar(select(Job.dataset_id).where(Job.id == job_id))
    if dataset_id is None:
        return ""
    hashes = [str(problem["sha256"]) for problem in error.problems]
    names = [name for sha256 in hashes for name in names_of(session, dataset_id, sha256)]
    return f"; in the dataset it is called {', '.join(map(repr, names))}" if names else ""


def disk_is_full(error: BaseException | None) -> bool:
    """Whether it is at the bottom of it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        # What is not written in Python says it in words only.
        if f"os error {errno.ENOSPC})" in str(error):
            return True
        error = error.__cause__
    return False
