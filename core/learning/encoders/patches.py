"""Encoders that cut an image into patches: ConvNeXt (arXiv 2201.03545), ViT (arXiv 2010.11929)."""

from __future__ import annotations

import math

from torch import nn
from torchvision.models import ConvNeXt, VisionTransformer, convnext_tiny

from core.learning.encoders.encoder import Encoder

# ConvNeXt halves the resolution three times after its stem.
CONVNEXT_REDUCTION = 8
TINY_IMAGE = 16


def convnext(*, image_size: int, channels: int, small: bool) -> Encoder:
    """ConvNeXt-T without stochastic depth.

    The small stem has patches of 2x2 pixels; up to 16 px it has overlapping ones of 3x3 at every
    pixel, as one position would be left of the image otherwise.

    Raises:
        ValueError: Nothing would be left of the image after the last reduction.
    """
    kernel, stride, padding = 4, 4, 0
    if small:
        kernel, stride, padding = (2, 2, 0) if image_size > TINY_IMAGE else (3, 1, 1)
    least = stride * CONVNEXT_REDUCTION
    if image_size < least:
        raise ValueError(
            f"image_size: found {image_size}, convnext_tiny with this stem needs at least {least}"
        )
    body: ConvNeXt = convnext_tiny(weights=None, num_classes=1, stochastic_depth_prob=0.0)
    stem = body.features[0]
    width: int = stem[0].out_channels
    stem[0] = nn.Conv2d(channels, width, kernel, stride=stride, padding=padding)
    nn.init.trunc_normal_(stem[0].weight, std=0.02)
    nn.init.zeros_(stem[0].bias)
    feature_dim: int = body.classifier[2].in_features
    body.classifier[2] = nn.Identity()
    return Encoder(body, feature_dim)


def vision_transformer(*, image_size: int, channels: int, small: bool) -> Encoder:
    """ViT-B; the features are those of the class token.

    Patches are 16 px wide; with the small stem 4 px up to 32 px and 8 px above, so that a small
    image, too, is more than a handful of tokens.

    Raises:
        ValueError: The image is no whole number of patches wide.
    """
    patch = 16
    if small:
        patch = 4 if image_size <= 32 else 8
    if image_size % patch or image_size == 0:
        allowed = "multiples of 4 up to 32 and of 8 above" if small else "multiples of 16"
        raise ValueError(
            f"image_size: found {image_size}, vit_b_16 with this stem allows {allowed}"
        )
    body = VisionTransformer(
        image_size=image_size,
        patch_size=patch,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        mlp_dim=3072,
        num_classes=1,
    )
    body.conv_proj = nn.Conv2d(channels, 768, kernel_size=patch, stride=patch)
    nn.init.trunc_normal_(body.conv_proj.weight, std=math.sqrt(1 / (channels * patch * patch)))
    nn.init.zeros_(body.conv_proj.bias)
    body.heads = nn.Identity()
    return Encoder(body, 768)
