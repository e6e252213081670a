"""Stage 1: contrastive pre-training on images with few labels or none (arXiv 2002.05709)."""

from core.learning.simclr.config import SimCLRConfig
from core.learning.simclr.pretraining import Pretrained, pretrain
from core.learning.simclr.task import SimCLRTask

__all__ = ["Pretrained", "SimCLRConfig", "SimCLRTask", "pretrain"]
