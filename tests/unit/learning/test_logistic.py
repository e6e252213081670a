"""Linear heads against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from core.learning.evaluation import accuracy
from core.learning.logistic import (
    L2_UNCHOSEN,
    NEVER_HELD_OUT,
    LinearHead,
    choose_l2,
    cross_validate,
    fit_logistic,
    held_out_folds,
)
from core.learning.minibatch import choose_l2_by_sgd, fit_logistic_by_sgd
from tests.unit.learning.digits import random_features, rows_of_each

Data = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> Data:
    return random_features()


def clusters(per_class: int, *, spread: float, dim: int = 20) -> Data:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(4).repeat_interleave(per_class)
    centres = torch.randn(4, dim, generator=generator) * 3
    noise = torch.randn(len(targets), dim, generator=generator) * spread
    return centres[targets] + noise + 5, targets


def standardised(x: Tensor) -> np.ndarray:
    """Zero mean, variances that average one, in float64."""
    x = x.double()
    return ((x - x.mean(0)) / (x - x.mean(0)).square().mean().sqrt()).numpy()


def penalised_loss(head: LinearHead, x: Tensor, y: Tensor, l2: float) -> float:
    variance = (x - x.mean(0)).square().mean()
    penalty = l2 / 2 * variance * head.weight_KD.square().sum()
    return float(functional.cross_entropy(head.logits(x), y) + penalty)


@pytest.mark.parametrize("per_class", [3, 20])  # fewer and more rows than the 128 features
@pytest.mark.parametrize("l2", [0.01, 1.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_head_equals_scikit_learn(
    digits: Data, per_class: int, l2: float, balanced: bool
) -> None:
    rows = rows_of_each(digits[1], per_class)[per_class // 2 :]  # fewer of the first class
    x, y = digits[0][rows], digits[1][rows]
    weights = len(y) / (10 * y.bincount().double()) if balanced else None
    head = fit_logistic(x, y, class_count=10, l2=l2, weights_K=weights)
    model = LogisticRegression(
        C=1 / (l2 * len(y)),
        tol=1e-8,
        max_iter=5000,
        class_weight="balanced" if balanced else None,
    ).fit(standardised(x), y)
    ours = head.logits(x).softmax(1).numpy()
    np.testing.assert_allclose(ours, model.predict_proba(standardised(x)), atol=1e-4)


def test_the_gradient_is_zero_at_the_optimum(digits: Data) -> None:
    x, y = torch.from_numpy(standardised(digits[0][:200])), digits[1][:200]
    head = fit_logistic(x, y, class_count=10, l2=0.03)
    weight, bias = head.weight_KD.double().requires_grad_(), head.bias_K.double().requires_grad_()
    loss = functional.cross_entropy(x @ weight.T + bias, y) + 0.015 * weight.square().sum()
    torch.autograd.backward(loss)
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) < 1e-5
    assert float(bias.grad.abs().max()) < 1e-5


def test_constant_features_and_absent_classes() -> None:
    x, y = clusters(5, spread=0.5)
    x[:, 3] = 7.0
    head = fit_logistic(x, y, class_count=6, l2=0.01)
    assert head.weight_KD.shape == (6, 20)
    assert head.weight_KD.isfinite().all()
    torch.testing.assert_close(head.weight_KD[:, 3], torch.zeros(6), atol=1e-6, rtol=0)
    assert accuracy(head.logits(x), y) == 1.0


def test_noise_calls_for_a_stronger_penalty() -> None:
    x, y = clusters(10, spread=0.1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    clear = choose_l2(x, y, class_count=4, seed=0)
    assert choose_l2(noise, y, class_count=4, seed=0) > clear


def test_one_label_a_class_is_enough() -> None:
    x, y = clusters(1, spread=0.1)
    l2 = choose_l2(x, y, class_count=4, seed=0)
    assert l2 == L2_UNCHOSEN
    assert accuracy(fit_logistic(x, y, class_count=4, l2=l2).logits(x), y) == 1.0


def test_cross_validation_equals_one_fit_after_another(digits: Data) -> None:
    rows = rows_of_each(digits[1], 6)
    x, y = digits[0][rows], digits[1][rows]
    weights = torch.linspace(0.5, 2, 10)
    fold = held_out_folds(y, folds=3, seed=0)
    l2s = (1.0, 0.03)
    found = cross_validate(x, y, fold, class_count=10, weights_K=weights, l2s=l2s)
    losses, logits = torch.zeros(2, 3), torch.zeros(2, len(y), 10)
    for i, l2 in enumerate(l2s):
        for f in range(3):
            kept, held = fold != f, fold == f
            head = fit_logistic(x[kept], y[kept], class_count=10, l2=l2, weights_K=weights)
            logits[i, held] = head.logits(x[held])
            loss = functional.cross_entropy(logits[i, held], y[held], reduction="none")
            losses[i, f] = (loss * weights[y[held]]).sum()
    assert found.l2 == l2s[int(losses.sum(1).argmin())]
    for f in range(3):
        others = [i for i in range(3) if i != f]
        chosen = int(losses[:, others].sum(1).argmin())
        # The same number on all logits of a row changes nothing, and is not determined.
        torch.testing.assert_close(
            found.logits_NK[fold == f].log_softmax(1),
            logits[chosen, fold == f].log_softmax(1),
            atol=1e-4,
            rtol=1e-4,
        )


def test_the_size_of_the_features_does_not_matter(digits: Data) -> None:
    rows = rows_of_each(digits[1], 4)
    x, y = digits[0][rows], digits[1][rows]
    heads = [fit_logistic(x * size, y, class_count=10, l2=0.03) for size in (1e-3, 1.0, 1e3)]
    first, *others = [h.logits(x * size) for h, size in zip(heads, (1e-3, 1.0, 1e3), strict=True)]
    for other in others:
        torch.testing.assert_close(other.softmax(1), first.softmax(1), atol=1e-4, rtol=0)


def test_labels_of_noise_are_predicted_by_chance() -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(400, 30, generator=generator), torch.arange(400) % 4
    found = cross_validate(x, y, held_out_folds(y, folds=5, seed=0), class_count=4)
    # Four standard deviations of the share of 400 coins that show heads a quarter of the time.
    assert abs(accuracy(found.logits_NK, y) - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_the_only_label_of_a_class_is_never_held_out() -> None:
    y = torch.tensor([0, 0, 0, 1, 2, 2])
    fold = held_out_folds(y, folds=5, seed=0)
    assert fold[3] == NEVER_HELD_OUT
    assert (fold >= 0).sum() == 5
    for f in range(int(fold.max()) + 1):
        assert set(y[fold != f].tolist()) == {0, 1, 2}
    assert (held_out_folds(torch.arange(4), folds=5, seed=0) == NEVER_HELD_OUT).all()


def test_minibatches_come_near_the_optimum(digits: Data) -> None:
    x, y = digits[0][:600], digits[1][:600]
    exact = fit_logistic(x, y, class_count=10, l2=0.03)
    found = fit_logistic_by_sgd(x, y, class_count=10, l2=0.03, seed=0)
    assert penalised_loss(found, x, y, 0.03) < 1.02 * penalised_loss(exact, x, y, 0.03)
    assert (exact.logits(x).argmax(1) == found.logits(x).argmax(1)).float().mean() > 0.99
    again = fit_logistic_by_sgd(x, y, class_count=10, l2=0.03, seed=0)
    assert torch.equal(found.weight_KD, again.weight_KD)


def test_minibatches_weigh_classes() -> None:
    x, y = clusters(40, spread=6.0)
    x, y = x[:125], y[:125]  # five of the last class
    weights = torch.tensor([1.0, 1.0, 1.0, 8.0])
    exact = fit_logistic(x, y, class_count=4, l2=0.1, weights_K=weights)
    found = fit_logistic_by_sgd(x, y, class_count=4, l2=0.1, seed=0, weights_K=weights)
    torch.testing.assert_close(
        found.logits(x).softmax(1), exact.logits(x).softmax(1), atol=0.05, rtol=0
    )


def test_minibatches_choose_a_penalty_on_held_out_labels() -> None:
    x, y = clusters(20, spread=0.1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    clear = choose_l2_by_sgd(x, y, class_count=4, seed=0)
    assert choose_l2_by_sgd(noise, y, class_count=4, seed=0) > clear
    single = choose_l2_by_sgd(x[::20], y[::20], class_count=4, seed=0)
    assert single == L2_UNCHOSEN
