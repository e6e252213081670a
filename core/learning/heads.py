"""Heads on top of an encoder."""

from __future__ import annotations

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Two-layer perceptron (SimCLR, arXiv 2002.05709, section 2.1); thrown away afterwards."""

    def __init__(self, feature_dim: int, *, hidden_dim: int, projection_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(feature_dim, hidden_dim, bias=False)
        self.norm = nn.BatchNorm1d(hidden_dim)
        self.output = nn.Linear(hidden_dim, projection_dim)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Projections, (B, projection_dim); not normalised."""
        projections: Tensor = self.output(self.norm(self.hidden(features_BD)).relu())
        return projections


def classification_head(feature_dim: int, class_count: int) -> nn.Linear:
    """Linear head that starts with the same probability for every class."""
    head = nn.Linear(feature_dim, class_count)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
