"""Measures of features against loops and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from core.learning.representation import alignment, leave_one_out_accuracy, rankme, uniformity


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12)])
def test_rankme_as_the_paper_writes_it(shape: tuple[int, int]) -> None:
    features = random(*shape).relu() + 0.1
    singular = np.linalg.svd(features.double().numpy(), compute_uv=False)
    entropy = 0.0
    for value in singular:
        share = value / singular.sum() + 1e-7
        entropy -= share * math.log(share)
    assert rankme(features) == pytest.approx(math.exp(entropy), rel=1e-4)


def test_rankme_of_spaces_of_known_rank() -> None:
    orthogonal, _ = torch.linalg.qr(random(30, 8).double())
    assert rankme(orthogonal) == pytest.approx(8.0, rel=1e-4)
    turned = orthogonal[:, :3] @ torch.linalg.qr(random(8, 3).double()).Q.T
    assert rankme(turned) == pytest.approx(3.0, rel=1e-4)
    assert rankme(torch.ones(30, 8)) == pytest.approx(1.0, abs=1e-4)
    assert rankme(torch.zeros(30, 8)) == 1.0
    assert rankme(5e3 * orthogonal) == pytest.approx(rankme(orthogonal))


@pytest.mark.parametrize("views", [2, 3, 8])
def test_alignment_is_the_mean_over_pairs_of_views(views: int) -> None:
    z_VBD = random(views, 5, 6)
    unit = z_VBD / z_VBD.norm(dim=-1, keepdim=True)
    squares = [
        ((unit[a, image] - unit[b, image]) ** 2).sum().item()
        for a, b in itertools.combinations(range(views), 2)
        for image in range(5)
    ]
    assert alignment(z_VBD) == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_alignment_of_equal_and_of_opposite_views() -> None:
    z_BD = random(5, 6)
    assert alignment(torch.stack([z_BD, 3 * z_BD])) == pytest.approx(0.0, abs=1e-6)
    assert alignment(torch.stack([z_BD, -z_BD])) == pytest.approx(4.0)


def test_uniformity_is_the_log_of_a_mean_over_pairs() -> None:
    z_ND = random(9, 4)
    unit = z_ND / z_ND.norm(dim=-1, keepdim=True)
    potentials = [
        math.exp(-2 * ((unit[a] - unit[b]) ** 2).sum().item())
        for a, b in itertools.combinations(range(9), 2)
    ]
    assert uniformity(z_ND) == pytest.approx(math.log(sum(potentials) / 36), rel=1e-5)


def test_uniformity_of_one_point_and_of_two_opposite_ones() -> None:
    assert uniformity(torch.ones(6, 3)) == pytest.approx(0.0, abs=1e-9)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)
    assert uniformity(random(2000, 256)) == pytest.approx(-4.0, abs=0.1)  # |a - b|² is 2 nearly


@pytest.mark.parametrize("neighbours", [1, 4, 50])
def test_leave_one_out_against_a_loop(neighbours: int) -> None:
    features, targets = random(40, 3), torch.arange(40) % 3
    features[targets == 1] += 1.0
    unit = torch.nn.functional.normalize(features, dim=1)
    correct = 0
    for row in range(40):
        similar = sorted(
            (
                (float(unit[row] @ unit[other]), int(targets[other]))
                for other in range(40)
                if other != row
            ),
            reverse=True,
        )
        votes = [0.0, 0.0, 0.0]
        for cosine, target in similar[:neighbours]:
            votes[target] += math.exp(cosine / 0.07)
        correct += votes.index(max(votes)) == int(targets[row])
    found = leave_one_out_accuracy(features, targets, neighbours=neighbours)
    assert found == pytest.approx(correct / 40)


def test_no_row_votes_for_itself() -> None:
    # Each row's nearest is of the other class: only its own vote could make it right.
    features = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]])
    targets = torch.tensor([0, 1, 0, 1])
    assert leave_one_out_accuracy(features, targets, neighbours=1) == 0.0
