"""Which methods and layers may be tried, and the features of those layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.learning.evaluation import features
from core.learning.finetuning.config import HEAD_METHODS, NETWORK_METHODS, TRAINABLE_LABELS
from core.learning.finetuning.labelled import Labelled
from core.learning.finetuning.setup import Setup


def layer_features(
    setup: Setup, layers: Sequence[str], data: Labelled, *, device: str
) -> dict[str, Tensor]:
    """Features of each layer; the encoder sees the images once."""
    encoder_ND = features(setup.encoder, data.images_NHWC, setup.preprocessing, device=device)
    found = {"encoder": encoder_ND}
    hidden = setup.hidden("projection") if "projection" in layers else None
    if hidden is not None:
        with torch.no_grad():
            found["projection"] = hidden.cpu().eval()(encoder_ND)
    return found


def with_share_of_budget(setup: Setup, trainings: int) -> Setup:
    """A time budget divided by the number of trainings, those outside of this call included."""
    budget = setup.config.budget_minutes
    if budget is None:
        return setup
    share = budget / (trainings + setup.other_trainings)
    return replace(setup, config=replace(setup.config, budget_minutes=share))


def allowed_methods(setup: Setup, data: Labelled) -> list[str]:
    """The method that is asked for, or those that the number of labels allows."""
    config = setup.config
    if config.method != "auto":
        return [config.method]
    counts_K = data.targets_N.bincount()
    trainable = int(counts_K[counts_K > 0].min()) >= TRAINABLE_LABELS
    allowed = config.candidates
    if allowed is None:
        allowed = HEAD_METHODS + (NETWORK_METHODS if trainable else ())
    if config.from_scratch:  # features of random weights are no candidates
        allowed = tuple(name for name in allowed if name in NETWORK_METHODS) or ("full",)
    return [name for name in HEAD_METHODS + NETWORK_METHODS if name in allowed]


def allowed_layers(setup: Setup) -> list[str]:
    """The layer that is asked for, or those that are there.

    Raises:
        ValueError: The one that is asked for is not there.
    """
    layer = setup.config.layer
    if layer == "projection" and setup.projection is None:
        raise ValueError(
            "layer: found 'projection', the encoder comes without a projection head; "
            "allowed is 'encoder'"
        )
    if layer == "auto":
        usable = setup.projection is not None and not setup.config.from_scratch
        return ["encoder", "projection"] if usable else ["encoder"]
    return [layer]
