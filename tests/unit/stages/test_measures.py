"""Measures by class, as they stand in a manifest."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from core.datasets.snapshot import SnapshotItem, Split
from core.learning.architecture import Architecture
from core.learning.classifier import Classifier
from core.learning.preprocessing import Preprocessing
from core.stages import measures
from core.stages.baseline import config_of
from core.stages.labelled import with_targets
from core.stages.measures import add_by_class, evaluate

CLASSES = ("bolt", "nut", "screw")


def by_class(true: list[int], named: list[int]) -> dict[str, Any]:
    metrics: dict[str, Any] = {"confusion": {}, "per_class": {}}
    logits = functional.one_hot(torch.tensor(named), 3).float()
    add_by_class(metrics, "test", logits, torch.tensor(true), CLASSES)
    return metrics


def test_classes_are_named_and_empty_cells_left_out() -> None:
    metrics = by_class([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])
    assert metrics["confusion"]["test"] == {"bolt": {"bolt": 2, "nut": 1}, "nut": {"nut": 2}}
    bolt = metrics["per_class"]["test"]["bolt"]
    assert (bolt["precision"], bolt["recall"], bolt["support"]) == (1.0, 2 / 3, 3)
    assert bolt["recall_interval_95"][0] < 2 / 3 < bolt["recall_interval_95"][1]
    screw = metrics["per_class"]["test"]["screw"]
    assert (screw["recall"], screw["recall_interval_95"], screw["support"]) == (None, None, 0)
    assert json.loads(json.dumps(metrics)) == metrics


def test_a_large_matrix_keeps_its_fullest_cells(monkeypatch: Any) -> None:
    monkeypatch.setattr(measures, "MOST_CELLS", 2)
    metrics = by_class([0, 0, 0, 1, 2, 2], [0, 0, 0, 0, 2, 2])
    assert metrics["confusion"]["test"] == {"bolt": {"bolt": 3}, "screw": {"screw": 2}}


def test_every_split_with_labels_is_measured() -> None:
    train: list[Split] = ["train"] * 6
    test: list[Split] = ["test"] * 3
    items = [
        SnapshotItem(sha256=f"{row:064d}", label=CLASSES[row % 3], split=split)
        for row, split in enumerate(train + test)
    ]
    images = np.zeros((9, 16, 16, 1), np.uint8)
    labelled = with_targets(items, images, CLASSES)
    assert labelled.targets_N.tolist() == [0, 1, 2] * 3
    torch.manual_seed(0)
    model = Architecture(encoder="resnet10_tiny", image_size=16, channels=1, class_count=3).build()
    assert isinstance(model, Classifier)
    preprocessing = Preprocessing(image_size=16, channels=1, mean=(0.5,), std=(0.25,))
    metrics = evaluate(model.eval(), labelled, preprocessing, "cpu")
    assert metrics["labels"] == 6
    assert metrics["validation"] is None
    # All images are the same, so one class of three is right.
    assert (metrics["test"]["correct"], metrics["test"]["total"]) == (1, 3)
    assert set(metrics["per_class"]) == set(metrics["confusion"]) == {"test"}


def test_a_split_that_stands_together_is_not_copied() -> None:
    splits: list[Split] = ["train", "train", "validation", "test", "test"]
    items = [
        SnapshotItem(sha256=f"{row:064d}", label=CLASSES[row % 3], split=split)
        for row, split in enumerate(splits)
    ]
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    together = with_targets(items, images, CLASSES)
    apart = with_targets(items[::-2] + items[1::2], images[[4, 2, 0, 1, 3]], CLASSES)
    for split in ("train", "validation", "test"):
        rows, targets = together.split(split)
        assert np.shares_memory(rows, images)
        others, of_others = apart.split(split)
        assert sorted(rows.ravel()) == sorted(others.ravel())
        assert sorted(targets) == sorted(of_others)
        assert together.count(split) == apart.count(split) == len(rows)


def test_a_plan_becomes_a_configuration() -> None:
    plan = {
        "stage": "finetune",
        "encoder": "resnet10",
        "method": "auto",
        "candidates": ["linear", "full"],
        "epochs": None,
        "budget_minutes": 3.0,
        "augmentation": "document",
        "augmentation_strength": 0.0,
        "seed": 4,
    }
    config = config_of(plan)
    assert (config.method, config.candidates, config.seed) == ("auto", ("linear", "full"), 4)
    assert config.budget_minutes == 3.0
    assert config.augmentation.jitter == 0 or config.augmentation.brightness == 0
    assert config_of({"train": "full"}).method == "full"
    assert config_of({"train": "head"}).method == "linear"
