"""Stage 1: images without labels → an encoder."""

from __future__ import annotations

from core.learning.architecture import Architecture
from core.learning.augmentations import PRESETS
from core.learning.evaluation import require_usable
from core.learning.simclr import SimCLRConfig, pretrain
from core.stages.context import StageContext
from core.stages.outcome import Outcome

PLANNED = (
    "encoder",
    "image_size",
    "channels",
    "views",
    "batch_size",
    "epochs",
    "temperature",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "warmup_epochs",
    "seed",
)


def run_pretrain(context: StageContext) -> Outcome:
    """Train an encoder on all images outside the test split."""
    plan = context.job.plan
    items = [item for item in context.items() if item.split != "test"]
    preprocessing, images_NHWC = context.new_preprocessing(items)
    config = SimCLRConfig(
        **{name: plan[name] for name in PLANNED}, augmentation=PRESETS[plan["augmentation"]]
    )
    encoder = pretrain(images_NHWC, config, preprocessing, run=context.run())
    require_usable(encoder, images_NHWC, preprocessing, device=context.device)
    return Outcome(
        architecture=Architecture(
            encoder=config.encoder,
            image_size=config.image_size,
            channels=config.channels,
            class_count=None,
        ),
        module=encoder.cpu(),
        preprocessing=preprocessing,
        config=config.to_dict(),
        metrics={"images": len(items)},
        classes=[],
        parent=None,
    )
