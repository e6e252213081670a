"""Which encoders there are, and how one is made for an image size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torchvision.models import (
    ConvNeXt_Tiny_Weights,
    EfficientNet_B0_Weights,
    MobileNet_V3_Large_Weights,
    MobileNet_V3_Small_Weights,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    ViT_B_16_Weights,
    WeightsEnum,
    Wide_ResNet50_2_Weights,
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from torchvision.models.resnet import BasicBlock, Bottleneck

from core.learning.encoders.encoder import Encoder
from core.learning.encoders.mobile import efficientnet, mobilenet_v3
from core.learning.encoders.patches import convnext, vision_transformer
from core.learning.encoders.resnets import narrow_resnet, resnet
from core.learning.encoders.weights import load_imagenet

STEMS = ("auto", "small", "imagenet")
INITS = ("random", "imagenet")

# Up to this size an encoder made for 224 px keeps the resolution in its stem: SimCLR (arXiv
# 2002.05709, B.9) on 32 px; with the stem for ImageNet kNN accuracy there falls by ten points.
SMALL_IMAGE = 64

Builder = Callable[[int, int, bool], Encoder]


@dataclass(frozen=True, slots=True)
class Design:
    """How to build an encoder from image size, channels and whether the stem is the small one.

    Attributes:
        build: Makes it with random weights.
        weights: Trained on ImageNet. The first version where there are two: the second was
            trained with label smoothing and mixup, and such features serve other tasks less
            well as they are (arXiv 2010.16402).
        small_up_to: Largest image size for which "auto" is the small stem.
    """

    build: Builder
    weights: WeightsEnum | None = None
    small_up_to: int = SMALL_IMAGE


def _narrow(*widths: int) -> Design:
    return Design(
        lambda size, channels, small: narrow_resnet(
            widths, image_size=size, channels=channels, small=small
        )
    )


def _resnet(
    block: type[BasicBlock | Bottleneck],
    layers: tuple[int, int, int, int],
    weights: WeightsEnum,
    *,
    width_per_group: int = 64,
) -> Design:
    return Design(
        lambda _, channels, small: resnet(
            block, layers, channels=channels, small=small, width_per_group=width_per_group
        ),
        weights,
    )


DESIGNS: dict[str, Design] = {
    "resnet10_tiny": _narrow(16, 32, 64, 128),
    "resnet10": _narrow(32, 64, 128, 256),
    "resnet18": _resnet(BasicBlock, (2, 2, 2, 2), ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": _resnet(BasicBlock, (3, 4, 6, 3), ResNet34_Weights.IMAGENET1K_V1),
    "resnet50": _resnet(Bottleneck, (3, 4, 6, 3), ResNet50_Weights.IMAGENET1K_V1),
    "resnet101": _resnet(Bottleneck, (3, 4, 23, 3), ResNet101_Weights.IMAGENET1K_V1),
    "wide_resnet50_2": _resnet(
        Bottleneck, (3, 4, 6, 3), Wide_ResNet50_2_Weights.IMAGENET1K_V1, width_per_group=128
    ),
    "mobilenet_v3_small": Design(
        lambda _, channels, small: mobilenet_v3(mobilenet_v3_small, channels=channels, small=small),
        MobileNet_V3_Small_Weights.IMAGENET1K_V1,
        SMALL_IMAGE // 2,
    ),
    "mobilenet_v3_large": Design(
        lambda _, channels, small: mobilenet_v3(mobilenet_v3_large, channels=channels, small=small),
        MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        SMALL_IMAGE // 2,
    ),
    "efficientnet_b0": Design(
        lambda _, channels, small: efficientnet(channels=channels, small=small),
        EfficientNet_B0_Weights.IMAGENET1K_V1,
        SMALL_IMAGE // 2,
    ),
    "convnext_tiny": Design(
        lambda size, channels, small: convnext(image_size=size, channels=channels, small=small),
        ConvNeXt_Tiny_Weights.IMAGENET1K_V1,
    ),
    "vit_b_16": Design(
        lambda size, channels, small: vision_transformer(
            image_size=size, channels=channels, small=small
        ),
        ViT_B_16_Weights.IMAGENET1K_V1,
    ),
}

ENCODERS: tuple[str, ...] = tuple(DESIGNS)
PRETRAINED: tuple[str, ...] = tuple(name for name in DESIGNS if DESIGNS[name].weights)


def create_encoder(
    name: str, *, image_size: int, channels: int, stem: str = "auto", init: str = "random"
) -> Encoder:
    """An encoder for images of this size.

    Args:
        name: One of `ENCODERS`.
        image_size: Side length in pixels that it will be trained on.
        channels: Channels of its input, 1 or 3.
        stem: One of `STEMS`; see `resolve_stem`.
        init: "random" (from torch's global generator), or "imagenet": trained on ImageNet with
            labels, for the names in `PRETRAINED`. Its input should be standardised by
            `IMAGENET_STATISTICS`.

    Raises:
        ValueError: An argument is not allowed, or the image is too small for the encoder or is
            no whole number of its patches wide.
        WeightsUnavailable: The ImageNet weights cannot be fetched.
    """
    small = resolve_stem(name, image_size=image_size, stem=stem) == "small"
    if channels not in (1, 3):
        raise ValueError(f"channels: found {channels}, allowed are 1 and 3")
    if init not in INITS:
        raise ValueError(f"init: found {init!r}, allowed are {', '.join(INITS)}")
    design = DESIGNS[name]
    if init == "imagenet" and design.weights is None:
        raise ValueError(
            f"init: found 'imagenet', but there are no such weights of {name}; there are for "
            f"{', '.join(PRETRAINED)}"
        )
    encoder = design.build(image_size, channels, small)
    if init == "imagenet" and design.weights is not None:
        load_imagenet(encoder.body, design.weights, name=name)
    return encoder


def resolve_stem(name: str, *, image_size: int, stem: str = "auto") -> str:
    """What "auto" means: the "small" stem, which keeps the resolution, for small images.

    The limit is 64 px, but 32 px for MobileNets and EfficientNet, which are made for speed.

    Raises:
        ValueError: There is no such encoder or stem.
    """
    if name not in DESIGNS:
        raise ValueError(f"encoder: found {name!r}, allowed are {', '.join(ENCODERS)}")
    if stem not in STEMS:
        raise ValueError(f"stem: found {stem!r}, allowed are {', '.join(STEMS)}")
    if stem != "auto":
        return stem
    return "small" if image_size <= DESIGNS[name].small_up_to else "imagenet"
