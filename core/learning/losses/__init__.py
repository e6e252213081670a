"""Losses; logits are always compared in float32 at least."""

from core.learning.losses.contrastive import (
    LOSSES,
    Keys,
    chance_loss,
    contrastive_loss,
    nt_xent,
)
from core.learning.losses.distillation import distillation_loss
from core.learning.losses.groups import view_groups

__all__ = [
    "LOSSES",
    "Keys",
    "chance_loss",
    "contrastive_loss",
    "distillation_loss",
    "nt_xent",
    "view_groups",
]
