"""Losses; logits are always compared in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(z_VBD: Tensor, *, temperature: float) -> Tensor:
    """Contrastive loss of V views of each of B images; scalar mean over all pairs of views.

    Every positive is set against the views of other images, never against the other positives:
    -log e^{s_p} / (e^{s_p} + sum over negatives e^{s}). Two views make it SimCLR's loss
    (arXiv 2002.05709, eq. 1). The loss of an encoder that has learnt nothing is `chance_loss`.

    Args:
        z_VBD: Projections, V >= 2 views of B >= 2 images; need not be normalised.
        temperature: Divides the cosine similarities.

    Raises:
        ValueError: Fewer than two views or two images.
    """
    positives_VVB, negatives_VB = _contrast(z_VBD, temperature)
    # -log(e^p / (e^p + e^n)) = softplus(n - p), which neither overflows nor cancels.
    losses_VVB = functional.softplus(negatives_VB[:, None] - positives_VVB)
    views = z_VBD.shape[0]
    other_views_VV = ~torch.eye(views, dtype=torch.bool, device=z_VBD.device)
    return losses_VVB[other_views_VV].mean()


def chance_loss(*, views: int, batch_size: int) -> float:
    """`nt_xent` when all projections are equal: log(1 + V (B - 1))."""
    return float(torch.tensor(1.0 + views * (batch_size - 1)).log())


def distillation_loss(
    student_logits_BK: Tensor, teacher_logits_BK: Tensor, *, temperature: float
) -> Tensor:
    """KL(teacher || student) of the softened outputs, times temperature squared; mean over B.

    The factor keeps the size of the gradients independent of the temperature
    (arXiv 1503.02531, section 2.1).
    """
    student = functional.log_softmax(student_logits_BK.float() / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits_BK.float() / temperature, dim=-1)
    divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def _contrast(z_VBD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits between the views of an image (VVB), and log-sum-exp over its negatives (VB)."""
    views, batch, _ = z_VBD.shape
    if views < 2 or batch < 2:
        raise ValueError(f"found {views} views of {batch} images, at least 2 of 2 are needed")
    with torch.autocast(z_VBD.device.type, enabled=False):
        z_ND = functional.normalize(z_VBD.float(), dim=-1).flatten(0, 1)
        logits_VBVB = (z_ND @ z_ND.T / temperature).view(views, batch, views, batch)
        positives_VVB = logits_VBVB.diagonal(dim1=1, dim2=3)
        same_image = torch.eye(batch, dtype=torch.bool, device=z_VBD.device)[:, None, :]
        negatives_VB = logits_VBVB.masked_fill(same_image, -torch.inf).logsumexp(dim=(2, 3))
    return positives_VVB, negatives_VB
