"""What is needed to rebuild a module before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.learning.classifier import Classifier
from core.learning.encoders import Encoder, build_encoder
from core.learning.heads import classification_head


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """An encoder (class_count None) or a classifier."""

    encoder: str
    image_size: int
    channels: int
    class_count: int | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(**values)

    def build(self) -> Encoder | Classifier:
        """The module with random weights from torch's global generator."""
        encoder = build_encoder(self.encoder, image_size=self.image_size, channels=self.channels)
        if self.class_count is None:
            return encoder
        return Classifier(encoder, classification_head(encoder.feature_dim, self.class_count))
