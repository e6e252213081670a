"""Stage 3: a classifier teaches a student with random weights on all images."""

from __future__ import annotations

from typing import cast

from core.errors import WrongModelKind
from core.learning.augmentations import PRESETS
from core.learning.classifier import Classifier
from core.learning.determinism import seed_everything
from core.learning.distillation import DistillConfig, distill
from core.learning.evaluation import require_usable
from core.stages.context import StageContext
from core.stages.finetune import architecture_of, evaluate, labelled_images
from core.stages.outcome import Outcome

PLANNED = (
    "epochs",
    "batch_size",
    "temperature",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "warmup_epochs",
    "seed",
)


def run_distill(context: StageContext) -> Outcome:
    """Train a student on all images outside the test split; labels serve only to measure it.

    Raises:
        WrongModelKind: The job's model is no classifier.
    """
    plan = context.job.plan
    parent = context.parent()
    if parent is None or not isinstance(parent.module, Classifier):
        raise WrongModelKind("model_id: a distill job needs a classifier as teacher")
    items = [item for item in context.items() if item.split != "test"]
    images_NHWC = context.canvases(items, parent.preprocessing)
    config = DistillConfig(
        **{name: plan[name] for name in PLANNED}, augmentation=PRESETS[plan["augmentation"]]
    )
    architecture = architecture_of(plan, parent.classes)
    seed_everything(config.seed)
    student = distill(
        images_NHWC,
        parent.module,
        cast(Classifier, architecture.build()),
        config,
        parent.preprocessing,
        run=context.run(),
    )
    require_usable(student, images_NHWC, parent.preprocessing, device=context.device)
    labelled = labelled_images(context, parent.preprocessing, parent.classes)
    metrics = evaluate(student, labelled, parent.preprocessing, context.device)
    return Outcome(
        architecture=architecture,
        module=student.cpu(),
        preprocessing=parent.preprocessing,
        config=config.to_dict(),
        metrics={**metrics, "images": len(items)},
        classes=parent.classes,
        parent=parent,
    )
