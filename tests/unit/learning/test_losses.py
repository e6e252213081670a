"""Losses against slow references and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from core.learning.losses import (
    LOSSES,
    Keys,
    chance_loss,
    contrastive_loss,
    distillation_loss,
    nt_xent,
    view_groups,
)
from core.learning.losses.groups import Pairs


def slow_contrastive_loss(z_ND: Tensor, groups: list[int], loss: str, temperature: float) -> float:
    """Written from the definitions, one pair of rows at a time, in float64."""
    z = z_ND.double()

    def e(i: int, j: int) -> float:
        return math.exp(float(z[i] @ z[j]) / float(z[i].norm() * z[j].norm()) / temperature)

    losses = []
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and groups[j] == groups[i]]
        negatives = [j for j in range(len(z)) if groups[j] != groups[i]]
        if not positives or (loss == "dcl" and not negatives):
            continue
        against = sum(e(i, j) for j in negatives)
        if loss == "supcon":
            against += sum(e(i, p) for p in positives)
        terms = [
            -math.log(e(i, p) / (against + (e(i, p) if loss == "nt_xent" else 0)))
            for p in positives
        ]
        losses.append(sum(terms) / len(terms))
    return sum(losses) / max(len(losses), 1)


def projections(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loss_and_gradient(z_ND: Tensor, groups_N: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = z_ND.detach().clone().requires_grad_()
    value = contrastive_loss(leaf, groups_N, **options)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("views", [2, 3, 8, 16])
@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("dim", [1, 7])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize("labels", [None, [0, -1, 1, 0, -1]])
def test_losses_equal_their_definitions(
    loss: str, views: int, batch: int, dim: int, temperature: float, labels: list[int] | None
) -> None:
    z_ND = projections(views * batch, dim, seed=views * batch)
    targets_B = None if labels is None else torch.tensor(labels[:batch])
    groups_N = view_groups(batch, views, targets_B=targets_B)
    found = contrastive_loss(z_ND, groups_N, loss=loss, temperature=temperature).item()
    expected = slow_contrastive_loss(z_ND, groups_N.tolist(), loss, temperature)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "groups",
    [
        [0, 0, 1, 1, 2, 2],
        [0, 0, 0, 1, 1, 2],  # a lone row
        [3, 3, 3, 3, 3, 3],  # no negatives
        [0, 0, 0, 0, 0, 1],
        [0, 1, 2, 3, 4, 5],  # no positives
    ],
)
@pytest.mark.parametrize("chunk_elements", [1, 12, 2**22])
def test_hand_written_gradients(loss: str, groups: list[int], chunk_elements: int) -> None:
    z_ND = projections(6, 4, dtype=torch.float64).requires_grad_()

    def value(z_ND: Tensor) -> Tensor:
        return contrastive_loss(
            z_ND,
            torch.tensor(groups),
            loss=loss,
            temperature=0.3,
            chunk_elements=chunk_elements,
        )

    assert torch.autograd.gradcheck(value, (z_ND,))
    expected = slow_contrastive_loss(z_ND.detach(), groups, loss, 0.3)
    assert value(z_ND).item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chunk_elements", [1, 50, 333])
def test_chunks_do_not_show(loss: str, chunk_elements: int) -> None:
    z_ND = projections(26, 8)
    groups_N = view_groups(13, 2, targets_B=torch.arange(13) % 5 - 1)
    options = {"loss": loss, "temperature": 0.2}
    whole, whole_grad = loss_and_gradient(z_ND, groups_N, **options)
    value, grad = loss_and_gradient(z_ND, groups_N, chunk_elements=chunk_elements, **options)
    torch.testing.assert_close(value, whole)
    torch.testing.assert_close(grad, whole_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_parts_of_the_anchors_against_all_keys_make_the_whole(loss: str) -> None:
    """As in several processes: the mean of the parts, gradients through anchors and keys."""
    z_ND = projections(12, 5, dtype=torch.float64)
    groups_N = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 0])  # unevenly lone
    expected, expected_grad = loss_and_gradient(z_ND, groups_N, loss=loss, temperature=0.2)
    leaf = z_ND.clone().requires_grad_()
    parts = [
        contrastive_loss(
            leaf[first : first + 4],
            groups_N[first : first + 4],
            loss=loss,
            temperature=0.2,
            keys=Keys(leaf, groups_N, offset=first),
            chunk_elements=30,
        )
        for first in (0, 4, 8)
    ]
    mean = torch.stack(parts).mean()
    torch.testing.assert_close(mean.detach(), expected)
    torch.testing.assert_close(torch.autograd.grad(mean, leaf)[0], expected_grad)


def test_two_views_are_simclr_cross_entropy() -> None:
    z_VBD = projections(2, 6, 5, seed=1)
    z_ND = torch.nn.functional.normalize(z_VBD.flatten(0, 1), dim=-1)
    logits_NN = (z_ND @ z_ND.T / 0.3).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(logits_NN, torch.arange(12).roll(6))
    torch.testing.assert_close(nt_xent(z_VBD, temperature=0.3), expected)


def test_two_views_make_supcon_and_nt_xent_equal() -> None:
    z_ND, groups_N = projections(16, 6), view_groups(8, 2)
    value, grad = loss_and_gradient(z_ND, groups_N, loss="nt_xent", temperature=0.1)
    supcon, supcon_grad = loss_and_gradient(z_ND, groups_N, loss="supcon", temperature=0.1)
    torch.testing.assert_close(supcon, value)
    torch.testing.assert_close(supcon_grad, grad)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("views", "batch"), [(2, 2), (2, 64), (4, 16)])
def test_equal_projections_give_chance(loss: str, views: int, batch: int) -> None:
    z_ND, groups_N = torch.ones(views * batch, 8), view_groups(batch, views)
    found = contrastive_loss(z_ND, groups_N, loss=loss, temperature=0.1)
    chance = chance_loss(views=views, batch_size=batch, loss=loss)
    assert found.item() == pytest.approx(chance, rel=1e-5)


@pytest.mark.parametrize(("loss", "floor"), [("nt_xent", 0.0), ("supcon", math.log(3))])
def test_floor_of_four_perfect_views(loss: str, floor: float) -> None:
    """Only supcon sets positives against each other."""
    z_ND = torch.eye(5).repeat(4, 1)  # 5 images, orthogonal
    found = contrastive_loss(z_ND, view_groups(5, 4), loss=loss, temperature=0.01)
    assert found.item() == pytest.approx(floor, abs=1e-5)


def test_perfect_views_in_dcl() -> None:
    found = contrastive_loss(
        torch.eye(5).repeat(4, 1), view_groups(5, 4), loss="dcl", temperature=0.1
    )
    assert found.item() == pytest.approx(math.log(4 * 4) - 10, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_without_positives_is_a_negative_and_no_anchor(loss: str) -> None:
    z_ND = projections(5, 4)
    groups = [0, 0, 1, 1, 2]
    value, grad = loss_and_gradient(z_ND, torch.tensor(groups), loss=loss, temperature=0.5)
    assert value.item() == pytest.approx(slow_contrastive_loss(z_ND, groups, loss, 0.5), rel=1e-5)
    assert grad[4].abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_without_any_positive_the_loss_is_zero(loss: str) -> None:
    value, grad = loss_and_gradient(projections(4, 3), torch.arange(4), loss=loss, temperature=0.1)
    assert value.item() == 0
    assert not grad.any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6, 1e37])
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extremes_are_finite(loss: str, scale: float, temperature: float) -> None:
    groups_N = view_groups(4, 3)
    value, grad = loss_and_gradient(
        projections(12, 5) * scale, groups_N, loss=loss, temperature=temperature
    )
    assert value.isfinite()
    assert grad.isfinite().all()


def test_length_does_not_count() -> None:
    z_VBD = projections(2, 8, 4)
    expected = nt_xent(z_VBD, temperature=0.2)
    torch.testing.assert_close(nt_xent(z_VBD * 1e30, temperature=0.2), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [True, False])
def test_low_precision_projections_are_compared_in_float32(
    dtype: torch.dtype, autocast: bool
) -> None:
    z_VBD = projections(2, 8, 16, seed=2).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = nt_xent(z_VBD, temperature=0.05)
    torch.testing.assert_close(loss, nt_xent(z_VBD.float(), temperature=0.05))
    (grad,) = torch.autograd.grad(loss, z_VBD)
    assert grad.dtype == dtype
    assert grad.isfinite().all()


def test_groups_of_views() -> None:
    assert view_groups(3, 2).tolist() == [-1, -2, -3, -1, -2, -3]
    assert view_groups(2, 2, first=3).tolist() == [-4, -5, -4, -5]
    labelled = view_groups(4, 2, targets_B=torch.tensor([1, -1, 0, 1]))
    assert labelled.tolist() == [1, -2, 0, 1, 1, -2, 0, 1]


def test_pairs_are_all_anchors_with_all_their_positives() -> None:
    groups = [4, 0, 4, 1, 0, 4, -2]
    anchors_P, keys_P = Pairs(torch.tensor(groups)).of(first=1, count=5)
    found = list(zip((anchors_P + 1).tolist(), keys_P.tolist(), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == {
        (i, j) for i in range(1, 6) for j in range(7) if i != j and groups[i] == groups[j]
    }


@pytest.mark.parametrize("shape", [(1, 4, 3), (2, 1, 3)])
def test_too_few_views_or_images(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 2 of 2"):
        nt_xent(torch.ones(shape), temperature=0.1)


def test_what_is_not_allowed_is_named() -> None:
    z_ND, groups_N = torch.ones(4, 2), view_groups(2, 2)
    with pytest.raises(ValueError, match="loss: found 'triplet', allowed are nt_xent, supcon, dcl"):
        contrastive_loss(z_ND, groups_N, loss="triplet", temperature=0.1)
    with pytest.raises(ValueError, match=r"temperature: found 0\.0"):
        contrastive_loss(z_ND, groups_N, loss="dcl", temperature=0.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_equals_the_definition(temperature: float) -> None:
    student, teacher = projections(2, 6, 4, seed=3).unbind()
    expected = slow_divergence(student, teacher, temperature)
    loss = distillation_loss(student, teacher, temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def slow_divergence(student: Tensor, teacher: Tensor, temperature: float) -> float:
    total = 0.0
    for row in range(len(student)):
        p = (teacher[row] / temperature).softmax(0)
        q = (student[row] / temperature).softmax(0)
        total += sum(float(p[k] * (p[k].log() - q[k].log())) for k in range(len(p)))
    return total * temperature**2 / len(student)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("targets", [[2, -1, 0, -1, 3, 3], [-1] * 6])
def test_distillation_with_labels(alpha: float, targets: list[int]) -> None:
    student, teacher = projections(2, 6, 4, seed=4).unbind()
    labelled = [
        -float(student[row].log_softmax(0)[target])
        for row, target in enumerate(targets)
        if target >= 0
    ]
    fitting = sum(labelled) / max(len(labelled), 1)
    imitating = slow_divergence(student, teacher, 2.0)
    loss = distillation_loss(
        student, teacher, temperature=2.0, targets_B=torch.tensor(targets), alpha=alpha
    )
    assert loss.item() == pytest.approx((1 - alpha) * fitting + alpha * imitating, rel=1e-4)


def test_distillation_is_zero_for_a_perfect_student() -> None:
    logits = projections(5, 3) * 100
    loss = distillation_loss(logits, logits + 7, temperature=1.0)
    assert loss.item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("temperature", "alpha"), [(0.0, 1.0), (1.0, 1.5), (1.0, -0.1)])
def test_distillation_out_of_range(temperature: float, alpha: float) -> None:
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="temperature and alpha: found"):
        distillation_loss(logits, logits, temperature=temperature, alpha=alpha)


def test_distillation_by_labels_needs_labels() -> None:
    with pytest.raises(ValueError, match="targets_B: found none"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=1.0, alpha=0.5)
