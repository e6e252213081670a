"""The plan of finetuning: methods, what they use, labels, and what starts from what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.errors import NotEnoughLabels, SpecInvalid
from core.jobs.plan import DataFacts, Parent, Plan, parent_of, plan_finetune, plan_pretrain

FEW = DataFacts(
    images=1500, labels_per_class={"a": 5, "b": 7}, greyscale=True, median_short_side=16
)
MANY = replace(FEW, labels_per_class={"a": 20, "b": 40})
ENCODER = Parent("encoder", "resnet10", 32, 3, "small", has_projection=True)
BARE = replace(ENCODER, has_projection=False)
TRAINING = {"epochs", "batch_size", "learning_rate", "encoder_learning_rate", "augmentation"}


def plan_of(data: DataFacts = FEW, parent: Parent | None = ENCODER, **options: Any) -> Plan:
    return plan_finetune(options, data, "cpu", parent=parent)


def test_the_labels_decide_between_which_methods() -> None:
    few, many = plan_of(), plan_of(MANY)
    assert (few["method"], few["candidates"]) == ("auto", ["linear", "prototype"])
    assert many["candidates"] == ["linear", "prototype", "full", "supcon"]
    assert not TRAINING & set(few)
    assert set(many) >= TRAINING
    assert plan_of(replace(MANY, labels_per_class={"a": 19, "b": 90}))["candidates"] == [
        *("linear", "prototype")
    ]


@pytest.mark.parametrize(
    ("method", "used", "unused"),
    [
        ("linear", {"solver", "class_weights", "calibrate", "layer"}, {"temperature", *TRAINING}),
        ("prototype", {"calibrate", "layer"}, {"solver", "class_weights", *TRAINING}),
        ("full", {"label_smoothing", "layer", *TRAINING}, {"temperature", "solver"}),
        ("supcon", {"temperature", "solver", "layer", *TRAINING}, {"label_smoothing"}),
    ],
)
def test_only_options_that_are_used_are_listed(
    method: str, used: set[str], unused: set[str]
) -> None:
    plan = plan_of(method=method)
    assert set(plan) >= used
    assert not unused & set(plan)
    assert "candidates" not in plan


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("linear", {"epochs": 3}),
        ("linear", {"augmentation": "small"}),
        ("linear", {"label_smoothing": 0.1}),
        ("prototype", {"solver": "lbfgs"}),
        ("full", {"temperature": 0.2}),
        ("supcon", {"label_smoothing": 0.1}),
    ],
)
def test_options_without_effect_are_refused(method: str, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(SpecInvalid, match=f"{name}: found .*method '{method}' does not use"):
        plan_of(method=method, **options)
    assert plan_of(MANY, **options)["method"] == "auto"


def test_the_layer_stays_open_where_there_are_two() -> None:
    assert plan_of()["layer"] == "auto"
    assert plan_of(layer="projection")["layer"] == "projection"
    assert plan_of(parent=BARE)["layer"] == plan_of(parent=None)["layer"] == "encoder"
    pretrained = parent_of(plan_pretrain({}, FEW, "cpu"))
    assert plan_of(parent=pretrained)["layer"] == "auto"


@pytest.mark.parametrize(
    ("parent", "words"), [(BARE, "a model without one"), (None, "without model_id or needs")]
)
def test_a_projection_that_is_not_there(parent: Parent | None, words: str) -> None:
    with pytest.raises(SpecInvalid, match=f"layer: found 'projection' .*{words}"):
        plan_of(parent=parent, layer="projection")


def test_from_scratch() -> None:
    plan = plan_of(parent=None)
    assert (plan["method"], plan["from_scratch"], plan["layer"]) == ("full", True, "encoder")
    assert plan["encoder_learning_rate"] == plan["learning_rate"] == 3e-3
    assert plan_of(parent=None, method="supcon")["method"] == "supcon"


@pytest.mark.parametrize("method", ["linear", "prototype"])
def test_random_weights_that_stay(method: str) -> None:
    with pytest.raises(SpecInvalid, match=f"method: found '{method}' without model_id or needs"):
        plan_of(parent=None, method=method)


def test_imagenet_instead_of_a_model() -> None:
    plan = plan_of(parent=None, init="imagenet")
    assert (plan["init"], plan["from_scratch"], plan["method"]) == ("imagenet", False, "auto")
    assert plan_of(parent=None, init="imagenet", method="linear")["encoder"] == "resnet18"


def test_a_pretrained_encoder_learns_slower() -> None:
    plan = plan_of(method="full")
    assert plan["encoder_learning_rate"] == pytest.approx(plan["learning_rate"] / 10)
    assert plan_of(method="full", learning_rate=0.5)["encoder_learning_rate"] == 0.05
    asked = plan_of(method="full", encoder_learning_rate=0.2)
    assert asked["encoder_learning_rate"] == 0.2
    sgd = plan_of(method="full", optimizer="sgd")
    assert sgd["encoder_learning_rate"] == sgd["learning_rate"]
    assert sgd["learning_rate"] == pytest.approx(0.05 * 12 / 256, rel=1e-3)


def test_a_batch_of_all_labels_at_most() -> None:
    assert plan_of(method="full")["batch_size"] == 12
    assert plan_of(replace(MANY, labels_per_class={"a": 99, "b": 99}))["batch_size"] == 64
    with pytest.raises(SpecInvalid, match="batch_size: found 13, the dataset has 12 labels"):
        plan_of(method="full", batch_size=13)


def test_rare_classes() -> None:
    def weights(a: int, b: int) -> str:
        return str(plan_of(replace(FEW, labels_per_class={"a": a, "b": b}))["class_weights"])

    assert [weights(5, 15), weights(5, 16), weights(16, 5)] == ["none", "balanced", "balanced"]
    assert plan_of(class_weights="balanced")["class_weights"] == "balanced"


def test_very_many_labels() -> None:
    data = replace(FEW, labels_per_class={"a": 50_000, "b": 50_001})
    assert (plan_of()["solver"], plan_of(data)["solver"]) == ("lbfgs", "sgd")


@pytest.mark.parametrize(("each", "solver"), [(4, "lbfgs"), (5, "sgd")])
def test_labels_times_classes_decide_on_the_solver(each: int, solver: str) -> None:
    data = replace(FEW, labels_per_class={f"c{number}": each for number in range(500)})
    assert plan_of(data)["solver"] == solver
    assert plan_of(data, solver="lbfgs")["solver"] == "lbfgs"


def test_the_baseline_has_a_plan_of_its_own() -> None:
    plan = plan_of(method="linear", baseline=True, epochs=7, encoder_learning_rate=0.2)
    assert "epochs" not in plan
    beside = plan["baseline_plan"]
    assert (beside["method"], beside["from_scratch"], beside["init"]) == ("full", True, "random")
    assert beside["epochs"] == 7
    assert beside["encoder_learning_rate"] == beside["learning_rate"] == 3e-3
    assert [beside[n] for n in ("encoder", "stem", "image_size")] == ["resnet10", "small", 32]
    assert not plan_of()["baseline"]
    with pytest.raises(SpecInvalid, match="baseline: found true"):
        plan_of(parent=None, baseline=True)


@pytest.mark.parametrize(
    ("labels", "words"), [({}, "found no labels"), ({"a": 9}, r"labels of one class \(9\)")]
)
def test_too_few_classes(labels: dict[str, int], words: str) -> None:
    with pytest.raises(NotEnoughLabels, match=f"{words}.*at least two classes"):
        plan_of(replace(FEW, labels_per_class=labels))


def test_a_class_without_a_label_to_train_on() -> None:
    data = replace(FEW, classes=[*FEW.labels_per_class, "rare"])
    with pytest.raises(NotEnoughLabels, match="'rare' have labels only on validation or test"):
        plan_of(data)


def test_the_parent_decides_the_input() -> None:
    plan = plan_of()
    names = ("encoder", "stem", "image_size", "channels")
    assert [plan[name] for name in names] == ["resnet10", "small", 32, 3]
    assert (plan["classes"], plan["images"]) == (2, 12)
    with pytest.raises(SpecInvalid, match=r"image_size: found 64.*has 32"):
        plan_of(image_size=64)
