"""What is needed to rebuild a module before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.learning.classifier import Classifier
from core.learning.encoders import Encoder, create_encoder, resolve_stem
from core.learning.heads import classification_head, hidden_layer


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """An encoder (class_count None) or a classifier.

    Attributes:
        encoder: One of `core.learning.encoders.ENCODERS`.
        image_size: Side length of the input in pixels.
        channels: Channels of the input, 1 or 3.
        class_count: Outputs of the classification head.
        stem: "small" or "imagenet"; "auto" is resolved when this is made.
        hidden_dim: Width of the projection head's first layer, if the classifier keeps it.
    """

    encoder: str
    image_size: int
    channels: int
    class_count: int | None
    stem: str = "auto"
    hidden_dim: int | None = None

    def __post_init__(self) -> None:
        if self.class_count is None and self.hidden_dim is not None:
            raise ValueError(
                f"hidden_dim: found {self.hidden_dim} without class_count, only a classifier "
                "keeps a layer of the projection head"
            )
        stem = resolve_stem(self.encoder, image_size=self.image_size, stem=self.stem)
        object.__setattr__(self, "stem", stem)  # frozen only from here on

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; keys that older manifests do not have take their defaults."""
        return cls(**values)

    def build(self) -> Encoder | Classifier:
        """The module with random weights from torch's global generator."""
        encoder = create_encoder(
            self.encoder, image_size=self.image_size, channels=self.channels, stem=self.stem
        )
        if self.class_count is None:
            return encoder
        if self.hidden_dim is None:
            return Classifier(encoder, classification_head(encoder.feature_dim, self.class_count))
        return Classifier(
            encoder,
            classification_head(self.hidden_dim, self.class_count),
            hidden_layer(encoder.feature_dim, self.hidden_dim),
        )
