"""The model of a run: made once, and opened by all that answer with it in the same way."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import torch
from sqlalchemy.orm import Session

from benchmarks.made_up import add_model, photograph
from core.auth import ensure_project
from core.images.decoding import decode
from core.inference.model import Answer, LoadedModel
from core.inference.runtimes import Placement
from core.learning.architecture import Architecture
from core.learning.checkpoint import save_weights
from core.learning.classifier import Classifier
from core.learning.onnx_export import export_onnx
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes import Pixels
from core.learning.runtimes.measured import measured
from core.registry.artifact import ONNX, WEIGHTS, ModelSource, publish_files, publish_manifest
from core.storage.folder import FolderStore

CLASSES = tuple(f"class {number}" for number in range(10))
LIMITS = {"max_bytes": 2**25, "max_pixels": 5 * 10**7}
BATCH = 32


def make_jpegs(folder: Path, sides: tuple[int, int], count: int) -> list[Path]:
    """So many different images, smooth with some grain, as photographs are."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        photograph(random, sides).save(path, quality=90)
    return paths


def make_model(folder: Path, encoder: str, side: int, images: list[Path]) -> dict[str, Any]:
    """The manifest of a classifier with its runtime chosen, as a job would leave it.

    Its weights are random, which a pass does not take longer or shorter for.
    """
    torch.manual_seed(0)
    architecture = Architecture(
        encoder=encoder, image_size=side, channels=3, class_count=len(CLASSES)
    )
    module = architecture.build().eval()
    assert isinstance(module, Classifier)
    torch.nn.init.normal_(module.head.weight, std=0.05)
    preprocessing = Preprocessing(image_size=side, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    store = FolderStore(folder / "blobs")
    store.prepare()
    weights, exported = folder / f"{encoder}.safetensors", folder / f"{encoder}.onnx"
    save_weights(module, weights)
    export_onnx(module, preprocessing, exported, classes=CLASSES)
    canvases = np.stack([preprocessing.canvas(pixels_of(path.read_bytes())) for path in images])
    facts = {
        "kind": "classifier",
        "architecture": architecture.to_dict(),
        "preprocessing": asdict(preprocessing),
        "classes": list(CLASSES),
        "metrics": {},
        "runtime": measured(module, preprocessing, exported, canvases[:16], batch=BATCH),
    }
    manifest, _ = publish_manifest(
        store, facts, publish_files(store, {WEIGHTS: weights, ONNX: exported})
    )
    return manifest


def record(session: Session, manifest: dict[str, Any]) -> UUID:
    """Put the model into the project that a call without a key belongs to; returns its id."""
    project = ensure_project(session, "default")
    return add_model(session, project, stage="finetune", kind="classifier", manifest=manifest).id


def pixels_of(data: bytes) -> Pixels:
    """The decoded image."""
    return decode(data, **LIMITS).pixels_HWC


class Opened:
    """The model as every server of the comparison holds it: same runtime, same preprocessing."""

    def __init__(self, folder: Path, encoder: str, *, threads: int) -> None:
        manifest = json.loads((folder / f"{encoder}.json").read_text())
        store = FolderStore(folder / "blobs")
        source = ModelSource(uuid4(), manifest, store, folder / "cache")
        self.model = LoadedModel(source, Placement(threads=threads))

    def canvas(self, data: bytes) -> Pixels:
        """What the model sees of a JPEG."""
        return self.model.preprocessing.canvas(pixels_of(data))

    def forward(self, canvases: list[Pixels]) -> list[Answer]:
        """What it says of them."""
        return self.model.forward(canvases)

    def said(self, answer: Answer) -> dict[str, Any]:
        """The likeliest five, as the service writes them."""
        probabilities = answer.probabilities_K
        assert probabilities is not None
        assert answer.order_K is not None
        best = answer.order_K[:5]
        scored = [{"label": CLASSES[k], "probability": float(probabilities[k])} for k in best]
        return {"label": scored[0]["label"], "predictions": scored}
