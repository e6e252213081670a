"""Heads on top of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Perceptron between the features and the contrastive loss.

    Two layers as in SimCLR (arXiv 2002.05709, section 2.1) or three as in SimCLRv2 (arXiv
    2006.10029), which keeps the first of them for the classifier. Every layer but the last has
    batch normalisation and ReLU.

    Args:
        feature_dim: Of the encoder.
        hidden_dim: Width of all layers but the last.
        projection_dim: Width of the last.
        layers: Linear layers, at least 2.
    """

    def __init__(
        self, feature_dim: int, *, hidden_dim: int, projection_dim: int, layers: int = 2
    ) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"projection_layers: found {layers}, at least 2 are needed")
        self.hidden = nn.Linear(feature_dim, hidden_dim, bias=False)
        self.norm = nn.BatchNorm1d(hidden_dim)
        self.further = nn.Sequential(
            *(hidden_layer(hidden_dim, hidden_dim) for _ in range(layers - 2))
        )
        self.output = nn.Linear(hidden_dim, projection_dim)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Projections, (B, projection_dim); not normalised."""
        hidden_BH = self.norm(self.hidden(features_BD)).relu()
        projections: Tensor = self.output(self.further(hidden_BH))
        return projections

    def first_layer(self) -> nn.Sequential:
        """The first layer with its normalisation and ReLU; shares its weights with this head."""
        return nn.Sequential(self.hidden, self.norm, nn.ReLU())


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectionSpec:
    """What is needed to rebuild a projection head before its weights are loaded."""

    feature_dim: int
    hidden_dim: int
    projection_dim: int
    layers: int = 2

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(**values)

    def build(self) -> ProjectionHead:
        """The head with random weights from torch's global generator."""
        return ProjectionHead(
            self.feature_dim,
            hidden_dim=self.hidden_dim,
            projection_dim=self.projection_dim,
            layers=self.layers,
        )


def hidden_layer(feature_dim: int, hidden_dim: int) -> nn.Sequential:
    """Linear, batch normalisation, ReLU: as `ProjectionHead.first_layer`."""
    return nn.Sequential(
        nn.Linear(feature_dim, hidden_dim, bias=False), nn.BatchNorm1d(hidden_dim), nn.ReLU()
    )


def classification_head(feature_dim: int, class_count: int) -> nn.Linear:
    """Linear head that starts with the same probability for every class."""
    head = nn.Linear(feature_dim, class_count)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
