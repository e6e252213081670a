"""Residual networks (arXiv 1512.03385, 1605.07146), and two narrow ones for CPUs."""

from __future__ import annotations

from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from core.learning.encoders.encoder import Encoder

# Below this size the narrow networks keep the resolution in their stem.
TINY_IMAGE = 32


def resnet(
    block: type[BasicBlock | Bottleneck],
    layers: tuple[int, int, int, int],
    *,
    channels: int,
    small: bool,
    width_per_group: int = 64,
) -> Encoder:
    """A ResNet of torchvision; the small stem is SimCLR's (arXiv 2002.05709, B.9): 3x3, no pool."""
    body = ResNet(block, list(layers), num_classes=1, width_per_group=width_per_group)
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


def narrow_resnet(
    widths: tuple[int, ...], *, image_size: int, channels: int, small: bool
) -> Encoder:
    """One basic block a stage: for CPUs, where the first stages cost most."""
    stride = 1 if small and image_size < TINY_IMAGE else 2
    layers: list[nn.Module] = [
        nn.Conv2d(channels, widths[0], 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(inplace=True),
    ]
    if not small:
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
