"""Multiply-adds against published figures and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import (
    ConvNeXt_Tiny_Weights,
    EfficientNet_B0_Weights,
    ResNet18_Weights,
    ResNet50_Weights,
    ViT_B_16_Weights,
    WeightsEnum,
)

from core.learning.complexity import count_parameters, multiply_adds, throughput
from core.learning.encoders import create_encoder
from core.learning.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet18", ResNet18_Weights.IMAGENET1K_V1),
        ("resnet50", ResNet50_Weights.IMAGENET1K_V1),
        ("efficientnet_b0", EfficientNet_B0_Weights.IMAGENET1K_V1),
        ("convnext_tiny", ConvNeXt_Tiny_Weights.IMAGENET1K_V1),
        ("vit_b_16", ViT_B_16_Weights.IMAGENET1K_V1),
    ],
)
def test_published_figures(name: str, weights: WeightsEnum) -> None:
    with torch.device("meta"):
        encoder = create_encoder(name, image_size=224, channels=3, stem="imagenet")
    found = multiply_adds(encoder, 224, 3)
    assert found == pytest.approx(weights.meta["_ops"] * 1e9, rel=0.01)  # theirs has the head
    with_head = count_parameters(encoder) + (encoder.feature_dim + 1) * 1000
    assert abs(with_head - weights.meta["num_params"]) == 0


def test_resnets_as_the_paper_counts_them() -> None:
    for name, published in (("resnet18", 1.82e9), ("resnet50", 4.09e9)):
        with torch.device("meta"):
            encoder = create_encoder(name, image_size=224, channels=3)
        assert multiply_adds(encoder, 224, 3) == pytest.approx(published, rel=0.01)


def test_closed_form() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.Flatten(),
        nn.Linear(5 * 4 * 4, 7),
    ).train()
    assert multiply_adds(module, 8, 3) == 4 * 4 * 5 * 3 * 9 + 5 * 4 * 4 * 7
    assert count_parameters(module) == 5 * 3 * 9 + 2 * 5 + 5 * 4 * 4 * 7 + 7
    assert module.training
    assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}


@pytest.mark.parametrize("training", [True, False])
def test_throughput_leaves_the_model_as_it_was(training: bool) -> None:
    encoder = create_encoder("resnet10_tiny", image_size=16, channels=1).train(training)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    preprocessing = Preprocessing(image_size=16, channels=1, mean=(0.5,), std=(0.2,))
    assert throughput(encoder, preprocessing) > 0
    assert encoder.training == training
    assert all(torch.equal(before[name], v) for name, v in encoder.state_dict().items())
