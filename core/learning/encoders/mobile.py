"""Networks of depthwise convolutions: MobileNetV3 (arXiv 1905.02244), EfficientNet (1905.11946)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models import EfficientNet, MobileNetV3, efficientnet_b0

from core.learning.encoders.encoder import Encoder


def mobilenet_v3(build: Callable[..., MobileNetV3], *, channels: int, small: bool) -> Encoder:
    """The features of one of torchvision's MobileNets; the small stem has stride 1."""
    body = build(weights=None, num_classes=1)
    _replace_stem(body, channels, small)
    feature_dim: int = body.classifier[0].in_features
    body.classifier = nn.Identity()
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            # torchvision's 0.01 needs thousands of steps before the running statistics hold.
            module.momentum = 0.1
    return Encoder(body, feature_dim)


def efficientnet(*, channels: int, small: bool) -> Encoder:
    """The features of EfficientNet-B0, without stochastic depth; the small stem has stride 1."""
    body: EfficientNet = efficientnet_b0(weights=None, num_classes=1, stochastic_depth_prob=0.0)
    _replace_stem(body, channels, small)
    feature_dim: int = body.classifier[1].in_features
    body.classifier = nn.Identity()
    return Encoder(body, feature_dim)


def _replace_stem(body: MobileNetV3 | EfficientNet, channels: int, small: bool) -> None:
    stem = body.features[0]
    width: int = stem[0].out_channels
    stem[0] = nn.Conv2d(channels, width, 3, stride=1 if small else 2, padding=1, bias=False)
    nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
