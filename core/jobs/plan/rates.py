"""Optimizer, learning rate, weight decay and clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from core.jobs.plan.facts import Device, Plan
from core.jobs.plan.options import Options, choose, is_given

BASE_BATCH = 256
# Built like transformers: AdamW with rates of their own.
TRANSFORMERS = ("vit_b_16", "convnext_tiny")
TRANSFORMER_DECAY = 0.1  # arXiv 2104.02057, section 5
CLIPPED = {"vit_b_16": 1.0}  # arXiv 2010.11929, B.1


@dataclass(frozen=True, slots=True)
class Rate:
    """A peak learning rate (scaling "none"), or one for a batch of 256 and how it grows."""

    rate: float
    scaling: str = "none"


# LARS: 0.075 times the root of the batch (arXiv 2002.05709, table B.1) is 1.2 for 256 images.
# A transformer's AdamW: arXiv 2104.02057, section 5.
PRETRAIN = {
    "adamw": Rate(2e-3),
    "sgd": Rate(0.03, "linear"),
    "lars": Rate(1.2, "sqrt"),
    "transformer": Rate(1.5e-4, "linear"),
}
ANEW = PRETRAIN | {"adamw": Rate(3e-3)}  # distillation, and labels alone
# On a pre-trained encoder: arXiv 2002.05709, B.5 for SGD; 0.005 times the root of the batch, as
# SimCLRv2's authors ran it, for LARS.
FURTHER = {
    "adamw": Rate(3e-3),
    "sgd": Rate(0.05, "linear"),
    "lars": Rate(0.08, "sqrt"),
    "transformer": Rate(1e-3),
}
LARS_LINEAR = 0.3  # arXiv 2002.05709, section 2.3


def optimizer_plan(
    options: Options,
    *,
    encoder: str,
    batch: int,
    rates: Mapping[str, Rate],
    weight_decay: float,
    automatic: str = "adamw",
) -> Plan:
    """Optimizer, learning rate with its scaling and the peak that comes out, decay, clipping."""
    transformer = encoder in TRANSFORMERS
    optimizer = choose(options, "optimizer", "adamw" if transformer else automatic)
    recipe = rates["transformer" if transformer and optimizer == "adamw" else optimizer]
    own_rate = is_given(options, "learning_rate")
    scaling = choose(options, "lr_scaling", "none" if own_rate else recipe.scaling)
    rate = choose(options, "learning_rate", _rate(recipe, optimizer, scaling, batch))
    # LARS already makes every layer's step small beside its weights.
    clip = CLIPPED.get(encoder) if optimizer != "lars" else None
    return {
        "optimizer": optimizer,
        "learning_rate": rate,
        "lr_scaling": scaling,
        "peak_learning_rate": _short(rate * growth(scaling, batch)),
        "weight_decay": choose(
            options, "weight_decay", TRANSFORMER_DECAY if transformer else weight_decay
        ),
        "clip_grad_norm": choose(options, "clip_grad_norm", clip),
    }


def precision(options: Options, device: Device) -> str:
    """Mixed by itself on GPUs only: a CPU that has bfloat16 may have it for one busy core alone."""
    chosen: str = choose(options, "precision", "mixed" if device == "cuda" else "float32")
    return chosen


def growth(scaling: str, batch: int) -> float:
    """What a scaled rate is multiplied with."""
    share = batch / BASE_BATCH
    return {"none": 1.0, "sqrt": math.sqrt(share), "linear": share}[scaling]


def _rate(recipe: Rate, optimizer: str, scaling: str, batch: int) -> float:
    if scaling == "none":
        return _short(recipe.rate * growth(recipe.scaling, batch))
    if optimizer == "lars" and scaling == "linear":
        return _short(LARS_LINEAR * recipe.rate / PRETRAIN["lars"].rate)
    return recipe.rate


def _short(rate: float) -> float:
    return float(f"{rate:.4g}")
