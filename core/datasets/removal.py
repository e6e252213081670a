"""Deleted datasets: gone for everybody at once, their rows part by part a while later.

A dataset without a project is one that was deleted. Whoever looks for a dataset, an image or a
snapshot looks in a project, so nobody finds it, its name is free, and nothing counts it.
"""

from __future__ import annotations

import time
from uuid import UUID

from sqlalchemy import delete, select, tuple_, update
from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.datasets.snapshot import snapshot_key
from core.db.direct import DirectUpload
from core.db.imports import Import, ImportLine
from core.db.models import Dataset, Image, Job, Snapshot
from core.db.vectors import Embedding, Report
from core.images.recording import image_key

PART_IMAGES = 2_000
PART_LINES = 20_000


def take_away(session: Session, dataset: Dataset) -> None:
    """Nobody finds the dataset from now on, nor what is in it; it is held by the caller."""
    jobs = update(Job).where(Job.dataset_id == dataset.id)
    session.execute(jobs.values(dataset_id=None, snapshot_id=None))
    for history in (DirectUpload, Report):
        its = update(history).where(history.dataset_id == dataset.id)
        session.execute(its.values(dataset_id=None))
    # Searches of all that a model knows do not ask for the dataset of an image.
    session.execute(delete(Embedding).where(Embedding.dataset_id == dataset.id))
    session.execute(update(Dataset).where(Dataset.id == dataset.id).values(project_id=None))


def sweep(sessions: sessionmaker[Session], *, seconds: float) -> int:
    """Remove rows of deleted datasets for so long at most; any number of processes may.

    Bytes that nothing else has, of images and snapshots, get their time of grace.

    Returns:
        How many images were removed.
    """
    give_up = time.monotonic() + seconds
    removed = 0
    while time.monotonic() < give_up:
        with sessions.begin() as session:
            deleted = select(Dataset.id).where(Dataset.project_id.is_(None)).limit(1)
            dataset_id = session.scalar(deleted.with_for_update(skip_locked=True))
            if dataset_id is None:
                break
            removed += _remove_part(session, dataset_id)
    return removed


def _remove_part(session: Session, dataset_id: UUID) -> int:
    """Some images; once there are none some lines of imports, and at the end the dataset."""
    some = select(Image.id).where(Image.dataset_id == dataset_id).limit(PART_IMAGES)
    gone = delete(Image).where(Image.id.in_(some)).returning(Image.sha256)
    if hashes := session.scalars(gone).all():
        blobs.mark(session, [image_key(sha256) for sha256 in hashes])
        return len(hashes)
    line = tuple_(ImportLine.import_id, ImportLine.number)
    lines = select(ImportLine.import_id, ImportLine.number)
    lines = lines.join(Import).where(Import.dataset_id == dataset_id).limit(PART_LINES)
    told = delete(ImportLine).where(line.in_(lines)).returning(ImportLine.number)
    if not session.scalars(told).all():
        frozen = select(Snapshot.digest).where(Snapshot.dataset_id == dataset_id)
        blobs.mark(session, map(snapshot_key, session.scalars(frozen)))
        session.execute(delete(Dataset).where(Dataset.id == dataset_id))
    return 0
