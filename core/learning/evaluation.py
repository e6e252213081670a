"""Predictions, and how good they are, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from core.learning.classifier import Classifier
from core.learning.data import read_rows
from core.learning.encoders import Encoder
from core.learning.preprocessing import Preprocessing
from core.learning.trainer import Diverged

USABLE_IMAGES = 64
MOST_DEAD = 0.5  # share of images that may have features of zeros alone


class Score(NamedTuple):
    """Correct answers out of a total."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.correct / self.total


def predict_logits(
    model: Classifier,
    images_NHWC: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    device: str = "cpu",
    batch_size: int = 256,
) -> Tensor:
    """Logits of canvases, float32 (N, class_count) on the CPU; moves the model to the device."""
    return _forward(model, model, images_NHWC, preprocessing, device, batch_size)


def features(
    model: Encoder | Classifier,
    images_NHWC: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    device: str = "cpu",
    batch_size: int = 256,
) -> Tensor:
    """Features of canvases, float32 (N, feature_dim) on the CPU; moves the model to the device.

    Those of a classifier are what its head sees.
    """
    compute = model.forward_features if isinstance(model, Classifier) else model
    return _forward(model, compute, images_NHWC, preprocessing, device, batch_size)


@torch.inference_mode()
def _forward(
    module: nn.Module,
    compute: Callable[[Tensor], Tensor],
    images_NHWC: NDArray[np.uint8],
    preprocessing: Preprocessing,
    device: str,
    batch_size: int,
) -> Tensor:
    was_training = module.training
    module.to(device).eval()
    outputs = [
        compute(preprocessing.normalise(read_rows(images_NHWC, rows_B, device))).float().cpu()
        for rows_B in torch.split(torch.arange(len(images_NHWC)), batch_size)
    ]
    module.train(was_training)
    return torch.cat(outputs)


def require_usable(
    model: Encoder | Classifier,
    images_NHWC: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    device: str = "cpu",
) -> None:
    """Check a trained model: finite weights, finite features, and not all zero for most images.

    The loss of the last step tells of the weights before it, in training mode; this looks at what
    will be served.

    Raises:
        Diverged: The model is of no use.
    """
    finite = all(t.isfinite().all() for t in model.state_dict().values() if t.is_floating_point())
    features_ND = features(model, images_NHWC[:USABLE_IMAGES], preprocessing, device=device)
    dead = float((~features_ND.any(dim=1)).float().mean()) > MOST_DEAD
    if not finite or not features_ND.isfinite().all() or dead:
        raise Diverged(
            "Training ended with a model that gives no usable features. Try a smaller "
            "learning_rate or weight_decay."
        )


def count_correct(logits_NK: Tensor, targets_N: Tensor) -> Score:
    """How often the largest logit is the target's."""
    return Score(int((logits_NK.argmax(dim=1) == targets_N).sum()), len(targets_N))


def accuracy(logits_NK: Tensor, targets_N: Tensor) -> float:
    """Share of rows whose largest logit is the target's."""
    return count_correct(logits_NK, targets_N).accuracy


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927, JASA 22); holds for small totals and near 0 and 1."""
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"found {correct} correct of {total}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confusion_matrix(predicted_N: Tensor, targets_N: Tensor, *, class_count: int) -> Tensor:
    """Counts (K, K): a row for each true class, a column for each predicted one."""
    pairs_N = targets_N * class_count + predicted_N
    return pairs_N.bincount(minlength=class_count**2).view(class_count, class_count)


class ClassScore(NamedTuple):
    """How one class fares; None where there is nothing to divide by.

    Attributes:
        precision: Share of the images named so that are so.
        recall: Share of the images of the class that are named so.
        f1: Harmonic mean of the two.
        support: Images of the class.
        recall_interval: Of the recall, 95 % (Wilson).
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    recall_interval: tuple[float, float] | None


def per_class(confusion_KK: Tensor) -> list[ClassScore]:
    """Precision, recall and F1 of each class, from `confusion_matrix`."""
    scores = []
    for index, (support, named) in enumerate(
        zip(confusion_KK.sum(dim=1).tolist(), confusion_KK.sum(dim=0).tolist(), strict=True)
    ):
        correct = int(confusion_KK[index, index])
        scores.append(
            ClassScore(
                precision=correct / named if named else None,
                recall=correct / support if support else None,
                f1=2 * correct / (support + named) if support + named else None,
                support=support,
                recall_interval=wilson_interval(correct, support) if support else None,
            )
        )
    return scores


def knn_accuracy(
    reference_ND: Tensor,
    reference_targets_N: Tensor,
    query_MD: Tensor,
    query_targets_M: Tensor,
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> float:
    """Accuracy of a vote of the nearest references, weighted by exp(cosine / temperature).

    As in instance discrimination (arXiv 1805.01978, section 3.4).
    """
    reference_ND, query_MD = (
        functional.normalize(reference_ND, dim=1),
        functional.normalize(query_MD, dim=1),
    )
    class_count = int(reference_targets_N.max()) + 1
    correct = 0
    # In chunks, as the matrix of similarities has a row a query and a column a reference.
    for query_BD, targets_B in zip(
        torch.split(query_MD, 1024), torch.split(query_targets_M, 1024), strict=True
    ):
        similarity_BK, index_BK = (query_BD @ reference_ND.T).topk(
            min(neighbours, len(reference_ND)), dim=1
        )
        votes_BC = torch.zeros(len(query_BD), class_count, device=query_BD.device)
        weights_BK = ((similarity_BK - 1) / temperature).exp()
        votes_BC.scatter_add_(1, reference_targets_N[index_BK], weights_BK)
        correct += count_correct(votes_BC, targets_B).correct
    return correct / len(query_targets_M)


def expected_calibration_error(logits_NK: Tensor, targets_N: Tensor, *, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equally wide bins (arXiv 1706.04599, eq. 5)."""
    confidence_N, predicted_N = logits_NK.softmax(dim=1).max(dim=1)
    bin_N = (confidence_N * bins).long().clamp(max=bins - 1)
    gap_N = (predicted_N == targets_N).float() - confidence_N
    sums = torch.zeros(bins, device=gap_N.device).scatter_add_(0, bin_N, gap_N)
    return float(sums.abs().sum() / len(targets_N))
