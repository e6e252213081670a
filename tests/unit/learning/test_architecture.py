"""Modules rebuilt from what their manifest says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from core.learning.architecture import Architecture
from core.learning.checkpoint import load_weights, save_weights
from core.learning.classifier import Classifier
from core.learning.encoders import Encoder, create_encoder
from core.learning.heads import ProjectionHead


def test_classifier_is_encoder_and_head() -> None:
    model = Architecture(encoder="resnet10_tiny", image_size=8, channels=1, class_count=4).build()
    assert isinstance(model, Classifier)
    assert model.hidden is None
    model.eval()
    images_BCHW = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model.forward_features(images_BCHW), model.encoder(images_BCHW))
    torch.testing.assert_close(model(images_BCHW), model.head(model.forward_features(images_BCHW)))


def test_classifier_may_keep_the_first_projection_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = Architecture(
        encoder="resnet10_tiny", image_size=8, channels=1, class_count=4, hidden_dim=24
    )
    projection = ProjectionHead(128, hidden_dim=24, projection_dim=8)
    encoder = create_encoder("resnet10_tiny", image_size=8, channels=1)
    model = Classifier(encoder, torch.nn.Linear(24, 4), projection.first_layer()).eval()
    images_BCHW = torch.rand(3, 1, 8, 8)
    features_BD = model.forward_features(images_BCHW)
    torch.testing.assert_close(features_BD, projection.first_layer()(encoder(images_BCHW)))
    torch.testing.assert_close(model(images_BCHW), model.head(features_BD))

    save_weights(model, tmp_path / "weights.safetensors")
    rebuilt = architecture.build().eval()
    load_weights(rebuilt, tmp_path / "weights.safetensors")
    assert torch.equal(rebuilt(images_BCHW), model(images_BCHW))


def test_a_hidden_layer_belongs_to_a_classifier() -> None:
    with pytest.raises(ValueError, match="hidden_dim: found 24 without class_count"):
        Architecture(
            encoder="resnet10_tiny", image_size=8, channels=1, class_count=None, hidden_dim=24
        )


@pytest.mark.parametrize("class_count", [None, 3])
def test_architecture_survives_json(class_count: int | None) -> None:
    architecture = Architecture(
        encoder="resnet10",
        image_size=16,
        channels=3,
        class_count=class_count,
        stem="imagenet",
        hidden_dim=class_count and 32,
    )
    copy = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
    assert copy == architecture
    assert isinstance(copy.build(), Encoder if class_count is None else Classifier)


@pytest.mark.parametrize(
    ("encoder", "image_size", "stem"),
    [
        ("resnet18", 64, "small"),
        ("resnet18", 96, "imagenet"),
        ("mobilenet_v3_small", 64, "imagenet"),
    ],
)
def test_manifests_without_a_stem_have_the_automatic_one(
    encoder: str, image_size: int, stem: str
) -> None:
    old = {"encoder": encoder, "image_size": image_size, "channels": 3, "class_count": None}
    architecture = Architecture.from_dict(old)
    assert architecture.to_dict() == {**old, "stem": stem, "hidden_dim": None}


def test_the_stem_is_part_of_the_model() -> None:
    for stem, stride in (("small", 1), ("imagenet", 2)):
        encoder = Architecture(
            encoder="resnet18", image_size=32, channels=3, class_count=None, stem=stem
        ).build()
        assert isinstance(encoder, Encoder)
        convolution = encoder.body.get_submodule("conv1")
        assert isinstance(convolution, torch.nn.Conv2d)
        assert convolution.stride == (stride, stride)


def test_unknown_names_are_refused_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="encoder: found 'vgg'"):
        Architecture(encoder="vgg", image_size=8, channels=1, class_count=None)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    small = Architecture(encoder="resnet10_tiny", image_size=16, channels=1, class_count=3)
    large = Architecture(encoder="resnet10", image_size=16, channels=1, class_count=3)
    save_weights(small.build(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors does not hold"):
        load_weights(large.build(), tmp_path / "weights.safetensors")
