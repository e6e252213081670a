"""Predictions, and how good they are, with intervals."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from core.learning.classifier import Classifier
from core.learning.data import read_rows, stratified_folds
from core.learning.encoders import Encoder
from core.learning.logistic import L2_UNCHOSEN, fit_logistic
from core.learning.preprocessing import Preprocessing
from core.learning.trainer import Diverged

USABLE_IMAGES = 64


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
    return _forward(model, images_NHWC, preprocessing, device, batch_size)


def features(
    model: Encoder | Classifier,
    images_NHWC: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    device: str = "cpu",
    batch_size: int = 256,
) -> Tensor:
    """Features of canvases, float32 (N, feature_dim) on the CPU; moves the model to the device."""
    encoder = model.encoder if isinstance(model, Classifier) else model
    return _forward(encoder, images_NHWC, preprocessing, device, batch_size)


@torch.inference_mode()
def _forward(
    module: nn.Module,
    images_NHWC: NDArray[np.uint8],
    preprocessing: Preprocessing,
    device: str,
    batch_size: int,
) -> Tensor:
    was_training = module.training
    module.to(device).eval()
    outputs = [
        module(preprocessing.normalise(read_rows(images_NHWC, rows_B, device))).float().cpu()
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
    """Check a trained model: finite weights, finite features that are not all zero.

    The loss of the last step tells of the weights before it, in training mode; this looks at what
    will be served.

    Raises:
        Diverged: The model is of no use.
    """
    finite = all(t.isfinite().all() for t in model.state_dict().values() if t.is_floating_point())
    features_ND = features(model, images_NHWC[:USABLE_IMAGES], preprocessing, device=device)
    if not finite or not features_ND.isfinite().all() or not features_ND.any(dim=1).all():
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


def cross_validated_accuracy(
    features_ND: Tensor, targets_N: Tensor, *, folds: int = 5, seed: int = 0
) -> Score | None:
    """Accuracy of a linear head on labels that it was not fitted with, when there is no test set.

    The encoder must not have seen the labels. The penalty is fixed: choosing it inside each fold
    takes seconds, and choosing it on all labels would leak them.

    Returns:
        Correct answers over all labels, or None when a class has fewer than two of them.
    """
    counts = targets_N.bincount()
    present = counts[counts > 0]
    if len(present) < 2 or int(present.min()) < 2:
        return None
    folds = min(folds, int(present.max()))
    fold_N = stratified_folds(targets_N, folds=folds, seed=seed)
    class_count, correct = len(counts), 0
    for fold in range(folds):
        kept, held = fold_N != fold, fold_N == fold
        weight_KD, bias_K = fit_logistic(
            features_ND[kept], targets_N[kept], class_count=class_count, l2=L2_UNCHOSEN
        )
        correct += count_correct(features_ND[held] @ weight_KD.T + bias_K, targets_N[held]).correct
    return Score(correct, len(targets_N))


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
