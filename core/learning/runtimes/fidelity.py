"""Whether a runtime that rounds names the same classes, as surely, on images not learnt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.learning.evaluation import expected_calibration_error
from core.learning.runtimes.run import Floats, Pixels

# What rounding may cost; shares of 1.
ACCURACY = 0.005
AGREEMENT = 0.98
# Without labels agreement has to hold the accuracy, which falls by 1 - agreement at most.
AGREEMENT_UNLABELLED = 1 - ACCURACY
CONFIDENCE = 0.02
CALIBRATION_ERROR = 0.02
# Below so many labels an accuracy says too little, below so many images an agreement does.
LEAST_LABELS = 100
LEAST_IMAGES = 200


@dataclass(frozen=True, slots=True)
class Compared:
    """Images by which two runtimes are compared: canvases, and classes or −1 where none is known.

    None of them was learnt with its label, which would make both runtimes certain of it.
    """

    images_NHWC: Pixels
    targets_N: NDArray[np.int64]

    @property
    def labels(self) -> int:
        """Images whose class is known."""
        return int((self.targets_N >= 0).sum())

    @property
    def enough(self) -> bool:
        """Whether these images can say anything."""
        return self.labels >= LEAST_LABELS or len(self.targets_N) >= LEAST_IMAGES


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """How far the rounded answers follow the exact ones; accuracies are None without labels.

    Attributes:
        images: Compared ones.
        labels: Those among them whose class is known.
        agreement: Share of the images with the same likeliest class.
        confidence_shift: Mean difference of the probability of the exact runtime's class.
    """

    images: int
    labels: int
    agreement: float
    confidence_shift: float
    accuracy: float | None = None
    accuracy_float: float | None = None
    calibration_error: float | None = None
    calibration_error_float: float | None = None

    @classmethod
    def of(cls, exact_NK: Floats, rounded_NK: Floats, targets_N: NDArray[np.int64]) -> Fidelity:
        """Compare two runtimes' probabilities of the same images."""
        classes_N = exact_NK.argmax(axis=1)
        rows_N = np.arange(len(classes_N))
        shift_N = np.abs(exact_NK[rows_N, classes_N] - rounded_NK[rows_N, classes_N])
        known_N = targets_N >= 0
        measured: dict[str, Any] = {}
        if known_N.any():
            for name, probabilities_NK in (("", rounded_NK), ("_float", exact_NK)):
                found = _measured(probabilities_NK[known_N], targets_N[known_N])
                measured |= {f"{key}{name}": value for key, value in found.items()}
        return cls(
            images=len(classes_N),
            labels=int(known_N.sum()),
            agreement=float((rounded_NK.argmax(axis=1) == classes_N).mean()),
            confidence_shift=float(shift_N.mean()),
            **measured,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, rounded to what they are worth."""
        return {
            name: round(value, 5) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }

    def refused(self) -> str | None:
        """What does not hold, with its figure; None when all does."""
        labelled = self.labels >= LEAST_LABELS
        wanted = AGREEMENT if labelled else AGREEMENT_UNLABELLED
        if not self.agreement >= wanted:
            return f"it names the same class for {self.agreement:.2%} of {self.images} images, at \
least {wanted:.1%} are needed"
        if not self.confidence_shift <= CONFIDENCE:
            return f"its confidence is off by {self.confidence_shift:.3f} in the mean, \
{CONFIDENCE:g} at most is allowed"
        return self._refused_by_labels() if labelled else None

    def _refused_by_labels(self) -> str | None:
        assert self.accuracy is not None
        assert self.accuracy_float is not None
        assert self.calibration_error is not None
        assert self.calibration_error_float is not None
        if self.accuracy < self.accuracy_float - ACCURACY:
            return f"its accuracy on {self.labels} labels is {self.accuracy:.4f}, in float32 \
{self.accuracy_float:.4f}: more than {ACCURACY:g} is lost"
        if self.calibration_error > self.calibration_error_float + CALIBRATION_ERROR:
            return f"its calibration error is {self.calibration_error:.3f}, in float32 \
{self.calibration_error_float:.3f}: more than {CALIBRATION_ERROR:g} is added"
        return None


def _measured(probabilities_NK: Floats, targets_N: NDArray[np.int64]) -> dict[str, float]:
    logits_NK = torch.from_numpy(np.log(np.maximum(probabilities_NK, 1e-30)))
    return {
        "accuracy": float((probabilities_NK.argmax(axis=1) == targets_N).mean()),
        "calibration_error": expected_calibration_error(logits_NK, torch.from_numpy(targets_N)),
    }
