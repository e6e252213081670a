"""How good features are without a task: their rank, alignment, uniformity and neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def rankme(features_ND: Tensor) -> float:
    """Effective rank of the features, from 1 (collapsed) to min(N, D) (RankMe, arXiv 2210.02885).

    exp(-Σ p_k log p_k) with p_k = σ_k / Σ σ + 1e-7 over the singular values σ (equation 1; the
    features are not centred). The paper finds that it falls with accuracy on other tasks when
    hyper-parameters are varied; it says little about one run against another kind of data.

    Args:
        features_ND: Any scale; computed in float64.
    """
    features_ND = features_ND.double()
    rows, columns = features_ND.shape
    gram = features_ND @ features_ND.T if rows < columns else features_ND.T @ features_ND
    singular_K = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = singular_K.sum()
    if total == 0:  # all features are zero: one point
        return 1.0
    share_K = singular_K / total + 1e-7
    return float((-share_K * share_K.log()).sum().exp())


def alignment(z_VBD: Tensor) -> float:
    """Mean squared distance of two views of an image on the unit sphere, from 0 to 4.

    arXiv 2005.10242, section 4.1 with alpha = 2; smaller is better, 0 also when collapsed.

    Args:
        z_VBD: Projections of V >= 2 views; need not be normalised.
    """
    z_VBD = functional.normalize(z_VBD.double(), dim=-1)
    views = len(z_VBD)
    # Of unit vectors, Σ over pairs of |a - b|² = V² - |Σ a|².
    pairs_B = views**2 - z_VBD.sum(dim=0).square().sum(dim=-1)
    return float(pairs_B.mean() * 2 / (views * (views - 1)))


def uniformity(z_ND: Tensor) -> float:
    """log of the mean of exp(-2 |a - b|²) over pairs of images on the unit sphere.

    arXiv 2005.10242, section 4.1 with t = 2; from -4 or so (evenly spread) to 0 (collapsed).

    Args:
        z_ND: One projection of each of N >= 2 images; need not be normalised.
    """
    z_ND = functional.normalize(z_ND.double(), dim=-1)
    return float((-2 * torch.pdist(z_ND).square()).exp().mean().log())


def leave_one_out_accuracy(features_ND: Tensor, targets_N: Tensor, *, neighbours: int) -> float:
    """Accuracy of a vote of each row's nearest other rows, weighted by exp(cosine / 0.07).

    Instance discrimination (arXiv 1805.01978, section 3.4), each row left out of its own vote.

    Args:
        features_ND: Features of labelled images.
        targets_N: Their classes.
        neighbours: Rows that vote; fewer when there are not as many.
    """
    features_ND = functional.normalize(features_ND.float(), dim=1)
    similarity_NN = (features_ND @ features_ND.T).fill_diagonal_(-torch.inf)
    nearest = similarity_NN.topk(min(neighbours, len(features_ND) - 1), dim=1)
    weights_NK = ((nearest.values - 1) / 0.07).exp()
    votes_NC = torch.zeros(len(features_ND), int(targets_N.max()) + 1)
    votes_NC.scatter_add_(1, targets_N[nearest.indices], weights_NK)
    return float((votes_NC.argmax(dim=1) == targets_N).double().mean())
