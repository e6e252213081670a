"""Stages go on from the encoder of either kind of model."""

from __future__ import annotations

from uuid import uuid4

import pytest

from core.learning.architecture import Architecture
from core.learning.classifier import Classifier
from core.learning.preprocessing import Preprocessing
from core.stages.parent import ParentModel


def parent(architecture: Architecture) -> ParentModel:
    preprocessing = Preprocessing(image_size=16, channels=1, mean=(0.5,), std=(0.3,))
    return ParentModel(uuid4(), "0" * 64, architecture, architecture.build(), preprocessing, [])


@pytest.mark.parametrize("hidden_dim", [None, 24])
def test_of_a_classifier_only_the_encoder_is_taken(hidden_dim: int | None) -> None:
    found = parent(
        Architecture(
            encoder="resnet10_tiny", image_size=16, channels=1, class_count=3, hidden_dim=hidden_dim
        )
    )
    assert isinstance(found.module, Classifier)
    assert found.encoder is found.module.encoder


def test_an_encoder_is_taken_as_it_is() -> None:
    found = parent(
        Architecture(encoder="resnet10_tiny", image_size=16, channels=1, class_count=None)
    )
    assert found.encoder is found.module
