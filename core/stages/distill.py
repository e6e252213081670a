"""Stage 3: a classifier teaches a student on all images, and both are measured side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from core.datasets.snapshot import SnapshotItem
from core.errors import SpecInvalid, WrongModelKind
from core.learning.architecture import Architecture
from core.learning.augmentations import PRESETS
from core.learning.classifier import Classifier
from core.learning.comparison import Comparison, compare
from core.learning.determinism import seed_everything
from core.learning.distillation import DistillConfig, distill
from core.learning.evaluation import require_usable, wilson_interval
from core.learning.preprocessing import Preprocessing
from core.stages.context import Pixels, StageContext
from core.stages.labelled import LabelledImages, labelled_images
from core.stages.measures import evaluate
from core.stages.outcome import Outcome

# What a plan of an older version does not have takes the default.
PLANNED = (
    "epochs",
    "batch_size",
    "temperature",
    "alpha",
    "mixup",
    "optimizer",
    "learning_rate",
    "lr_scaling",
    "weight_decay",
    "warmup_epochs",
    "clip_grad_norm",
    "precision",
    "budget_minutes",
    "seed",
)
# Enough for an interval of two points either way, and seconds for a small model.
COMPARED_IMAGES = 2048


UNMEASURED = (
    "The dataset has neither a test nor a validation split with labels: how accurate teacher and "
    "student are was not measured side by side. `agreement` says how far the student follows its "
    "teacher."
)


@dataclass(frozen=True, slots=True)
class Teacher:
    """The job's model; `measured` is what its own job found out about it."""

    module: Classifier
    preprocessing: Preprocessing
    classes: list[str]
    architecture: Architecture
    measured: Mapping[str, Any]


def run_distill(context: StageContext) -> Outcome:
    """Train a student on all images outside the test split.

    Labels are learnt only if `alpha` says so, and then only those of the train split.

    Raises:
        WrongModelKind: The job's model is no classifier.
        SpecInvalid: The student's encoder takes other images than the teacher.
    """
    parent = context.parent()
    if parent is None or not isinstance(parent.module, Classifier):
        raise WrongModelKind("model_id: a distill job needs a classifier as teacher")
    teacher = Teacher(
        parent.module, parent.preprocessing, parent.classes, parent.architecture, parent.metrics
    )
    items = [item for item in context.items() if item.split != "test"]
    images_NHWC = context.canvases(items, teacher.preprocessing)
    config = config_of(context.job.plan)
    architecture, student = _student(context, teacher)
    student = distill(
        images_NHWC,
        teacher.module,
        student,
        config,
        teacher.preprocessing,
        run=context.run(),
        targets_N=train_targets(items, teacher.classes),
    )
    require_usable(student, images_NHWC, teacher.preprocessing, device=context.device)
    labelled = labelled_images(context, teacher.preprocessing, teacher.classes)
    metrics = evaluate(student, labelled, teacher.preprocessing, context.device)
    return Outcome(
        architecture=architecture,
        module=student.cpu(),
        preprocessing=teacher.preprocessing,
        config=config.to_dict(),
        metrics={
            **metrics,
            "images": len(items),
            "knows_labels": True,
            **_side_by_side(context, teacher, student, images_NHWC, labelled),
        },
        classes=teacher.classes,
        parent=parent,
    )


def config_of(plan: Mapping[str, Any]) -> DistillConfig:
    """The training that a plan describes."""
    preset = PRESETS[plan["augmentation"]]
    return DistillConfig(
        **{name: plan[name] for name in PLANNED if name in plan},
        augmentation=preset.scaled(plan.get("augmentation_strength", 1.0)),
    )


def train_targets(items: Sequence[SnapshotItem], classes: Sequence[str]) -> NDArray[np.int64]:
    """Class indices of the labels that may be learnt, -1 for all other images."""
    index = {name: number for number, name in enumerate(classes)}
    return np.array(
        [index.get(item.label or "", -1) if item.split == "train" else -1 for item in items],
        dtype=np.int64,
    )


def _student(context: StageContext, teacher: Teacher) -> tuple[Architecture, Classifier]:
    """The student before training; its head knows nothing yet."""
    plan = context.job.plan
    same = plan["encoder"] == teacher.architecture.encoder
    architecture = Architecture(
        encoder=plan["encoder"],
        image_size=plan["image_size"],
        channels=plan["channels"],
        stem=plan.get("stem", "auto"),
        class_count=len(teacher.classes),
        # The same architecture is all of it, with the layer of the projection head if there is one.
        hidden_dim=teacher.architecture.hidden_dim if same else None,
    )
    seed_everything(plan["seed"])
    student = cast(Classifier, architecture.build())
    if plan.get("student_model_id"):
        given = context.load_model(UUID(plan["student_model_id"]))
        found, needed = given.preprocessing, teacher.preprocessing
        if (found.image_size, found.channels) != (needed.image_size, needed.channels):
            raise SpecInvalid(
                f"student_model_id: found a model for images of {found.image_size} px with "
                f"{found.channels} channels, the teacher's have {needed.image_size} px with "
                f"{needed.channels}; both see the same images"
            )
        student = Classifier(given.encoder, student.head, student.hidden)
    return architecture, student


def _side_by_side(
    context: StageContext,
    teacher: Teacher,
    student: Classifier,
    images_NHWC: Pixels,
    labelled: LabelledImages,
) -> dict[str, Any]:
    """What teacher and student reach and cost, and how often they agree."""
    unseen = [item for item in context.items() if item.split == "test"]
    method = "test split, labelled or not" if unseen else "images of the training"
    compared_NHWC = (
        context.canvases(_spread(unseen), teacher.preprocessing)
        if unseen
        else images_NHWC[:: _stride(len(images_NHWC))]
    )
    comparison = compare(
        teacher.module,
        student,
        compared_NHWC,
        teacher.preprocessing,
        labelled={name: labelled.split(name) for name in ("validation", "test")},
        device=context.device,
    )
    found = side_by_side(comparison, method=method)
    found["teacher"]["cross_validation"] = teacher.measured.get("cross_validation")
    known = any(labelled.count(name) for name in ("validation", "test"))
    return {**found, "warnings": [] if known else [UNMEASURED]}


def side_by_side(comparison: Comparison, *, method: str) -> dict[str, Any]:
    """A comparison as it stands in a manifest; `method` says which images were agreed on."""
    agreed, total = comparison.agreement
    return {
        "teacher": comparison.teacher.to_dict(),
        "student": comparison.student.to_dict(),
        "agreement": {
            "share": agreed / total,
            "interval_95": list(wilson_interval(agreed, total)),
            "agreed": agreed,
            "total": total,
            "method": method,
        },
    }


def _spread(items: Sequence[SnapshotItem]) -> Sequence[SnapshotItem]:
    return items[:: _stride(len(items))]


def _stride(count: int) -> int:
    return -(-count // COMPARED_IMAGES)
