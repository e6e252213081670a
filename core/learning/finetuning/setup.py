"""What stays the same over all trainings of one call."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.finetuning.cached import HeadFitter
from core.learning.finetuning.config import FinetuneConfig
from core.learning.heads import ProjectionHead, classification_head
from core.learning.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Where all trainings begin.

    Attributes:
        encoder: Stays as it is.
        projection: Its projection head, if there is one; stays as it is.
        config: See `FinetuneConfig`.
        preprocessing: The encoder's.
        class_count: Classes of the head.
        weights_K: Weights of the classes in the loss, None for all alike.
        other_trainings: Trainings outside of this call that share its time budget.
    """

    encoder: Encoder
    projection: ProjectionHead | None
    config: FinetuneConfig
    preprocessing: Preprocessing
    class_count: int
    weights_K: Tensor | None
    other_trainings: int = 0

    def fitter(self, method: str) -> HeadFitter:
        """How heads on cached features are fitted."""
        return HeadFitter(
            method=method,
            class_count=self.class_count,
            solver=self.config.solver,
            weights_K=self.weights_K,
            seed=self.config.seed,
        )

    def hidden(self, layer: str) -> nn.Module | None:
        """A copy of what stands between encoder and head."""
        if layer == "encoder":
            return None
        assert self.projection is not None  # checked when the layers are chosen
        return copy.deepcopy(self.projection.first_layer())

    def classifier(self, layer: str) -> Classifier:
        """A copy of the encoder with a head that gives every class the same probability."""
        hidden = self.hidden(layer)
        width = self.encoder.feature_dim
        if self.projection is not None and hidden is not None:
            width = self.projection.hidden.out_features
        head = classification_head(width, self.class_count)
        return Classifier(copy.deepcopy(self.encoder), head, hidden)
