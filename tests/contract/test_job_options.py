"""What the API offers, what plans decide, and what the learning library takes are the same."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel

from api.schemas import stages
from api.schemas.jobs import FinetuneJobIn, PretrainJobIn
from core.errors import SpecInvalid
from core.jobs.plan import (
    SMALLER,
    DataFacts,
    parent_of,
    plan_distill,
    plan_finetune,
    plan_pretrain,
    stem_for,
)
from core.jobs.plan import finetune as finetune_plan
from core.jobs.plan.memory import SAVED_MB
from core.jobs.plan.network import OWN_ENCODERS, refuse_size
from core.jobs.plan.rates import growth
from core.learning.augmentations import PRESETS
from core.learning.distillation import DistillConfig
from core.learning.encoders import ENCODERS, PRETRAINED, create_encoder, resolve_stem
from core.learning.finetuning import FinetuneConfig
from core.learning.finetuning.config import TRAINABLE_LABELS
from core.learning.losses import LOSSES
from core.learning.optimizers import LR_SCALINGS, OPTIMIZERS, scaled_rate
from core.learning.precision import PRECISIONS
from core.learning.simclr import SimCLRConfig

DATA = DataFacts(
    images=1500, labels_per_class={"a": 30, "b": 40}, greyscale=False, median_short_side=32
)
PRETRAIN = plan_pretrain({"use_labels": True}, DATA, "cpu")
FINETUNE = plan_finetune({}, DATA, "cpu", parent=parent_of(PRETRAIN))
DISTILL = plan_distill({}, DATA, "cpu", parent=parent_of(FINETUNE))
# Not of the training itself: which model to start from, and what else the stage does.
OF_THE_STAGE = {"model_id", "needs", "student", "student_model_id", "baseline", "stage"}
OF_THE_STAGE |= {"dataset_id", "augmentation_strength", "priority", "device"}
OF_THE_NETWORK = {"encoder", "stem", "init", "image_size"}


def choices(model: type[BaseModel], name: str) -> set[Any]:
    """The words and numbers that a field allows, `auto` aside."""

    def literals(kind: Any) -> set[Any]:
        parts = get_args(kind)
        found = {part for part in parts if isinstance(part, str | int)}
        return found.union(*(literals(part) for part in parts if part not in found))

    return literals(model.model_fields[name].annotation) - {"auto"}


def test_the_same_words_everywhere() -> None:
    pretrain, finetune = stages.PretrainOptions, stages.FinetuneOptions
    assert choices(pretrain, "encoder") == set(ENCODERS) == set(SMALLER) == set(SAVED_MB)
    assert choices(stages.DistillOptions, "student") == {*ENCODERS, "same"}
    assert choices(pretrain, "augmentation") == set(PRESETS)
    assert choices(pretrain, "optimizer") == set(OPTIMIZERS)
    assert choices(pretrain, "lr_scaling") == set(LR_SCALINGS)
    assert choices(pretrain, "loss") == set(LOSSES)
    assert choices(pretrain, "precision") == set(PRECISIONS)
    assert set(OWN_ENCODERS) == set(ENCODERS) - set(PRETRAINED)
    assert finetune_plan.TRAINABLE_LABELS == TRAINABLE_LABELS
    config = {"layer": "encoder", "solver": "lbfgs", "class_weights": "none", "method": "full"}
    for name in config:
        for value in choices(finetune, name):
            FinetuneConfig(**{**config, name: value})


@pytest.mark.parametrize(
    ("asked", "plan", "config"),
    [
        (PretrainJobIn, PRETRAIN, SimCLRConfig),
        (FinetuneJobIn, FINETUNE, FinetuneConfig),
        (stages.DistillOptions, DISTILL, DistillConfig),
    ],
)
def test_every_option_is_planned_and_has_an_effect(
    asked: type[BaseModel], plan: dict[str, Any], config: type[Any]
) -> None:
    options = set(asked.model_fields) - OF_THE_STAGE
    taken = {field.name for field in fields(config)}
    # A finetune job with a model has none of its own `init`; it builds its network elsewhere.
    network = set() if config is SimCLRConfig else OF_THE_NETWORK
    assert options - set(plan) <= {"init"} & network
    assert options - taken - network == set()


@pytest.mark.parametrize("scaling", LR_SCALINGS)
def test_the_peak_that_is_shown_is_the_one_of_training(scaling: str) -> None:
    for batch in (32, 256, 1000):
        peak = scaled_rate(0.3, scaling=scaling, batch_size=batch)
        assert 0.3 * growth(scaling, batch) == pytest.approx(peak)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_stem_that_is_shown_is_the_one_that_is_built(encoder: str) -> None:
    for size in (8, 16, 24, 32, 33, 40, 64, 65, 96, 224):
        assert stem_for(encoder, size) == resolve_stem(encoder, image_size=size)


@pytest.mark.parametrize("encoder", ["vit_b_16", "convnext_tiny", "resnet18"])
@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("size", [8, 24, 30, 32, 44, 48, 64, 72])
def test_refused_are_the_sizes_that_cannot_be_built(encoder: str, stem: str, size: int) -> None:
    def built() -> bool:
        try:
            with torch.device("meta"):
                create_encoder(encoder, image_size=size, channels=3, stem=stem)
        except ValueError:
            return False
        return True

    def planned() -> bool:
        try:
            refuse_size(encoder, stem, size)
        except SpecInvalid:
            return False
        return True

    assert built() == planned()
