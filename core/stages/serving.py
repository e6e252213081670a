"""How a finished model will be served: its ONNX file, and the runtime that was fastest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.datasets.cache import decoded
from core.datasets.snapshot import SnapshotItem
from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.onnx_export import NotExportable, export_onnx
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.measured import measured
from core.stages.context import Pixels, StageContext
from core.telemetry import logger

log = logger(__name__)
COMPARED_IMAGES = 16
EXPORTING, CHOOSING = "exporting", "choosing the runtime"


def export(
    context: StageContext,
    module: Encoder | Classifier,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    path: Path,
) -> dict[str, Any]:
    """Write the ONNX file and choose the runtime; what stands in the manifest of it.

    A module that cannot be exported is served by PyTorch: the job does not fail for that.
    """
    if not context.settings.export_onnx:
        return {"onnx": {"exported": False, "reason": "FEWLABELS_EXPORT_ONNX is off"}}
    context.tell(EXPORTING, 0, 1)
    try:
        export_onnx(module, preprocessing, path, classes=classes)
    except NotExportable as error:
        log.warning("the model was not exported as ONNX", reason=str(error))
        context.tell(EXPORTING, 1, 1)
        return {"onnx": {"exported": False, "reason": str(error)}}
    context.tell(CHOOSING, 0, 1)
    chosen = _runtime(context, module, preprocessing, path)
    context.tell(CHOOSING, 1, 1)
    return {"onnx": {"exported": True, "reason": None}, "runtime": chosen}


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
    step = max(1, len(items) // COMPARED_IMAGES)
    sha256s = [item.sha256 for item in items[::step][:COMPARED_IMAGES]]
    return np.stack(list(decoded(context.store, sha256s, preprocessing.canvas)))
