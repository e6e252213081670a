"""Random views of images, vectorised over the batch; one generator makes all decisions."""

from core.learning.augmentations.config import AugmentationConfig
from core.learning.augmentations.presets import PRESETS
from core.learning.augmentations.views import augment, prepare

__all__ = ["PRESETS", "AugmentationConfig", "augment", "prepare"]
