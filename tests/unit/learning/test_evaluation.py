"""Figures against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor, nn

from core.learning.classifier import Classifier
from core.learning.data import channel_statistics, epoch_order, read_rows, stratified_folds
from core.learning.encoders import create_encoder
from core.learning.evaluation import (
    accuracy,
    confusion_matrix,
    count_correct,
    expected_calibration_error,
    features,
    knn_accuracy,
    per_class,
    predict_logits,
    require_usable,
    wilson_interval,
)
from core.learning.heads import ProjectionHead
from core.learning.preprocessing import Preprocessing
from core.learning.trainer import Diverged


def clusters(per_class: int, *, spread: float, dim: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(4).repeat_interleave(per_class)
    centres = torch.randn(4, dim, generator=generator) * 3
    noise = torch.randn(len(targets), dim, generator=generator) * spread
    return centres[targets] + noise + 5, targets


def test_wilson_interval_of_published_example() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, table I): 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="3 correct of 2"):
        wilson_interval(3, 2)


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


def test_confusion_and_classes_equal_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(5, (200,), generator=generator)
    predicted = torch.where(
        torch.rand(200, generator=generator) < 0.6,
        targets,
        torch.randint(5, (200,), generator=generator),
    )
    found = confusion_matrix(predicted, targets, class_count=5)
    np.testing.assert_array_equal(found.numpy(), sklearn_confusion_matrix(targets, predicted))
    wanted = precision_recall_fscore_support(targets, predicted)
    for index, score in enumerate(per_class(found)):
        assert score[:3] == pytest.approx([float(values[index]) for values in wanted[:3]])
        assert score.support == wanted[3][index]
        correct = int(found[index, index])
        assert score.recall_interval == wilson_interval(correct, score.support)


def test_a_class_without_images_has_no_recall() -> None:
    confusion = confusion_matrix(torch.tensor([0, 2]), torch.tensor([0, 0]), class_count=4)
    scores = per_class(confusion)
    assert (scores[0].precision, scores[0].recall, scores[0].support) == (1.0, 0.5, 2)
    assert scores[2][:4] == (0.0, None, 0.0, 0)
    assert scores[3] == (None, None, None, 0, None)


def test_features_of_a_classifier_are_what_its_head_sees(
    bars: tuple[NDArray[np.uint8], NDArray[np.int64]], preprocessing: Preprocessing
) -> None:
    encoder = create_encoder("resnet10_tiny", image_size=8, channels=1)
    hidden = ProjectionHead(128, hidden_dim=24, projection_dim=8).first_layer()
    classifier = Classifier(encoder, nn.Linear(24, 4), hidden).eval()
    found = features(classifier, bars[0][:20], preprocessing)
    logits = predict_logits(classifier, bars[0][:20], preprocessing)
    assert found.shape == (20, 24)
    torch.testing.assert_close(classifier.head(found.clone()), logits)
    assert not any(module.training for module in classifier.modules())


def test_features_do_not_depend_on_the_batch_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)
    preprocessing = Preprocessing(image_size=8, channels=1, mean=(0.5,), std=(0.3,))
    encoder = create_encoder("resnet10_tiny", image_size=8, channels=1)
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
    encoder = create_encoder("resnet10_tiny", image_size=8, channels=1)
    require_usable(encoder, bars[0], preprocessing)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(value)
    with pytest.raises(Diverged, match="smaller learning_rate"):
        require_usable(encoder, bars[0], preprocessing)
