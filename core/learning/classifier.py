"""An encoder with a classification head."""

from __future__ import annotations

from torch import Tensor, nn

from core.learning.encoders import Encoder


class Classifier(nn.Module):
    """`forward` is predict, `forward_features` is embed.

    Args:
        encoder: Images to features.
        head: Features, or what `hidden` makes of them, to logits.
        hidden: A layer of the projection head that is kept between the two, as SimCLRv2 does
            (arXiv 2006.10029, section 2).
    """

    def __init__(self, encoder: Encoder, head: nn.Linear, hidden: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = hidden
        self.head = head

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """Features that the head sees, (B, head.in_features)."""
        features_BD: Tensor = self.encoder(images_BCHW)
        if self.hidden is not None:
            features_BD = self.hidden(features_BD)
        return features_BD

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits, (B, class_count)."""
        logits_BK: Tensor = self.head(self.forward_features(images_BCHW))
        return logits_BK
