"""Real models, tiny and untrained, as a job would leave them."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import torch
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import auth
from core.db.models import Job, Model
from core.learning.architecture import Architecture
from core.learning.checkpoint import save_weights
from core.learning.classifier import Classifier
from core.learning.onnx_export import export_onnx
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes import Probe
from core.learning.runtimes.eager import eager
from core.learning.runtimes.int8 import RUNTIME, quantise
from core.learning.runtimes.onnx import onnxruntime_run
from core.registry.artifact import INT8, ONNX, WEIGHTS, ModelSource, publish_files, publish_manifest
from core.storage.store import BlobStore

SIDE = 16
CLASSES = ("bolt", "nut", "screw")


def publish_tiny_model(
    store: BlobStore,
    *,
    classes: tuple[str, ...] = (),
    seed: int = 0,
    channels: int = 3,
    hidden_dim: int | None = None,
    metrics: dict[str, Any] | None = None,
    exported: bool = False,
    int8: bool = False,
    encoder: str = "resnet10_tiny",
    side: int = SIDE,
    head_std: float = 0.0,
) -> tuple[dict[str, Any], str]:
    """The manifest and its hash of a classifier of these classes, or of an encoder.

    With a `head_std` the classifier tells images apart, which one with a new head does not. With
    `int8` it is exported and answers /predict in eight bits.
    """
    torch.manual_seed(seed)
    architecture = Architecture(
        encoder=encoder,
        image_size=side,
        channels=channels,
        class_count=len(classes) or None,
        hidden_dim=hidden_dim,
    )
    preprocessing = Preprocessing(
        image_size=side,
        channels=channels,
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.25, 0.3)[:channels],
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = {WEIGHTS: Path(folder) / WEIGHTS}
        module = architecture.build().eval()
        if isinstance(module, Classifier) and head_std:
            torch.nn.init.normal_(module.head.weight, std=head_std)
        save_weights(module, paths[WEIGHTS])
        chosen: dict[str, Any] = {}
        if exported or int8:
            paths[ONNX] = Path(folder) / ONNX
            export_onnx(module, preprocessing, paths[ONNX], classes=classes)
            probe = asdict(Probe.of(eager(module, preprocessing), preprocessing))
            chosen = {"runtime": {"chosen": "onnxruntime", "probe": probe}}
        if int8:
            paths[INT8] = Path(folder) / INT8
            noise = np.random.default_rng(seed).integers(0, 256, (8, side, side, channels))
            quantise(paths[ONNX], paths[INT8], noise.astype(np.uint8))
            rounded = onnxruntime_run(paths[INT8], threads=1)
            probe = asdict(Probe.of(rounded, preprocessing))
            chosen["runtime"] |= {"predict": RUNTIME, "probe_int8": probe}
        files = publish_files(store, paths)
    facts = {
        **chosen,
        "kind": "classifier" if classes else "encoder",
        "architecture": architecture.to_dict(),
        "preprocessing": asdict(preprocessing),
        "classes": list(classes),
        "seed": seed,
        "metrics": metrics or {},
    }
    return publish_manifest(store, facts, files)


def tiny_source(
    store: BlobStore,
    cache_folder: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    seed: int = 0,
    model_id: UUID | None = None,
    channels: int = 3,
    **wishes: Any,
) -> ModelSource:
    """A tiny model that an engine can load."""
    manifest, _ = publish_tiny_model(store, classes=classes, seed=seed, channels=channels, **wishes)
    return ModelSource(model_id or uuid4(), manifest, store, cache_folder)


def record_tiny_model(
    session: Session,
    store: BlobStore,
    *,
    classes: tuple[str, ...] = (),
    seed: int = 0,
    project: str = "default",
    **wishes: Any,
) -> UUID:
    """Puts a tiny model into a project, as if a job had made it; returns its id."""
    manifest, digest = publish_tiny_model(store, classes=classes, seed=seed, **wishes)
    owner = auth.ensure_project(session, project)
    job = Job(
        id=uuid4(),
        project_id=owner,
        stage="finetune" if classes else "pretrain",
        state="succeeded",
        spec={},
        plan={},
        max_attempts=1,
    )
    job.finished_at = job.started_at = session.scalar(select(func.now()))
    model = Model(
        id=uuid4(),
        project_id=owner,
        job_id=job.id,
        kind=manifest["kind"],
        manifest=manifest,
        manifest_sha256=digest,
    )
    session.add(job)
    session.flush()
    session.add(model)
    return model.id
