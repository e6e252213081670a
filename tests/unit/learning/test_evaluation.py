"""Figures against closed forms; heads against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from core.learning.data import channel_statistics, epoch_order, read_rows, stratified_folds
from core.learning.encoders import build_encoder
from core.learning.evaluation import (
    accuracy,
    count_correct,
    cross_validated_accuracy,
    expected_calibration_error,
    features,
    knn_accuracy,
    require_usable,
    wilson_interval,
)
from core.learning.logistic import choose_l2, fit_logistic
from core.learning.preprocessing import Preprocessing
from core.learning.trainer import Diverged


def clusters(per_class: int, *, spread: float, dim: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(4).repeat_interleave(per_class)
    centres = torch.randn(4, dim, generator=generator) * 3
    noise = torch.randn(len(targets), dim, generator=generator) * spread
    return centres[targets] + noise + 5, targets


@pytest.mark.parametrize("per_class", [3, 40])
@pytest.mark.parametrize("l2", [0.01, 1.0])
def test_logistic_equals_scikit_learn(per_class: int, l2: float) -> None:
    x, y = clusters(per_class, spread=2.0)
    weight, bias = fit_logistic(x, y, class_count=4, l2=l2)
    standard = ((x - x.mean(0)) / (x - x.mean(0)).square().mean().sqrt()).double().numpy()
    model = LogisticRegression(C=1 / (l2 * len(y)), tol=1e-8, max_iter=5000).fit(standard, y)
    ours = (x @ weight.T + bias).softmax(1).numpy()
    np.testing.assert_allclose(ours, model.predict_proba(standard), atol=2e-3)


def test_logistic_survives_constant_features_and_absent_classes() -> None:
    x, y = clusters(5, spread=0.5)
    x[:, 3] = 7.0
    weight, bias = fit_logistic(x, y, class_count=6, l2=0.01)
    assert weight.shape == (6, 20)
    assert weight.isfinite().all()
    torch.testing.assert_close(weight[:, 3], torch.zeros(6))
    assert accuracy(x @ weight.T + bias, y) == 1.0


def test_noise_calls_for_a_stronger_penalty() -> None:
    x, y = clusters(10, spread=0.1)
    clear = choose_l2(x, y, class_count=4, seed=0)
    noise = choose_l2(torch.randn_like(x), y, class_count=4, seed=0)
    assert noise > clear


def test_one_label_a_class_is_enough() -> None:
    x, y = clusters(1, spread=0.1)
    l2 = choose_l2(x, y, class_count=4, seed=0)
    weight, bias = fit_logistic(x, y, class_count=4, l2=l2)
    assert accuracy(x @ weight.T + bias, y) == 1.0


def test_wilson_interval_of_published_example() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, table I): 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="3 correct of 2"):
        wilson_interval(3, 2)


def test_cross_validated_accuracy() -> None:
    x, y = clusters(5, spread=0.5)
    assert cross_validated_accuracy(x, y, folds=5, seed=0) == (20, 20)
    noise = torch.randn(len(x), 20, generator=torch.Generator().manual_seed(1))
    score = cross_validated_accuracy(noise, y, folds=5, seed=0)
    assert score is not None
    assert score.accuracy < 0.6  # it does not count labels that it was fitted with


def test_cross_validation_needs_two_labels_a_class() -> None:
    x, y = clusters(2, spread=0.5)
    assert cross_validated_accuracy(x, y, folds=5, seed=0) is not None
    assert cross_validated_accuracy(x[1:], y[1:], folds=5, seed=0) is None


def test_knn_accuracy() -> None:
    x, y = clusters(30, spread=0.5)
    x = x - 5
    assert knn_accuracy(x[::2], y[::2], x[1::2], y[1::2]) == 1.0
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    assert knn_accuracy(x[::2], shuffled[::2], x[1::2], y[1::2]) < 0.6


def test_accuracy_counts() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    targets = torch.tensor([0, 1, 1])
    assert count_correct(logits, targets) == (2, 3)
    assert accuracy(logits, targets) == pytest.approx(2 / 3)


def test_calibration_error_closed_form() -> None:
    confidence = 0.8
    row = torch.tensor([confidence, 1 - confidence]).log()
    logits, targets = row.repeat(10, 1), torch.tensor([0] * 5 + [1] * 5)
    assert expected_calibration_error(logits, targets) == pytest.approx(0.3, abs=1e-5)
    targets = torch.tensor([0] * 8 + [1] * 2)
    assert expected_calibration_error(logits, targets) == pytest.approx(0.0, abs=1e-5)


def test_features_do_not_depend_on_the_batch_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)
    preprocessing = Preprocessing(image_size=8, channels=1, mean=(0.5,), std=(0.3,))
    encoder = build_encoder("resnet10_tiny", image_size=8, channels=1)
    one = features(encoder, images, preprocessing, batch_size=2)
    all_at_once = features(encoder, images, preprocessing)
    assert one.shape == (7, 128)
    torch.testing.assert_close(one, all_at_once, atol=1e-5, rtol=1e-5)
    assert encoder.training


def test_channel_statistics() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    mean, std = channel_statistics(images, limit=1000)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)))
    assert channel_statistics(images, limit=10) == channel_statistics(images, limit=10)
    assert min(channel_statistics(np.zeros((4, 2, 2, 1), np.uint8))[1]) > 0


def test_rows_come_in_the_order_asked_for() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None]
    assert read_rows(images, torch.tensor([3, 0, 4]), "cpu").flatten().tolist() == [3, 0, 4]


def test_epoch_order_is_a_permutation_of_its_own() -> None:
    first = epoch_order(100, seed=1, epoch=0)
    assert sorted(first.tolist()) == list(range(100))
    assert torch.equal(first, epoch_order(100, seed=1, epoch=0))
    assert not torch.equal(first, epoch_order(100, seed=1, epoch=1))
    assert not torch.equal(first, epoch_order(100, seed=2, epoch=0))


def test_stratified_folds_are_even() -> None:
    targets = torch.tensor([0] * 10 + [1] * 5 + [2] * 3)
    fold = stratified_folds(targets, folds=5, seed=0)
    assert [int(((fold == f) & (targets == 0)).sum()) for f in range(5)] == [2] * 5
    assert [int(((fold == f) & (targets == 1)).sum()) for f in range(5)] == [1] * 5
    assert max(fold.bincount().tolist()) - min(fold.bincount(minlength=5).tolist()) <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_model_of_no_use_is_told(
    value: float, bars: tuple[NDArray[np.uint8], NDArray[np.int64]], preprocessing: Preprocessing
) -> None:
    encoder = build_encoder("resnet10_tiny", image_size=8, channels=1)
    require_usable(encoder, bars[0], preprocessing)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(value)
    with pytest.raises(Diverged, match="smaller learning_rate"):
        require_usable(encoder, bars[0], preprocessing)
