"""What the plans of all stages share: whole, with what was asked, refusing what cannot work."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from core.errors import NotEnoughImages, SpecInvalid
from core.jobs.plan import (
    SMALLER,
    DataFacts,
    Device,
    Parent,
    parent_of,
    plan_distill,
    plan_finetune,
    plan_pretrain,
    stem_for,
)
from core.jobs.plan.rates import growth

DATA = DataFacts(
    images=1500, labels_per_class={"a": 5, "b": 7}, greyscale=True, median_short_side=16
)
ENCODER = Parent("encoder", "resnet10", 32, 3, "small", has_projection=True)
CLASSIFIER = Parent("classifier", "resnet18", 32, 1, "small")
PLANS: dict[str, Any] = {
    "pretrain": plan_pretrain,
    "full": partial(plan_finetune, parent=ENCODER),
    "scratch": partial(plan_finetune, parent=None),
    "distill": partial(plan_distill, parent=CLASSIFIER),
}
every_stage = pytest.mark.parametrize("stage", PLANS)


def plan_of(stage: str, data: DataFacts = DATA, device: Device = "cpu", **options: Any) -> Any:
    method = {"method": "full"} if stage == "full" else {}
    return PLANS[stage]({**method, **options}, data, device)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("side", [1, 8, 28, 32, 33, 224, 4000])
@pytest.mark.parametrize("images", [128, 5_000, 1_000_000])
def test_every_plan_is_whole(device: Device, side: int, images: int) -> None:
    data = replace(DATA, images=images, median_short_side=side, greyscale=False)
    pretrain = plan_pretrain({}, data, device)
    finetune = plan_finetune({}, data, device, parent=parent_of(pretrain))
    distill = plan_distill({}, data, device, parent=parent_of(finetune))
    scratch = plan_finetune({}, data, device, parent=None)
    for plan in (pretrain, finetune, distill, scratch):
        assert {name for name, value in plan.items() if value == "auto"} <= {"method", "layer"}
        assert plan["channels"] == 3
        assert plan["device"] == device
    for plan in (pretrain, distill, scratch):
        assert "auto" not in plan.values()
        assert plan["epochs"] >= 1
        assert plan["steps"] == plan["epochs"] * (plan["images"] // plan["batch_size"])
        assert 1 <= plan["batch_size"] <= images
        assert 0 <= plan["warmup_epochs"] <= plan["epochs"] / 10
    sizes = {plan["image_size"] for plan in (pretrain, finetune, distill)}
    assert len(sizes) == 1


@every_stage
@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ("epochs", 7),
        ("batch_size", 8),
        ("learning_rate", 0.5),
        ("weight_decay", 0.0),
        ("warmup_epochs", 3.0),
        ("clip_grad_norm", 2.5),
        ("optimizer", "sgd"),
        ("augmentation", "microscopy"),
        ("augmentation_strength", 0.0),
        ("seed", 9),
    ],
)
def test_what_is_asked_for_is_kept(stage: str, asked: str, value: Any) -> None:
    assert plan_of(stage, **{asked: value})[asked] == value


@every_stage
def test_a_budget_leaves_the_length_open(stage: str) -> None:
    plan = plan_of(stage, budget_minutes=2.5)
    assert (plan["budget_minutes"], plan["epochs"], plan["steps"]) == (2.5, None, None)
    assert plan_of(stage)["budget_minutes"] is None


@every_stage
def test_epochs_and_a_budget_exclude_each_other(stage: str) -> None:
    with pytest.raises(SpecInvalid, match=r"epochs and budget_minutes: found 4 and 2\.5"):
        plan_of(stage, epochs=4, budget_minutes=2.5)


@every_stage
def test_a_warmup_longer_than_the_training(stage: str) -> None:
    assert plan_of(stage, epochs=4, warmup_epochs=4)["warmup_epochs"] == 4
    with pytest.raises(SpecInvalid, match="warmup_epochs: found 5, the job trains 4 epochs"):
        plan_of(stage, epochs=4, warmup_epochs=5)


@every_stage
def test_clipping_is_off_and_can_be_kept_off(stage: str) -> None:
    assert plan_of(stage)["clip_grad_norm"] is None
    assert plan_of(stage, clip_grad_norm=None)["clip_grad_norm"] is None


@pytest.mark.parametrize("stage", ["pretrain", "distill"])
@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (127, {}, r"found 127 images.*at least 128.*batch_size"),
        (0, {}, "found 0 images"),
        (200, {"batch_size": 201}, "batch_size: found 201.*has 200 images.*at most 200"),
        (1, {"batch_size": 2}, "batch_size: found 2"),
    ],
)
def test_too_few_images(stage: str, images: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(NotEnoughImages, match=words):
        plan_of(stage, replace(DATA, images=images), **options)


@pytest.mark.parametrize("stage", ["pretrain", "distill"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("scaling", ["none", "sqrt", "linear"])
def test_scaling_says_how_the_rate_is_meant(stage: str, optimizer: str, scaling: str) -> None:
    own = plan_of(stage, optimizer=optimizer, lr_scaling=scaling, learning_rate=0.1, batch_size=64)
    factor = {"none": 1.0, "sqrt": 0.5, "linear": 0.25}[scaling]
    assert own["learning_rate"] == 0.1
    assert own["peak_learning_rate"] == pytest.approx(0.1 * factor)
    meant = plan_of(stage, optimizer=optimizer, lr_scaling=scaling, batch_size=256)
    assert meant["peak_learning_rate"] == pytest.approx(meant["learning_rate"], rel=1e-3)
    assert plan_of(stage, optimizer=optimizer, learning_rate=0.1)["lr_scaling"] == "none"


@pytest.mark.parametrize("batch", [32, 128, 256, 1024])
def test_the_automatic_rate_of_lars_is_that_of_the_paper(batch: int) -> None:
    plan = plan_of("pretrain", optimizer="lars", batch_size=batch)
    assert (plan["learning_rate"], plan["lr_scaling"]) == (1.2, "sqrt")
    assert plan["peak_learning_rate"] == pytest.approx(0.075 * math.sqrt(batch), rel=1e-3)
    as_it_stands = plan_of("pretrain", optimizer="lars", batch_size=batch, lr_scaling="none")
    assert as_it_stands["learning_rate"] == pytest.approx(0.075 * math.sqrt(batch), rel=1e-3)
    linear = plan_of("pretrain", optimizer="lars", batch_size=batch, lr_scaling="linear")
    assert linear["peak_learning_rate"] == pytest.approx(0.3 * batch / 256, rel=1e-3)


def test_transformers_have_rates_and_clipping_of_their_own() -> None:
    plan = plan_of("pretrain", encoder="vit_b_16", image_size=32)
    assert (plan["optimizer"], plan["weight_decay"], plan["clip_grad_norm"]) == ("adamw", 0.1, 1.0)
    assert plan["peak_learning_rate"] == pytest.approx(1.5e-4 * growth("linear", 128))
    assert plan_of("pretrain", encoder="vit_b_16", optimizer="lars")["clip_grad_norm"] is None


@pytest.mark.parametrize("encoder", SMALLER)
def test_the_student_of_any_encoder_is_known_and_no_longer_grows(encoder: str) -> None:
    chain = [encoder]
    while SMALLER[chain[-1]] != chain[-1]:
        chain.append(SMALLER[chain[-1]])
        assert len(chain) < 6
    assert chain[-1] == "resnet10_tiny"


def test_the_stem_follows_the_size() -> None:
    assert [stem_for("resnet18", size) for size in (8, 64, 65, 224)] == [
        *("small", "small", "imagenet", "imagenet")
    ]
    assert [stem_for("mobilenet_v3_small", size) for size in (32, 40)] == ["small", "imagenet"]


@pytest.mark.parametrize(
    ("given", "device", "planned"),
    [
        ("auto", "cpu", "float32"),
        ("auto", "cuda", "mixed"),
        ("mixed", "cpu", "mixed"),
        ("float32", "cuda", "float32"),
    ],
)
@every_stage
def test_mixed_precision_is_automatic_on_gpus_alone(
    stage: str, given: str, device: Device, planned: str
) -> None:
    assert plan_of(stage, device=device, precision=given)["precision"] == planned
