"""`auto` becomes values, and what cannot work is refused in words."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from core.errors import NotEnoughImages, NotEnoughLabels, SpecInvalid
from core.jobs.plan import (
    DataFacts,
    Device,
    Parent,
    parent_of,
    plan_distill,
    plan_finetune,
    plan_pretrain,
)

DATA = DataFacts(
    images=1500, labels_per_class={"a": 5, "b": 7}, greyscale=True, median_short_side=16
)
ENCODER = Parent("encoder", "resnet10", 32, 3)
CLASSIFIER = Parent("classifier", "resnet18", 32, 1)


def test_auto_pretraining_of_small_grey_images_on_a_cpu() -> None:
    plan = plan_pretrain({"epochs": "auto"}, DATA, "cpu")
    assert (plan["image_size"], plan["channels"]) == (16, 1)
    assert plan["batch_size"] >= 128
    assert plan["steps"] == plan["epochs"] * (1500 // plan["batch_size"])
    assert "auto" not in plan.values()


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
        assert "auto" not in plan.values()
        assert None not in plan.values()
        assert plan["epochs"] >= 1
        assert 1 <= plan["batch_size"] <= images
        assert plan["channels"] == 3
        assert plan["device"] == device
    sizes = {plan["image_size"] for plan in (pretrain, finetune, distill)}
    assert len(sizes) == 1
    assert (finetune["train"], scratch["train"]) == ("head", "full")


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ("epochs", 7),
        ("batch_size", 32),
        ("learning_rate", 0.5),
        ("weight_decay", 0.0),
        ("temperature", 0.07),
        ("optimizer", "sgd"),
        ("encoder", "mobilenet_v3_small"),
        ("image_size", 48),
        ("views", 4),
        ("seed", 9),
        ("augmentation", "document"),
    ],
)
def test_what_is_asked_for_is_kept(asked: str, value: Any) -> None:
    assert plan_pretrain({asked: value}, DATA, "cpu")[asked] == value


@pytest.mark.parametrize("plan", ["pretrain", "distill"])
@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (127, {}, r"found 127 images.*at least 128.*batch_size"),
        (0, {}, "found 0 images"),
        (200, {"batch_size": 201}, "batch_size: found 201.*has 200 images.*at most 200"),
        (1, {"batch_size": 2}, "batch_size: found 2"),
    ],
)
def test_too_few_images(plan: str, images: int, options: dict[str, Any], words: str) -> None:
    data = replace(DATA, images=images)
    planning = partial(plan_distill, parent=CLASSIFIER) if plan == "distill" else plan_pretrain
    with pytest.raises(NotEnoughImages, match=words):
        planning(options, data, "cpu")


def test_few_images_on_purpose() -> None:
    data = replace(DATA, images=20)
    assert plan_pretrain({"batch_size": 20}, data, "cpu")["batch_size"] == 20


@pytest.mark.parametrize(
    ("labels", "words"), [({}, "found no labels"), ({"a": 9}, r"labels of one class \(9\)")]
)
def test_too_few_classes(labels: dict[str, int], words: str) -> None:
    with pytest.raises(NotEnoughLabels, match=f"{words}.*at least two classes"):
        plan_finetune({}, replace(DATA, labels_per_class=labels), "cpu", parent=ENCODER)


def test_a_class_without_a_label_to_train_on() -> None:
    data = replace(DATA, classes=[*DATA.labels_per_class, "rare"])
    with pytest.raises(NotEnoughLabels, match="'rare' have labels only on validation or test"):
        plan_finetune({}, data, "cpu", parent=ENCODER)


def test_head_without_an_encoder() -> None:
    with pytest.raises(SpecInvalid, match="train: found 'head' without model_id or needs"):
        plan_finetune({"train": "head"}, DATA, "cpu", parent=None)


def test_the_parent_decides_the_input() -> None:
    plan = plan_finetune({}, DATA, "cpu", parent=ENCODER)
    assert (plan["encoder"], plan["image_size"], plan["channels"]) == ("resnet10", 32, 3)
    assert (plan["classes"], plan["images"]) == (2, 12)
    student = plan_distill({}, DATA, "cpu", parent=CLASSIFIER)
    assert (student["encoder"], student["image_size"]) == ("resnet10", 32)
    same = plan_distill({"student": "same"}, DATA, "cpu", parent=CLASSIFIER)
    assert same["encoder"] == "resnet18"
