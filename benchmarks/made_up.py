"""Images and rows that stand for real ones where only their form counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from PIL import Image
from sqlalchemy.orm import Session

from core.db.models import Job, Model


def photograph(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """An image of this width and height, smooth with some grain, as photographs are."""
    coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    grain = random.normal(0, 6, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))


def add_model(
    session: Session, project: UUID, *, stage: str, kind: str, manifest: dict[str, Any]
) -> Model:
    """A model's row, and that of the job it seems to come from."""
    job = Job(id=uuid4(), project_id=project, stage=stage, state="succeeded", spec={}, plan={})
    job.max_attempts, job.finished_at = 1, datetime.now(UTC)
    session.add(job)
    session.flush()
    model = Model(id=uuid4(), project_id=project, job_id=job.id, kind=kind, manifest=manifest)
    model.manifest_sha256 = "0" * 64
    session.add(model)
    session.flush()
    return model
