"""An encoder with a classification head."""

from __future__ import annotations

from torch import Tensor, nn

from core.learning.encoders import Encoder


class Classifier(nn.Module):
    """`forward` is predict, `forward_features` is embed."""

    def __init__(self, encoder: Encoder, head: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """Features before the head, (B, feature_dim)."""
        features_BD: Tensor = self.encoder(images_BCHW)
        return features_BD

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits, (B, class_count)."""
        logits_BK: Tensor = self.head(self.forward_features(images_BCHW))
        return logits_BK
