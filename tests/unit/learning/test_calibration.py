"""Temperatures against a grid, and confidences that were distorted on purpose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.learning.calibration import calibrate, cross_fitted, fit_temperature
from core.learning.data import stratified_folds
from core.learning.evaluation import expected_calibration_error


def honest_logits(rows: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and classes drawn with the probabilities that these say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, 5, generator=generator)
    return logits, logits.softmax(1).multinomial(1, generator=generator).flatten()


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
def test_the_temperature_undoes_a_factor(factor: float) -> None:
    logits, targets = honest_logits(5000)
    assert fit_temperature(factor * logits, targets) == pytest.approx(factor, rel=0.08)


def test_the_temperature_is_the_best_of_a_grid() -> None:
    logits, targets = honest_logits(300)
    smoothed = torch.full((300, 5), 1 / 302 / 4)
    smoothed[torch.arange(300), targets] = 301 / 302
    grid = torch.linspace(0.3, 3, 2701)
    losses = [functional.cross_entropy(logits / value, smoothed) for value in grid]
    best = float(grid[int(torch.stack(losses).argmin())])
    assert fit_temperature(logits, targets) == pytest.approx(best, abs=0.002)


def test_a_few_right_answers_do_not_make_certain() -> None:
    logits = torch.eye(5)
    found = functional.softmax(logits / fit_temperature(logits, torch.arange(5)), dim=1)
    torch.testing.assert_close(found.diagonal(), torch.full((5,), 6 / 7))


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_calibration_mends_wrong_confidences(factor: float) -> None:
    logits, targets = honest_logits(2000)
    part = stratified_folds(targets, folds=5, seed=0)
    found = calibrate(factor * logits, targets, part)
    assert found.temperature == pytest.approx(factor, rel=0.1)
    assert found.error_before > 0.1
    assert found.error_after < 0.05
    fresh, fresh_targets = honest_logits(2000, seed=1)
    served = expected_calibration_error(factor * fresh / found.temperature, fresh_targets)
    assert found.error_after == pytest.approx(served, abs=0.03)


def test_good_confidences_are_left_alone() -> None:
    logits, targets = honest_logits(100)
    found = calibrate(logits, targets, stratified_folds(targets, folds=5, seed=0))
    assert found.temperature == 1.0
    assert found.error_before == found.error_after


def test_no_part_is_scaled_by_its_own_labels() -> None:
    logits, targets = honest_logits(40)
    part = stratified_folds(targets, folds=4, seed=0)
    scaled = cross_fitted(logits, targets, part)
    changed = torch.where(part == 2, (targets + 1) % 5, targets)
    assert torch.equal(scaled[part == 2], cross_fitted(logits, changed, part)[part == 2])
    for number in range(4):
        others = fit_temperature(logits[part != number], targets[part != number])
        torch.testing.assert_close(scaled[part == number], logits[part == number] / others)
    alone = torch.zeros_like(part)
    assert torch.equal(cross_fitted(logits, targets, alone), logits)
