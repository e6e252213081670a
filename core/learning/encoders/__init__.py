"""Encoders: images to feature vectors, no head."""

from core.learning.encoders.catalogue import (
    ENCODERS,
    PRETRAINED,
    STEMS,
    create_encoder,
    resolve_stem,
)
from core.learning.encoders.encoder import Encoder
from core.learning.encoders.weights import IMAGENET_STATISTICS, WeightsUnavailable

__all__ = [
    "ENCODERS",
    "IMAGENET_STATISTICS",
    "PRETRAINED",
    "STEMS",
    "Encoder",
    "WeightsUnavailable",
    "create_encoder",
    "resolve_stem",
]
