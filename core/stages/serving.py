"""How a finished model will be served: its ONNX files, and the runtimes that were fastest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.datasets.cache import decoded
from core.datasets.snapshot import SnapshotItem
from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.onnx_export import NotExportable, export_onnx
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.fidelity import Compared
from core.learning.runtimes.int8 import RUNTIME, Material, tried
from core.learning.runtimes.measured import measured, runtimes_of
from core.registry.artifact import INT8, ONNX
from core.stages.context import Pixels, StageContext
from core.telemetry import logger

log = logger(__name__)
COMPARED_IMAGES = 16
# To quantise by and to compare by: seconds for a small model, ten of them for ResNet-18 at 224 px.
CALIBRATION_IMAGES, CALIBRATION_PIXELS = 128, 32 * 224 * 224
HELD_IMAGES, HELD_PIXELS = 1000, 256 * 224 * 224
EXPORTING, CHOOSING = "exporting", "choosing the runtime"


def export(
    context: StageContext,
    module: Encoder | Classifier,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    folder: Path,
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Write ONNX files and choose the runtime; what stands in the manifest of it, and the files.

    A module that cannot be exported is served by PyTorch: the job does not fail for that.
    """
    if not context.settings.export_onnx:
        return {"onnx": {"exported": False, "reason": "FEWLABELS_EXPORT_ONNX is off"}}, {}
    context.tell(EXPORTING, 0, 1)
    try:
        export_onnx(module, preprocessing, folder / ONNX, classes=classes)
    except NotExportable as error:
        log.warning("the model was not exported as ONNX", reason=str(error))
        context.tell(EXPORTING, 1, 1)
        return {"onnx": {"exported": False, "reason": str(error)}}, {}
    files = {ONNX: folder / ONNX}
    context.tell(CHOOSING, 0, 1)
    runtime = _runtime(context, module, preprocessing, files[ONNX])
    if isinstance(module, Classifier) and context.settings.export_int8:
        exact = runtimes_of(module, preprocessing, files[ONNX])[runtime["chosen"]]()
        material = _material(context, preprocessing, classes)
        found = tried(exact, files[ONNX], folder / INT8, preprocessing, material)
        candidates = {**runtime["candidates"], RUNTIME: found.pop("candidate")}
        runtime |= {"candidates": candidates, **found}
        log.info("eight bits tried", served="predict" in found, candidate=candidates[RUNTIME])
        if "predict" in found:
            files[INT8] = folder / INT8
    context.tell(CHOOSING, 1, 1)
    return {"onnx": {"exported": True, "reason": None}, "runtime": runtime}, files


def _runtime(
    context: StageContext, module: Encoder | Classifier, preprocessing: Preprocessing, path: Path
) -> dict[str, Any]:
    images_NHWC = _real_images(context, preprocessing)
    batch = context.settings.images_a_pass(preprocessing.image_size)
    found = measured(module, preprocessing, path, images_NHWC, batch=batch)
    log.info("runtime chosen", chosen=found["chosen"], candidates=found["candidates"])
    return found


def _real_images(context: StageContext, preprocessing: Preprocessing) -> Pixels:
    """Some images of the snapshot, evenly spaced, not of the test split if there are others."""
    items: Sequence[SnapshotItem] = context.items()
    items = [item for item in items if item.split != "test"] or items
    sha256s = [item.sha256 for item in _spaced(items, COMPARED_IMAGES)]
    return np.stack(list(decoded(context.store, sha256s, preprocessing.canvas)))


def _material(
    context: StageContext, preprocessing: Preprocessing, classes: Sequence[str]
) -> Material:
    """Images of the train split to quantise by, and others to compare by, never of the test split.

    Compared are the labelled ones of the validation split and then those without a label: of an
    image that was learnt with its label every runtime is certain.
    """
    pixels = preprocessing.image_size**2
    items = context.items()
    train = [item for item in items if item.split == "train"] or items
    calibration = _spaced(train, max(1, min(CALIBRATION_IMAGES, CALIBRATION_PIXELS // pixels)))
    used = {item.sha256 for item in calibration}
    held = [item for item in items if item.split == "validation" and item.label in set(classes)]
    unlabelled = [
        item
        for item in items
        if item.label is None and item.split != "test" and item.sha256 not in used
    ]
    most = max(1, min(HELD_IMAGES, HELD_PIXELS // pixels))
    held = _spaced(held, most)
    compared = [*held, *_spaced(unlabelled, most - len(held))]
    index = {name: number for number, name in enumerate(classes)}

    def canvases(wanted: Sequence[SnapshotItem]) -> Pixels:
        hashes = [item.sha256 for item in wanted]
        return np.stack(list(decoded(context.store, hashes, preprocessing.canvas)))

    return Material(
        calibration_NHWC=canvases(calibration),
        compared=lambda: Compared(
            canvases(compared) if compared else canvases(calibration[:1])[:0],
            np.array([index.get(item.label or "", -1) for item in compared], dtype=np.int64),
        ),
        batch=context.settings.images_a_pass(preprocessing.image_size),
        threads=torch.get_num_threads(),
    )


def _spaced(items: Sequence[SnapshotItem], most: int) -> list[SnapshotItem]:
    """At most so many of them, evenly spaced."""
    step = max(1, len(items) // max(1, most))
    return list(items[::step][:most])
