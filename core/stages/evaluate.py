"""How good a classifier is on a labelled dataset, with and without the images it was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import numpy as np
import torch
from sqlalchemy import select
from torch import Tensor

from core.datasets.cache import decoded
from core.datasets.snapshot import SnapshotItem, load_items
from core.db.models import Model
from core.errors import BlobNotFound, NotEnoughLabels, WrongModelKind
from core.learning.classifier import Classifier
from core.learning.evaluation import (
    count_correct,
    expected_calibration_error,
    predict_logits,
    wilson_interval,
)
from core.stages.context import StageContext
from core.stages.measures import add_by_class
from core.stages.outcome import measured
from core.stages.parent import ParentModel
from core.stages.report import Finding

CHUNK = 256


def run_evaluate(context: StageContext) -> Finding:
    """Compare the model's answers with the labels of the dataset, or of one of its splits.

    Raises:
        WrongModelKind: The model is no classifier.
        NotEnoughLabels: No image of the split has a label of a class that the model knows.
        JobCancelled, LeaseLost: The job is to stop.
    """
    parent = context.parent()
    if parent is None or not isinstance(parent.module, Classifier):
        raise WrongModelKind("model_id: an evaluation needs a classifier")
    split = context.job.plan["split"]
    labelled = [i for i in context.items() if i.label is not None and split in ("all", i.split)]
    items = [item for item in labelled if item.label in set(parent.classes)]
    foreign = Counter(item.label for item in labelled if item.label not in set(parent.classes))
    if not items:
        raise NotEnoughLabels(
            f"split: of {split!r}, {len(labelled)} images have labels, none of them a class of the "
            f"model: {', '.join(parent.classes)[:500]}"
        )
    logits_NK = _logits(context, parent, items)
    index = {name: number for number, name in enumerate(parent.classes)}
    targets_N = torch.tensor([index[cast(str, item.label)] for item in items])
    seen, warnings = _seen(context, parent.model_id)
    seen_N = torch.tensor([item.sha256 in seen for item in items])
    body = {
        "split": split,
        "evaluated": len(items),
        "all": _figures(logits_NK, targets_N, parent.classes, "all labelled images"),
        "unseen": None,
        "seen_in_training": int(seen_N.sum()),
        "unknown_classes": dict(sorted(foreign.items(), key=lambda entry: str(entry[0]))),
        "unknown_images": foreign.total(),
        "warnings": warnings,
    }
    if seen_N.any():
        method = "labelled images that the model was not made from"
        body["unseen"] = _figures(logits_NK[~seen_N], targets_N[~seen_N], parent.classes, method)
        warnings.append(_leak(int(seen_N.sum()), len(items)))
    if foreign:
        correct, total = count_correct(logits_NK, targets_N).correct, len(items) + foreign.total()
        body["accuracy_with_unknown"] = {
            "accuracy": correct / total,
            "interval_95": list(wilson_interval(correct, total)),
            "method": "images of unknown classes count as wrong",
        }
        warnings.append(
            f"{foreign.total()} images have labels of {len(foreign)} classes that the model does "
            "not know; `all` and `unseen` leave them out, `accuracy_with_unknown` counts them."
        )
    return Finding(parent.model_id, body)


def _logits(context: StageContext, parent: ParentModel, items: Sequence[SnapshotItem]) -> Tensor:
    outputs = []
    for start in range(0, len(items), CHUNK):
        chunk = [item.sha256 for item in items[start : start + CHUNK]]
        images_NHWC = np.stack(list(decoded(context.store, chunk, parent.preprocessing.canvas)))
        outputs.append(
            predict_logits(
                cast(Classifier, parent.module),
                images_NHWC,
                parent.preprocessing,
                device=context.device,
                batch_size=context.job.plan["batch_size"],
            )
        )
        context.tell("evaluating", start + len(chunk), len(items))
    return torch.cat(outputs)


def _figures(
    logits_NK: Tensor, targets_N: Tensor, classes: Sequence[str], method: str
) -> dict[str, Any] | None:
    """Accuracy, calibration and the figures of each class; None without images."""
    figures = (
        measured(count_correct(logits_NK, targets_N), method=method) if len(targets_N) else None
    )
    if figures is None:
        return None
    by_class: dict[str, Any] = {"confusion": {}, "per_class": {}}
    add_by_class(by_class, "all", logits_NK, targets_N, classes)
    return {
        **figures,
        "calibration_error": expected_calibration_error(logits_NK, targets_N),
        "confusion": by_class["confusion"]["all"],
        "per_class": by_class["per_class"]["all"],
    }


def _seen(context: StageContext, model_id: UUID) -> tuple[set[str], list[str]]:
    """The images that the model and those it was made from learnt from or were chosen by."""
    seen: set[str] = set()
    warnings: list[str] = []
    following: UUID | None = model_id
    visited: set[UUID] = set()
    while following is not None and following not in visited:
        visited.add(following)
        with context.sessions.begin() as session:
            model = session.scalars(
                select(Model).where(
                    Model.id == following, Model.project_id == context.job.project_id
                )
            ).one_or_none()
        if model is None:
            break
        digest = model.manifest.get("snapshot_sha256")
        try:
            learnt = load_items(context.store, digest) if digest else None
        except BlobNotFound:
            learnt = None
        if learnt is None:
            warnings.append(
                f"What model {model.id} was trained on is not kept any more: whether images of it "
                "are among those evaluated cannot be said."
            )
        else:
            seen |= {item.sha256 for item in learnt if item.split != "test"}
        following = model.parent_id
    return seen, warnings


def _leak(seen: int, total: int) -> str:
    return (
        f"{seen} of {total} evaluated images are among those that the model or one it was made "
        "from was trained or chosen on: `all` flatters it, `unseen` leaves them out."
    )
