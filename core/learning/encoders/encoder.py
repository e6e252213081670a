"""What all encoders have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """An encoder of any architecture: BCHW images to B x feature_dim features.

    The same weights and images always give the same features, in training mode too: no encoder
    has dropout or stochastic depth, which would make resumed runs and gradient caching (arXiv
    2101.06983, which computes every batch twice) depend on torch's global generator.
    """

    def __init__(self, body: nn.Module, feature_dim: int) -> None:
        super().__init__()
        # On CPUs, too, convolutions are faster by a fifth to a half with channels last.
        self.body = body.to(memory_format=torch.channels_last)
        self.feature_dim = feature_dim

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Features, (B, feature_dim)."""
        features_BD: Tensor = self.body(images_BCHW.contiguous(memory_format=torch.channels_last))
        return features_BD
