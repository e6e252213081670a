"""Encoders, heads and architectures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet

from core.learning.architecture import Architecture
from core.learning.checkpoint import load_weights, save_weights
from core.learning.classifier import Classifier
from core.learning.encoders import ENCODERS, Encoder, build_encoder
from core.learning.heads import ProjectionHead


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("image_size", "channels"), [(8, 1), (32, 3), (96, 3)])
def test_features_have_the_stated_size(name: str, image_size: int, channels: int) -> None:
    encoder = build_encoder(name, image_size=image_size, channels=channels)
    features_BD = encoder(torch.rand(2, channels, image_size, image_size))
    assert features_BD.shape == (2, encoder.feature_dim)
    assert features_BD.isfinite().all()


def test_unknown_encoder() -> None:
    with pytest.raises(ValueError, match="'vgg'"):
        build_encoder("vgg", image_size=32, channels=3)


def test_stem_keeps_small_images_large() -> None:
    for image_size, stride in ((32, 1), (224, 2)):
        body = build_encoder("resnet18", image_size=image_size, channels=3).body
        assert isinstance(body, ResNet)
        assert body.conv1.stride == (stride, stride)
        assert isinstance(body.maxpool, torch.nn.Identity) == (image_size == 32)


def test_classifier_is_encoder_and_head() -> None:
    model = Architecture(encoder="resnet10_tiny", image_size=8, channels=1, class_count=4).build()
    assert isinstance(model, Classifier)
    model.eval()
    images = torch.rand(3, 1, 8, 8)
    assert model(images).shape == (3, 4)
    torch.testing.assert_close(model(images), model.head(model.forward_features(images)))


def test_architecture_round_trip() -> None:
    architecture = Architecture(encoder="resnet10", image_size=16, channels=3, class_count=None)
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture
    assert isinstance(architecture.build(), Encoder)


def test_projection_head() -> None:
    head = ProjectionHead(8, hidden_dim=16, projection_dim=4)
    assert head(torch.rand(5, 8)).shape == (5, 4)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_survive_a_file(name: str, tmp_path: Path) -> None:
    architecture = Architecture(encoder=name, image_size=16, channels=1, class_count=3)
    model, copy = architecture.build().eval(), architecture.build().eval()
    save_weights(model, tmp_path / "weights.safetensors")
    load_weights(copy, tmp_path / "weights.safetensors")
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(model(images), copy(images))
    for one, other in zip(model.state_dict().values(), copy.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    small = Architecture(encoder="resnet10_tiny", image_size=16, channels=1, class_count=3)
    large = Architecture(encoder="resnet10", image_size=16, channels=1, class_count=3)
    save_weights(small.build(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors does not hold"):
        load_weights(large.build(), tmp_path / "weights.safetensors")
