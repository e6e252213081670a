"""Nearest class mean: a head from one label a class."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from core.learning.logistic import LinearHead

# Cosines lie in [-1, 1]; this is what a softmax needs to tell them apart until the labels say
# better (`core.learning.calibration`).
SCALE = 10.0


def prototype_head(features_ND: Tensor, targets_N: Tensor, *, class_count: int) -> LinearHead:
    """Each class by the mean of its normalised features (prototypical networks, arXiv 1703.05175).

    The logit is the cosine between a feature and the class's mean, both seen from the centre of
    the classes, times `SCALE` and the length of the feature relative to the labelled ones. That
    length is the same for all classes, so the nearest class is exactly the one of the cosine, and
    the head stays linear: only the confidence grows with the length. Compared on digits with
    cosines that are not centred and with Euclidean distances to the means of raw features
    (also linear), the centred cosine was never far from the better of the two.

    Args:
        features_ND: One row a label.
        targets_N: Class indices below class_count; every class has its say alike, however many
            labels it has. A class without labels has the logit that a feature in the centre has.
        class_count: Classes of the head.
    """
    features_ND = features_ND.double().cpu()
    members_KN = functional.one_hot(targets_N.cpu(), class_count).T.double()
    counts_K1 = members_KN.sum(dim=1, keepdim=True)
    present_K = counts_K1[:, 0] > 0
    mean_KD = members_KN @ features_ND / counts_K1.clamp(min=1)
    centre_D = mean_KD[present_K].mean(dim=0)
    centred_ND = features_ND - centre_D
    length = centred_ND.norm(dim=1).mean().clamp(min=1e-12)
    prototypes_KD = functional.normalize(members_KN @ functional.normalize(centred_ND, dim=1))
    weight_KD = SCALE / length * prototypes_KD
    return LinearHead(weight_KD.float(), -(weight_KD @ centre_D).float())
