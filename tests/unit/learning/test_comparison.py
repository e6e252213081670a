"""Teacher and student side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.learning.architecture import Architecture
from core.learning.classifier import Classifier
from core.learning.comparison import compare
from core.learning.evaluation import Score, wilson_interval
from core.learning.preprocessing import Preprocessing

Bars = tuple[NDArray[np.uint8], NDArray[np.int64]]


def random_model(encoder: str, seed: int) -> Classifier:
    torch.manual_seed(seed)
    model = Architecture(encoder=encoder, image_size=8, channels=1, class_count=4).build()
    assert isinstance(model, Classifier)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def test_both_are_measured_alike(bars: Bars, preprocessing: Preprocessing) -> None:
    images, targets = bars
    teacher, student = random_model("resnet10", 0), random_model("resnet10_tiny", 1)
    comparison = compare(
        teacher,
        student,
        images[:50],
        preprocessing,
        labelled={"validation": (images[:0], targets[:0]), "test": (images[50:], targets[50:])},
    )
    inputs_NCHW = preprocessing.normalise(torch.from_numpy(images))
    with torch.no_grad():
        answers = {
            name: model(inputs_NCHW).argmax(dim=1)
            for name, model in (("teacher", teacher), ("student", student))
        }
    agreeing = sum(int(a == b) for a, b in zip(*(x[:50] for x in answers.values()), strict=True))
    assert comparison.agreement == Score(agreeing, 50)
    for name, standing in (("teacher", comparison.teacher), ("student", comparison.student)):
        correct = sum(int(a == b) for a, b in zip(answers[name][50:], targets[50:], strict=True))
        assert standing.scores == {"test": Score(correct, 190)}
        found = standing.to_dict()
        assert found["test"]["interval_95"] == list(wilson_interval(correct, 190))
        assert found["images_per_second"] > 0
        json.dumps(found)
    assert comparison.teacher.parameters > 3 * comparison.student.parameters
    assert comparison.teacher.multiply_adds > 3 * comparison.student.multiply_adds


def test_a_model_agrees_with_itself(bars: Bars, preprocessing: Preprocessing) -> None:
    model = random_model("resnet10_tiny", 0)
    comparison = compare(model, model, bars[0][:9], preprocessing, labelled={})
    assert comparison.agreement.accuracy == 1
    assert comparison.student.scores == {}


def test_agreement_needs_images(bars: Bars, preprocessing: Preprocessing) -> None:
    model = random_model("resnet10_tiny", 0)
    with pytest.raises(ValueError, match="images: found none to compare the answers on"):
        compare(model, model, bars[0][:0], preprocessing, labelled={})
