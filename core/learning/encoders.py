"""Encoders: images to feature vectors, no head, random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV3, ResNet, mobilenet_v3_small
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

# Up to this size an encoder made for 224 px keeps the resolution in its stem: SimCLR (arXiv
# 2002.05709, B.9) on 32 px; with the stem for ImageNet kNN accuracy there falls by ten points.
SMALL_IMAGE = 64


class Encoder(nn.Module):
    """An encoder of any architecture: BCHW images to B x feature_dim features."""

    def __init__(self, body: nn.Module, feature_dim: int) -> None:
        super().__init__()
        # On CPUs, too, convolutions are faster by a fifth to a half with channels last.
        self.body = body.to(memory_format=torch.channels_last)
        self.feature_dim = feature_dim

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Features, (B, feature_dim)."""
        features_BD: Tensor = self.body(images_BCHW.contiguous(memory_format=torch.channels_last))
        return features_BD


def build_encoder(name: str, *, image_size: int, channels: int) -> Encoder:
    """A randomly initialised encoder whose stem suits the image size.

    Args:
        name: One of `ENCODERS`.
        image_size: Side length in pixels that it will be trained on.
        channels: Channels of its input, 1 or 3.

    Raises:
        ValueError: There is no encoder of this name.
    """
    if name not in BUILDERS:
        raise ValueError(f"encoder: found {name!r}, allowed are {', '.join(ENCODERS)}")
    return BUILDERS[name](image_size, channels)


def _narrow_resnet(widths: tuple[int, ...], image_size: int, channels: int) -> Encoder:
    """One basic block a stage: for CPUs, where the first stages cost most."""
    layers: list[nn.Module] = [
        nn.Conv2d(
            channels, widths[0], 3, stride=2 if image_size >= 32 else 1, padding=1, bias=False
        ),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(inplace=True),
    ]
    if image_size > SMALL_IMAGE:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    width_in = widths[0]
    for stage, width in enumerate(widths):
        layers.append(_basic_block(width_in, width, stride=1 if stage == 0 else 2))
        width_in = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    body = nn.Sequential(*layers)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return Encoder(body, widths[-1])


def _basic_block(width_in: int, width: int, *, stride: int) -> nn.Module:
    shortcut = None
    if stride != 1 or width_in != width:
        shortcut = nn.Sequential(conv1x1(width_in, width, stride), nn.BatchNorm2d(width))
    block: nn.Module = BasicBlock(width_in, width, stride, shortcut)
    return block


def _resnet(block: type[nn.Module], layers: list[int], image_size: int, channels: int) -> Encoder:
    body = ResNet(block, layers, num_classes=1)
    small = image_size <= SMALL_IMAGE
    body.conv1 = nn.Conv2d(
        channels,
        64,
        kernel_size=3 if small else 7,
        stride=1 if small else 2,
        padding=1 if small else 3,
        bias=False,
    )
    nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    if small:
        body.maxpool = nn.Identity()
    feature_dim: int = body.fc.in_features
    body.fc = nn.Identity()
    return Encoder(body, feature_dim)


def _mobilenet_v3_small(image_size: int, channels: int) -> Encoder:
    body: MobileNetV3 = mobilenet_v3_small(weights=None, num_classes=1)
    stem = body.features[0]
    stem[0] = nn.Conv2d(
        channels, 16, 3, stride=1 if image_size <= SMALL_IMAGE // 2 else 2, padding=1, bias=False
    )
    nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
    feature_dim: int = body.classifier[0].in_features
    body.classifier = nn.Identity()
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            # torchvision's 0.01 needs thousands of steps before the running statistics hold.
            module.momentum = 0.1
    return Encoder(body, feature_dim)


BUILDERS: dict[str, Callable[[int, int], Encoder]] = {
    "resnet10_tiny": lambda size, channels: _narrow_resnet((16, 32, 64, 128), size, channels),
    "resnet10": lambda size, channels: _narrow_resnet((32, 64, 128, 256), size, channels),
    "resnet18": lambda size, channels: _resnet(BasicBlock, [2, 2, 2, 2], size, channels),
    "resnet34": lambda size, channels: _resnet(BasicBlock, [3, 4, 6, 3], size, channels),
    "resnet50": lambda size, channels: _resnet(Bottleneck, [3, 4, 6, 3], size, channels),
    "mobilenet_v3_small": _mobilenet_v3_small,
}

ENCODERS: tuple[str, ...] = tuple(BUILDERS)
