"""Finetuning and distillation on images that take seconds."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from core.learning.architecture import Architecture
from core.learning.augmentations import AugmentationConfig
from core.learning.classifier import Classifier
from core.learning.distillation import DistillConfig, distill
from core.learning.encoders import Encoder, create_encoder
from core.learning.evaluation import accuracy, predict_logits
from core.learning.finetuning import FinetuneConfig, finetune
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.trainer import Progress, Stopped

Bars = tuple[NDArray[np.uint8], NDArray[np.int64]]

MILD = AugmentationConfig(crop_area=(0.6, 1.0), brightness=0.2, contrast=0.2, jitter=0.8)
FULL = FinetuneConfig(
    method="full",
    from_scratch=True,
    calibrate=False,
    epochs=30,
    batch_size=32,
    augmentation=MILD,
)
DISTILL = DistillConfig(epochs=12, batch_size=60, augmentation=MILD)


def fresh_encoder() -> Encoder:
    torch.manual_seed(0)
    return create_encoder("resnet10_tiny", image_size=8, channels=1)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def teacher(bars: Bars, preprocessing: Preprocessing) -> Classifier:
    images, targets = bars
    config = dataclasses.replace(FULL, epochs=20)
    return finetune(
        images[:160],
        targets[:160],
        fresh_encoder(),
        config,
        preprocessing,
        class_count=4,
        run=Run(),
    ).classifier


def test_head_only_keeps_the_encoder(bars: Bars, preprocessing: Preprocessing) -> None:
    images, targets = bars
    encoder, seen = fresh_encoder(), list[Progress]()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    classifier = finetune(
        images[:80],
        targets[:80],
        encoder,
        FinetuneConfig(method="linear"),
        preprocessing,
        class_count=4,
        run=Run(on_step=seen.append),
    ).classifier
    assert not classifier.training
    assert all(torch.equal(before[name], v) for name, v in classifier.encoder.state_dict().items())
    logits = predict_logits(classifier, images[160:], preprocessing)
    assert accuracy(logits, torch.from_numpy(targets[160:])) > 0.7
    assert [progress.step for progress in seen] == [1]


def test_training_everything_learns(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    images, targets = bars
    logits = predict_logits(teacher, images[160:], preprocessing)
    assert accuracy(logits, torch.from_numpy(targets[160:])) > 0.9


def test_training_everything_leaves_the_given_encoder_alone(
    bars: Bars, preprocessing: Preprocessing
) -> None:
    images, targets = bars
    encoder = fresh_encoder()
    config = dataclasses.replace(FULL, epochs=2)
    classifier = finetune(
        images[:10], targets[:10], encoder, config, preprocessing, class_count=4, run=Run()
    ).classifier
    assert same_weights(encoder, fresh_encoder())
    assert not same_weights(encoder, classifier.encoder)


def test_distillation_needs_no_labels(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    images, targets = bars
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    torch.manual_seed(1)
    student = Architecture(encoder="resnet10_tiny", image_size=8, channels=1, class_count=4).build()
    assert isinstance(student, Classifier)
    seen: list[Progress] = []
    learnt = distill(
        images[:160], teacher, student, DISTILL, preprocessing, run=Run(on_step=seen.append)
    )
    assert all(torch.equal(before[name], v) for name, v in teacher.state_dict().items())
    logits = predict_logits(learnt, images[160:], preprocessing)
    assert accuracy(logits, torch.from_numpy(targets[160:])) > 0.85
    assert seen[-1].metrics["agreement"] > 0.85


def test_a_student_with_other_classes_is_refused(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    student = Architecture(encoder="resnet10_tiny", image_size=8, channels=1, class_count=5).build()
    assert isinstance(student, Classifier)
    with pytest.raises(ValueError, match="found 5 classes, the teacher has 4"):
        distill(bars[0], teacher, student, DISTILL, preprocessing, run=Run())


@pytest.mark.parametrize(
    ("images", "targets", "problem"),
    [
        (slice(0, 9), slice(0, 10), "9 images and 10 targets"),
        (slice(0, 1), slice(0, 1), "1 images"),
    ],
)
def test_images_and_targets_must_fit(
    bars: Bars, preprocessing: Preprocessing, images: slice, targets: slice, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        finetune(
            bars[0][images],
            bars[1][targets],
            fresh_encoder(),
            FULL,
            preprocessing,
            class_count=4,
            run=Run(),
        )


def test_targets_must_be_classes(bars: Bars, preprocessing: Preprocessing) -> None:
    with pytest.raises(ValueError, match="allowed are 0 to 2"):
        finetune(*bars, fresh_encoder(), FULL, preprocessing, class_count=3, run=Run())


@pytest.mark.parametrize("method", ["linear", "prototype", "full", "supcon", "auto"])
def test_finetuning_stops_when_asked(bars: Bars, preprocessing: Preprocessing, method: str) -> None:
    config = dataclasses.replace(FULL, method=method)
    run = Run(should_stop=lambda: True)
    with pytest.raises(Stopped):
        finetune(*bars, fresh_encoder(), config, preprocessing, class_count=4, run=run)


def test_configurations_survive_json() -> None:
    for config in (FULL, DISTILL):
        values = json.loads(json.dumps(config.to_dict()))
        assert type(config).from_dict(values) == config
