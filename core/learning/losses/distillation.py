"""What a student learns from its teacher, and from labels where there are some."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def distillation_loss(
    student_BK: Tensor,
    teacher_BK: Tensor,
    *,
    temperature: float,
    targets_B: Tensor | None = None,
    alpha: float = 1.0,
) -> Tensor:
    """Weighted sum of imitating the teacher and fitting the labels (SimCLRv2, eq. 3); scalar.

    alpha T² KL(teacher || student) of the softened outputs, mean over B, plus (1 - alpha) times
    the cross-entropy, mean over the labelled rows. T² keeps the size of the teacher's gradients
    independent of the temperature (arXiv 1503.02531, section 2.1).

    Args:
        student_BK: Logits that are trained.
        teacher_BK: Logits of the teacher for the same inputs.
        temperature: Divides the logits of both in the teacher's part; above 0.
        targets_B: Classes, −1 where there is no label; may be left out when alpha is 1.
        alpha: The teacher's share, 0 to 1.

    Raises:
        ValueError: temperature or alpha is out of range, or alpha is below 1 without targets.
    """
    if temperature <= 0 or not 0 <= alpha <= 1:
        raise ValueError(
            f"temperature and alpha: found {temperature} and {alpha}, "
            "allowed are values above 0 and from 0 to 1"
        )
    student = functional.log_softmax(student_BK.float() / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_BK.float() / temperature, dim=-1)
    divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    loss = alpha * temperature**2 * divergence
    if alpha == 1:
        return loss
    if targets_B is None:
        raise ValueError(f"targets_B: found none, alpha {alpha} needs them; 1 does not")
    return loss + (1 - alpha) * _labelled_cross_entropy(student_BK.float(), targets_B)


def _labelled_cross_entropy(logits_BK: Tensor, targets_B: Tensor) -> Tensor:
    """Mean over the rows with a label; 0 for a batch without any."""
    total = functional.cross_entropy(
        logits_BK, targets_B.clamp_min(-1), ignore_index=-1, reduction="sum"
    )
    return total / (targets_B >= 0).sum().clamp_min(1)
