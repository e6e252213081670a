"""The plan of pre-training: network, loss, labels, memory, and going on from an encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from core.errors import NotEnoughLabels, SpecInvalid
from core.jobs.plan import DataFacts, Device, Parent, parent_of, plan_pretrain
from core.jobs.plan.memory import FINER_UP_TO, SAVED_MB, saved_mb
from core.learning.encoders import create_encoder

DATA = DataFacts(
    images=1500, labels_per_class={"a": 5, "b": 7}, greyscale=True, median_short_side=16
)
ENCODER = Parent("encoder", "resnet18", 48, 3, "imagenet", has_projection=True)


def test_auto_on_small_grey_images_on_a_cpu() -> None:
    plan = plan_pretrain({"epochs": "auto"}, DATA, "cpu")
    assert (plan["image_size"], plan["channels"]) == (16, 1)
    assert (plan["encoder"], plan["stem"], plan["init"]) == ("resnet10", "small", "random")
    assert (plan["loss"], plan["use_labels"], plan["views"]) == ("nt_xent", False, 2)
    assert (plan["projection_layers"], plan["projection_dim"]) == (2, 64)
    assert (plan["augmentation"], plan["augmentation_strength"]) == ("document", 1.0)
    assert plan["batch_size"] >= 128
    assert "auto" not in plan.values()


def test_auto_on_photographs_on_a_gpu() -> None:
    data = replace(DATA, images=50_000, greyscale=False, median_short_side=300)
    plan = plan_pretrain({}, data, "cuda")
    assert (plan["image_size"], plan["encoder"], plan["stem"]) == (224, "resnet50", "imagenet")
    assert (plan["projection_layers"], plan["projection_dim"]) == (3, 128)
    assert (plan["optimizer"], plan["lr_scaling"], plan["augmentation"]) == (
        "lars",
        "sqrt",
        "photo",
    )


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ("temperature", 0.07),
        ("encoder", "mobilenet_v3_small"),
        ("stem", "imagenet"),
        ("image_size", 48),
        ("views", 4),
        ("loss", "dcl"),
        ("projection_dim", 32),
        ("projection_layers", 4),
        ("micro_batch_size", 16),
        ("plateau_patience", 3),
    ],
)
def test_what_is_asked_for_is_kept(asked: str, value: Any) -> None:
    assert plan_pretrain({asked: value}, DATA, "cpu")[asked] == value


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("cpu", {"budget_minutes": 20}, 64),
        ("cpu", {"budget_minutes": 20, "batch_size": 100}, 100),
        ("cpu", {}, 256),
        ("cuda", {"budget_minutes": 20}, 256),
    ],
)
def test_a_time_budget_on_a_cpu_goes_to_more_steps(
    device: Device, options: dict[str, Any], expected: int
) -> None:
    assert plan_pretrain(options, replace(DATA, images=60_000), device)["batch_size"] == expected


def test_few_images_on_purpose() -> None:
    data = replace(DATA, images=20)
    assert plan_pretrain({"batch_size": 20}, data, "cpu")["batch_size"] == 20


@pytest.mark.parametrize(
    ("device", "batch", "views", "expected"),
    [
        ("cpu", 1024, 2, None),
        ("cpu", 1026, 2, 256),
        ("cuda", 1026, 2, 512),
        ("cpu", 256, 8, None),
        ("cpu", 512, 16, 32),
        ("cuda", 65_536, 16, 64),
    ],
)
def test_memory_is_bounded(device: Device, batch: int, views: int, expected: int | None) -> None:
    data = replace(DATA, images=100_000)
    options = {"batch_size": batch, "views": views}
    plan = plan_pretrain(options, data, device)
    assert (plan["micro_batch_size"], plan["batch_size"]) == (expected, batch)
    at_once = plan_pretrain({**options, "micro_batch_size": None}, data, device)
    assert at_once["micro_batch_size"] is None


@pytest.mark.parametrize(
    ("device", "encoder", "size", "expected"),
    [
        ("cpu", "resnet10", 28, None),  # 1.1 MB a view, 512 views
        ("cpu", "resnet10", 64, None),
        ("cpu", "resnet18", 32, None),  # 4.7 MB
        ("cpu", "resnet18", 64, 106),  # 18.8 MB: 212 views
        ("cpu", "resnet18", 224, 90),  # 22.2 MB: 180 views
        ("cpu", "resnet50", 224, 23),  # 86 MB: 46 views
        ("cpu", "resnet50", 512, 4),  # 449 MB: 8 views
        ("cpu", "vit_b_16", 224, 17),  # 117.6 MB: 34 views
        ("cuda", "resnet18", 64, None),
        ("cuda", "resnet50", 224, 139),  # 279 views
    ],
)
def test_memory_grows_with_the_encoder_and_the_image(
    device: Device, encoder: str, size: int, expected: int | None
) -> None:
    options = {"batch_size": 256, "encoder": encoder, "image_size": size}
    plan = plan_pretrain(options, replace(DATA, images=5_000), device)
    assert plan["micro_batch_size"] == expected


@pytest.mark.parametrize("views", [2, 16])
def test_a_part_has_at_least_two_images(views: int) -> None:
    options = {"batch_size": 64, "views": views, "encoder": "wide_resnet50_2", "stem": "small"}
    plan = plan_pretrain({**options, "image_size": 512}, DATA, "cpu")
    assert plan["micro_batch_size"] == 2


@pytest.mark.parametrize(
    ("encoder", "stem", "size"),
    [
        *((name, stem, 64) for name in SAVED_MB for stem in ("small", "imagenet")),
        *((name, "small", 16) for name in FINER_UP_TO),
        ("resnet10", "small", 32),
        ("vit_b_16", "small", 32),
    ],
)
def test_what_a_view_takes_is_what_autograd_keeps(encoder: str, stem: str, size: int) -> None:
    network = create_encoder(encoder, image_size=size, channels=3, stem=stem).train()
    own = {part.data_ptr() for part in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.Tensor] = {}  # by address, alive so that none is used twice

    def keep(saved: torch.Tensor) -> torch.Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        network(torch.zeros(2, 3, size, size))
    storages = [part.untyped_storage() for address, part in kept.items() if address not in own]
    measured = sum(storage.nbytes() for storage in storages) / 2 / 1e6
    estimate = saved_mb({"encoder": encoder, "stem": stem, "image_size": size})
    assert estimate == pytest.approx(measured, rel=0.1)


def test_a_plan_of_the_first_version_leaves_its_network_behind() -> None:
    plan = plan_pretrain({}, DATA, "cpu")
    later = ("stem", "init", "projection_layers", "projection_dim")
    old = {name: value for name, value in plan.items() if name not in later}
    assert parent_of(old) == replace(parent_of(plan), has_projection=False)
    assert parent_of({**old, "image_size": 96}).stem == "imagenet"


def test_a_part_larger_than_the_batch() -> None:
    with pytest.raises(SpecInvalid, match=r"micro_batch_size: found 129.*128 images"):
        plan_pretrain({"batch_size": 128, "micro_batch_size": 129}, DATA, "cpu")


def test_labels_that_take_part() -> None:
    plan = plan_pretrain({"use_labels": True}, DATA, "cpu")
    assert (plan["use_labels"], plan["label_share"], plan["loss"]) == (True, 0.25, "supcon")
    asked = plan_pretrain({"use_labels": True, "label_share": 0.5, "loss": "dcl"}, DATA, "cpu")
    assert (asked["label_share"], asked["loss"]) == (0.5, "dcl")


@pytest.mark.parametrize("labels", [{}, {"a": 9}])
def test_labels_that_are_not_there(labels: dict[str, int]) -> None:
    data = replace(DATA, labels_per_class=labels)
    with pytest.raises(NotEnoughLabels, match=r"use_labels: found.*two classes"):
        plan_pretrain({"use_labels": True}, data, "cpu")
    assert plan_pretrain({}, data, "cpu")["use_labels"] is False


def test_a_share_of_labels_that_do_not_take_part() -> None:
    with pytest.raises(SpecInvalid, match=r"label_share: found 0.5.*use_labels"):
        plan_pretrain({"label_share": 0.5}, DATA, "cpu")


def test_going_on_from_an_encoder_keeps_its_network_and_input() -> None:
    plan = plan_pretrain({}, DATA, "cpu", parent=ENCODER)
    names = ("encoder", "stem", "image_size", "channels")
    assert [plan[name] for name in names] == ["resnet18", "imagenet", 48, 3]
    assert "init" not in plan
    after = parent_of(plan)
    assert after == ENCODER


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "resnet50"}, "encoder: found 'resnet50'.*has 'resnet18'"),
        ({"stem": "small"}, "stem: found 'small'.*has 'imagenet'"),
        ({"image_size": 32}, "image_size: found 32.*has 48"),
        ({"init": "imagenet"}, "init: found 'imagenet', the model"),
    ],
)
def test_an_encoder_that_is_contradicted(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecInvalid, match=words):
        plan_pretrain(options, DATA, "cpu", parent=ENCODER)


def test_weights_from_imagenet() -> None:
    data = replace(DATA, greyscale=False)
    plan = plan_pretrain({"init": "imagenet"}, data, "cpu")
    assert (plan["init"], plan["encoder"]) == ("imagenet", "resnet18")
    with pytest.raises(SpecInvalid, match=r"init: found 'imagenet'.*'resnet10'.*resnet18"):
        plan_pretrain({"init": "imagenet", "encoder": "resnet10"}, data, "cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "vit_b_16", "image_size": 30}, "image_size: found 30.*patches of 4"),
        ({"encoder": "vit_b_16", "image_size": 44}, "image_size: found 44.*patches of 8"),
        ({"encoder": "vit_b_16", "image_size": 72}, "image_size: found 72.*patches of 16"),
        (
            {"encoder": "convnext_tiny", "stem": "imagenet", "image_size": 24},
            "image_size: found 24.*at least 32",
        ),
    ],
)
def test_sizes_that_an_encoder_cannot_take(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecInvalid, match=words):
        plan_pretrain(options, DATA, "cpu")


@pytest.mark.parametrize("side", [8, 33, 100, 216, 400])
def test_the_automatic_size_suits_every_encoder(side: int) -> None:
    data = replace(DATA, median_short_side=side)
    size = plan_pretrain({"encoder": "vit_b_16"}, data, "cuda")["image_size"]
    assert size % (16 if size > 64 else 4) == 0
