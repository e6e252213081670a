"""Losses against slow references and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.learning.losses import chance_loss, distillation_loss, nt_xent


def slow_nt_xent(z_VBD: Tensor, temperature: float) -> float:
    """Written from the definition, one pair of views at a time, in float64."""
    views, batch, _ = z_VBD.shape
    z = z_VBD.double()

    def exp_similarity(a: Tensor, b: Tensor) -> float:
        cosine = float(a @ b) / (float(a.norm()) * float(b.norm()))
        return math.exp(cosine / temperature)

    losses = []
    for v in range(views):
        for i in range(batch):
            negatives = sum(
                exp_similarity(z[v, i], z[w, j])
                for w in range(views)
                for j in range(batch)
                if j != i
            )
            for w in range(views):
                if w != v:
                    positive = exp_similarity(z[v, i], z[w, i])
                    losses.append(-math.log(positive / (positive + negatives)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("views", [2, 3, 4])
@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
def test_nt_xent_equals_the_definition(views: int, batch: int, temperature: float) -> None:
    z_VBD = torch.randn(views, batch, 7, generator=torch.Generator().manual_seed(views * batch))
    loss = nt_xent(z_VBD, temperature=temperature)
    assert loss.item() == pytest.approx(slow_nt_xent(z_VBD, temperature), rel=1e-4)


def test_two_views_are_simclr_cross_entropy() -> None:
    z_VBD = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))
    z_ND = torch.nn.functional.normalize(z_VBD.flatten(0, 1), dim=-1)
    logits_NN = (z_ND @ z_ND.T / 0.3).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(logits_NN, torch.arange(12).roll(6))
    torch.testing.assert_close(nt_xent(z_VBD, temperature=0.3), expected)


@pytest.mark.parametrize(("views", "batch"), [(2, 2), (2, 64), (4, 16)])
def test_equal_projections_give_chance(views: int, batch: int) -> None:
    loss = nt_xent(torch.ones(views, batch, 8), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(1 + views * (batch - 1)), rel=1e-5)
    assert chance_loss(views=views, batch_size=batch) == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
def test_gradients_are_finite(scale: float) -> None:
    z_VBD = (torch.randn(3, 4, 5) * scale).requires_grad_()
    torch.autograd.backward(nt_xent(z_VBD, temperature=0.01))
    assert z_VBD.grad is not None
    assert z_VBD.grad.isfinite().all()


def test_low_precision_projections_are_compared_in_float32() -> None:
    z_VBD = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(z_VBD, temperature=0.05)
    torch.testing.assert_close(loss, nt_xent(z_VBD.float(), temperature=0.05))


@pytest.mark.parametrize("shape", [(1, 4, 3), (2, 1, 3)])
def test_too_few_views_or_images(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 2 of 2"):
        nt_xent(torch.ones(shape), temperature=0.1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_equals_the_definition(temperature: float) -> None:
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3)).unbind()
    expected = 0.0
    for row in range(6):
        p = (teacher[row] / temperature).softmax(0)
        q = (student[row] / temperature).softmax(0)
        expected += sum(float(p[k] * (p[k].log() - q[k].log())) for k in range(4))
    expected *= temperature**2 / 6
    loss = distillation_loss(student, teacher, temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_distillation_is_zero_for_a_perfect_student() -> None:
    logits = torch.randn(5, 3) * 100
    assert distillation_loss(logits, logits + 7, temperature=1.0).item() == pytest.approx(
        0, abs=1e-4
    )
