"""Encoders: shapes, gradients, stems, seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from core.learning.checkpoint import load_weights, save_weights
from core.learning.encoders import (
    ENCODERS,
    PRETRAINED,
    STEMS,
    Encoder,
    create_encoder,
    resolve_stem,
)

FEATURE_DIM = {
    "resnet10_tiny": 128,
    "resnet10": 256,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "wide_resnet50_2": 2048,
    "mobilenet_v3_small": 576,
    "mobilenet_v3_large": 960,
    "efficientnet_b0": 1280,
    "convnext_tiny": 768,
    "vit_b_16": 768,
}
# The two largest are built as resnet50 is: their shapes are looked at, no values.
COMPUTED = [name for name in ENCODERS if name not in ("resnet101", "wide_resnet50_2")]
MOBILE = ("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")


def seeded(name: str, seed: int) -> Encoder:
    torch.manual_seed(seed)
    return create_encoder(name, image_size=16, channels=1)


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(
        torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True)
    )


@pytest.mark.parametrize("image_size", [8, 32, 64, 96])
@pytest.mark.parametrize("name", ENCODERS)
def test_features_have_the_stated_size(name: str, image_size: int) -> None:
    for channels in (1, 3):
        with torch.device("meta"):  # shapes only
            encoder = create_encoder(name, image_size=image_size, channels=channels)
            features_BD = encoder(torch.empty(2, channels, image_size, image_size))
        assert features_BD.shape == (2, encoder.feature_dim)
        assert encoder.feature_dim == FEATURE_DIM[name]


@pytest.mark.parametrize("name", COMPUTED)
def test_every_weight_gets_a_finite_gradient(name: str) -> None:
    torch.manual_seed(0)
    encoder = create_encoder(name, image_size=16, channels=3).train()
    images_BCHW = torch.rand(3, 3, 16, 16)
    features_BD = encoder(images_BCHW)
    (features_BD * torch.randn_like(features_BD)).sum().backward()
    for weight_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, weight_name
        assert parameter.grad.isfinite().all(), weight_name


@pytest.mark.parametrize("name", COMPUTED)
def test_training_draws_no_random_numbers(name: str) -> None:
    torch.manual_seed(0)
    encoder = create_encoder(name, image_size=8, channels=1).train()
    images_BCHW, state = torch.rand(4, 1, 8, 8), torch.get_rng_state()
    with torch.no_grad():
        first, second = encoder(images_BCHW), encoder(images_BCHW)
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", COMPUTED)
def test_weights_come_from_the_seed_and_survive_a_file(name: str, tmp_path: Path) -> None:
    encoder, other = seeded(name, 0), seeded(name, 1)
    assert same(encoder, seeded(name, 0))
    assert not same(encoder, other)
    save_weights(encoder, tmp_path / "weights.safetensors")
    load_weights(other, tmp_path / "weights.safetensors")
    assert same(encoder, other)


@pytest.mark.parametrize("name", ENCODERS)
def test_auto_is_the_small_stem_for_small_images(name: str) -> None:
    limit = 32 if name in MOBILE else 64
    assert resolve_stem(name, image_size=limit) == "small"
    assert resolve_stem(name, image_size=limit + 1) == "imagenet"
    for stem in ("small", "imagenet"):
        assert resolve_stem(name, image_size=limit, stem=stem) == stem


@pytest.mark.parametrize("name", ENCODERS)
def test_the_small_stem_reduces_less(name: str) -> None:
    reductions = {}
    for stem in ("small", "imagenet"):
        with torch.device("meta"):
            body = create_encoder(name, image_size=64, channels=3, stem=stem).body
        strides = [m.stride for m in body.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
        first = strides[0][0] if isinstance(strides[0], tuple) else strides[0]
        pools = [m for m in body.modules() if isinstance(m, nn.MaxPool2d)]
        reductions[stem] = first * 2 ** len(pools)
    assert reductions["small"] * 2 <= reductions["imagenet"]


def test_only_the_narrow_resnets_have_no_imagenet_weights() -> None:
    assert set(ENCODERS) - set(PRETRAINED) == {"resnet10_tiny", "resnet10"}


@pytest.mark.parametrize(
    ("name", "image_size", "stem", "allowed"),
    [
        ("vit_b_16", 30, "auto", "found 30, .* multiples of 4 up to 32 and of 8 above"),
        ("vit_b_16", 36, "auto", "found 36, .* of 8 above"),
        ("vit_b_16", 100, "auto", "found 100, .* multiples of 16"),
        ("vit_b_16", 24, "imagenet", "found 24, .* multiples of 16"),
        ("convnext_tiny", 7, "auto", "found 7, .* at least 8"),
        ("convnext_tiny", 31, "imagenet", "found 31, .* at least 32"),
    ],
)
def test_image_sizes_that_do_not_fit(name: str, image_size: int, stem: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"image_size: {allowed}"):
        create_encoder(name, image_size=image_size, channels=3, stem=stem)


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder: found 'vgg', allowed are resnet10_tiny, "):
        create_encoder("vgg", image_size=32, channels=3)
    with pytest.raises(ValueError, match=f"stem: found 'big', allowed are {', '.join(STEMS)}"):
        create_encoder("resnet18", image_size=32, channels=3, stem="big")
    with pytest.raises(ValueError, match="init: found 'zero', allowed are random, imagenet"):
        create_encoder("resnet18", image_size=32, channels=3, init="zero")
    with pytest.raises(ValueError, match="channels: found 4, allowed are 1 and 3"):
        create_encoder("resnet18", image_size=32, channels=4)
    with pytest.raises(ValueError, match="no such weights of resnet10; there are for resnet18, "):
        create_encoder("resnet10", image_size=32, channels=3, init="imagenet")
