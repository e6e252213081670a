"""Stage 1: images, most of them without labels → an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.datasets.snapshot import SnapshotItem, Split
from core.learning.architecture import Architecture
from core.learning.augmentations import PRESETS
from core.learning.evaluation import require_usable
from core.learning.launch import pretrain_in_processes
from core.learning.preprocessing import Preprocessing
from core.learning.simclr import Pretrained, SimCLRConfig, pretrain
from core.stages.context import Pixels, StageContext
from core.stages.outcome import Outcome
from core.stages.parent import ParentModel

# What a plan of an older version does not have takes the default.
PLANNED = (
    "encoder",
    "stem",
    "init",
    "image_size",
    "channels",
    "views",
    "loss",
    "use_labels",
    "label_share",
    "temperature",
    "projection_dim",
    "projection_layers",
    "batch_size",
    "micro_batch_size",
    "epochs",
    "budget_minutes",
    "optimizer",
    "learning_rate",
    "lr_scaling",
    "weight_decay",
    "warmup_epochs",
    "clip_grad_norm",
    "precision",
    "plateau_patience",
    "seed",
)


def run_pretrain(context: StageContext) -> Outcome:
    """Train an encoder on all images outside the test split.

    Only labels of the train split are learnt. The encoder is looked at by them, too, unless they
    attract each other: then by those of the validation split, if there are any.
    """
    plan, parent = context.job.plan, context.parent()
    items = [item for item in context.items() if item.split != "test"]
    preprocessing, images_NHWC = _input(context, items, parent)
    config = _config(plan)
    run = replace(context.run(), processes=context.processes(config.batch_size))
    train = pretrain if run.processes == 1 else pretrain_in_processes
    pretrained: Pretrained = train(
        images_NHWC,
        config,
        preprocessing,
        run=run,
        targets_N=_targets(items, "train"),
        probe_targets_N=_targets(items, "validation") if config.use_labels else None,
        encoder=None if parent is None else parent.encoder,
    )
    require_usable(pretrained.encoder, images_NHWC, preprocessing, device=context.device)
    return Outcome(
        architecture=_architecture(config),
        module=pretrained.encoder.cpu(),
        projection=pretrained.projection,
        projection_spec=pretrained.spec,
        preprocessing=preprocessing,
        config=config.to_dict(),
        metrics={
            "images": len(items),
            "processes": run.processes,
            "knows_labels": config.use_labels or (parent is not None and parent.knows_labels),
            "pretraining": pretrained.report,
        },
        classes=[],
        parent=parent,
    )


def _config(plan: Mapping[str, Any]) -> SimCLRConfig:
    augmentation = PRESETS[plan["augmentation"]].scaled(plan.get("augmentation_strength", 1.0))
    return SimCLRConfig(
        **{name: plan[name] for name in PLANNED if name in plan}, augmentation=augmentation
    )


def _architecture(config: SimCLRConfig) -> Architecture:
    return Architecture(
        encoder=config.encoder,
        image_size=config.image_size,
        channels=config.channels,
        class_count=None,
        stem=config.stem,
    )


def _input(
    context: StageContext, items: Sequence[SnapshotItem], parent: ParentModel | None
) -> tuple[Preprocessing, Pixels]:
    if parent is None:
        return context.new_preprocessing(items)
    return parent.preprocessing, context.canvases(items, parent.preprocessing)


def _targets(items: Sequence[SnapshotItem], split: Split) -> NDArray[np.int64] | None:
    """Class of each image of the split that has a label, −1 for all others; None if none has."""
    labels = [item.label if item.split == split else None for item in items]
    classes = sorted({label for label in labels if label is not None})
    if not classes:
        return None
    index = {label: target for target, label in enumerate(classes)}
    return np.array([-1 if label is None else index[label] for label in labels], dtype=np.int64)
