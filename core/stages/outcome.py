"""What a stage leaves behind, and how it becomes a registered model."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from torch import nn

from core import blobs
from core.db.models import Model
from core.jobs.outages import outlast
from core.jobs.service import succeed
from core.learning.architecture import Architecture
from core.learning.checkpoint import save_weights
from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.evaluation import Score, wilson_interval
from core.learning.heads import ProjectionHead, ProjectionSpec
from core.learning.preprocessing import Preprocessing
from core.registry.artifact import (
    WEIGHTS,
    compose_manifest,
    file_key,
    publish_files,
    publish_manifest,
    stored_file,
)
from core.stages.context import PROJECTION, StageContext
from core.stages.parent import ParentModel
from core.stages.serving import export


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A trained module with all that is needed to use it and to know where it comes from."""

    architecture: Architecture
    module: Encoder | Classifier
    preprocessing: Preprocessing
    config: dict[str, Any]
    metrics: dict[str, Any]
    classes: list[str]
    parent: ParentModel | None
    projection: ProjectionHead | None = None
    projection_spec: ProjectionSpec | None = None


def measured(score: Score | None, *, method: str) -> dict[str, Any] | None:
    """An accuracy with its 95 % interval (Wilson), as it stands in a manifest."""
    if score is None or score.total == 0:
        return None
    low, high = wilson_interval(score.correct, score.total)
    return {
        "accuracy": score.accuracy,
        "interval_95": [low, high],
        "correct": score.correct,
        "total": score.total,
        "method": method,
    }


def publish(context: StageContext, outcome: Outcome) -> UUID:
    """Store the artefact and end the job with it, both or neither; returns the model's id.

    Raises:
        LeaseLost: Another worker holds the job now; the stored files are content-addressed, so
            nothing is overwritten.
        OperationalError: The database stayed away.
    """
    scratch = context.work_dir.parent  # on the disk that was chosen for large files
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        modules: dict[str, nn.Module] = {WEIGHTS: outcome.module}
        if outcome.projection is not None:
            modules[PROJECTION] = outcome.projection
        paths = {name: Path(folder) / name for name in modules}
        for name, module in modules.items():
            save_weights(module, paths[name])
        served, exported = export(
            context, outcome.module, outcome.preprocessing, outcome.classes, Path(folder)
        )
        paths |= exported
        files = {name: stored_file(path) for name, path in paths.items()}
        facts = {**_facts(context, outcome), **served}
        manifest, digest = compose_manifest(facts, files)
        keys = [file_key(sha256) for sha256 in (digest, *(one.sha256 for one in files.values()))]
        _mark(context, keys)
        publish_files(context.store, paths)
        publish_manifest(context.store, facts, files)
    model_id = uuid4()

    def end() -> None:
        model = Model(
            id=model_id,
            project_id=context.job.project_id,
            job_id=context.job.id,
            parent_id=outcome.parent.model_id if outcome.parent else None,
            kind=manifest["kind"],
            manifest=manifest,
            manifest_sha256=digest,
        )
        with context.sessions.begin() as session:
            context.write_rest(session)
            succeed(session, context.job.id, context.held.token, model)
            blobs.unmark(session, keys)

    seconds = context.settings.lease_seconds
    outlast(end, seconds=seconds, give_up=context.should_stop)
    return model_id


def _mark(context: StageContext, keys: Sequence[str]) -> None:
    """Until the model's row is there, nothing refers to the bytes: if it never is, they go."""

    def mark() -> None:
        with context.sessions.begin() as session:
            blobs.mark(session, keys)

    outlast(mark, seconds=context.settings.lease_seconds, give_up=context.should_stop)


def _facts(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    parent = outcome.parent
    return {
        "kind": "encoder" if outcome.architecture.class_count is None else "classifier",
        "stage": context.job.stage,
        "job_id": str(context.job.id),
        "parent": parent
        and {"model_id": str(parent.model_id), "manifest_sha256": parent.manifest_sha256},
        "architecture": outcome.architecture.to_dict(),
        "projection": outcome.projection_spec and outcome.projection_spec.to_dict(),
        "parameters": sum(p.numel() for p in outcome.module.parameters()),
        "preprocessing": asdict(outcome.preprocessing),
        "classes": outcome.classes,
        "config": outcome.config,
        "metrics": outcome.metrics,
        "snapshot_sha256": context.job.snapshot_digest,
        "code": {
            name: importlib.metadata.version(name) for name in ("fewlabels", "torch", "torchvision")
        },
    }
