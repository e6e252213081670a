"""The model that a stage starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from core.learning.architecture import Architecture
from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.heads import ProjectionHead
from core.learning.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class ParentModel:
    """A model of the registry, in memory.

    Attributes:
        projection: An encoder's, where it was kept.
        metrics: What its manifest says of it.
    """

    model_id: UUID
    manifest_sha256: str
    architecture: Architecture
    module: Encoder | Classifier
    preprocessing: Preprocessing
    classes: list[str]
    projection: ProjectionHead | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def encoder(self) -> Encoder:
        """The model, or that of a classifier."""
        return self.module.encoder if isinstance(self.module, Classifier) else self.module

    @property
    def knows_labels(self) -> bool:
        """Whether its encoder has learnt from labels, or from a teacher who had."""
        # Manifests of the first version do not say it.
        return bool(self.metrics.get("knows_labels", isinstance(self.module, Classifier)))
