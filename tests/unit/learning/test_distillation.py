"""Students: what they learn from a teacher, and from labels beside it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from core.learning.architecture import Architecture
from core.learning.augmentations import AugmentationConfig
from core.learning.classifier import Classifier
from core.learning.distillation import Blend, DistillationTask, DistillConfig, distill
from core.learning.encoders import create_encoder
from core.learning.evaluation import accuracy, features, predict_logits
from core.learning.heads import classification_head
from core.learning.losses import distillation_loss
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.trainer import Progress, Stopped

Bars = tuple[NDArray[np.uint8], NDArray[np.int64]]

MILD = AugmentationConfig(crop_area=(0.6, 1.0), brightness=0.2, contrast=0.2, jitter=0.8)
CONFIG = DistillConfig(epochs=12, batch_size=60, augmentation=MILD)


def new_model(seed: int, class_count: int = 4) -> Classifier:
    torch.manual_seed(seed)
    model = Architecture(
        encoder="resnet10_tiny", image_size=8, channels=1, class_count=class_count
    ).build()
    assert isinstance(model, Classifier)
    return model


@pytest.fixture(scope="module")
def teacher(bars: Bars, preprocessing: Preprocessing) -> Classifier:
    """A random encoder whose head is fitted by least squares: right on nearly every image."""
    images, targets = bars
    model = new_model(0)
    features_ND = features(model, images[:160], preprocessing)
    standard_ND = (features_ND - features_ND.mean(dim=0)) / (features_ND.std(dim=0) + 1e-3)
    onehot_NK = functional.one_hot(torch.from_numpy(targets[:160]), 4).float() - 0.25
    gram_DD = standard_ND.T @ standard_ND + 10 * torch.eye(128)
    solved_DK = torch.linalg.solve(gram_DD, standard_ND.T @ onehot_NK)
    with torch.no_grad():
        scale_D = features_ND.std(dim=0) + 1e-3
        model.head.weight.copy_(6 * (solved_DK / scale_D[:, None]).T)
        model.head.bias.copy_(-model.head.weight @ features_ND.mean(dim=0))
    return model.eval()


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def held_out_accuracy(model: Classifier, bars: Bars, preprocessing: Preprocessing) -> float:
    logits_NK = predict_logits(model, bars[0][160:], preprocessing)
    return accuracy(logits_NK, torch.from_numpy(bars[1][160:]))


@pytest.mark.parametrize("mixup", [False, True])
def test_a_student_learns_without_labels(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier, mixup: bool
) -> None:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student, seen = new_model(1), list[Progress]()
    config = dataclasses.replace(CONFIG, epochs=15 if mixup else 12, mixup=mixup)
    learnt = distill(
        bars[0][:160], teacher, student, config, preprocessing, run=Run(on_step=seen.append)
    )
    assert all(torch.equal(before[name], v) for name, v in teacher.state_dict().items())
    assert same_weights(student, new_model(1))
    assert not learnt.training
    agreement = predict_logits(learnt, bars[0][160:], preprocessing).argmax(dim=1) == (
        predict_logits(teacher, bars[0][160:], preprocessing).argmax(dim=1)
    )
    assert agreement.float().mean() > 0.75
    assert seen[-1].metrics["agreement"] > 0.7
    assert seen[-1].loss < seen[0].loss / 2


def test_labels_alone_teach_what_a_blank_teacher_does_not(
    bars: Bars, preprocessing: Preprocessing
) -> None:
    images, targets = bars[0][:160], bars[1][:160].copy()
    targets[::3] = -1
    config = dataclasses.replace(CONFIG, epochs=20, alpha=0.0)
    learnt = distill(
        images, new_model(0), new_model(1), config, preprocessing, run=Run(), targets_N=targets
    )
    assert held_out_accuracy(learnt, bars, preprocessing) > 0.8


def test_labels_are_not_looked_at_when_alpha_is_one(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    images, targets = bars

    def learnt(labels: NDArray[np.int64] | None) -> Classifier:
        return distill(
            images, teacher, new_model(1), config, preprocessing, run=Run(), targets_N=labels
        )

    assert same_weights(learnt(None), learnt(targets))


def test_a_pretrained_student_starts_from_its_encoder(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    encoder = create_encoder("resnet10_tiny", image_size=8, channels=1)
    student = Classifier(encoder, classification_head(encoder.feature_dim, 4))
    learnt = distill(bars[0], teacher, student, config, preprocessing, run=Run())
    for (name, found), given in zip(
        learnt.encoder.named_parameters(), encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(found, given, msg=name)
    running = [m.running_mean for m in learnt.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    # Its running statistics become those of the teacher's preprocessing.
    assert all(mean is not None and mean.any() for mean in running)


@pytest.mark.parametrize("mixup", [False, True])
def test_both_see_the_same(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier, mixup: bool
) -> None:
    config = dataclasses.replace(CONFIG, mixup=mixup)
    task = DistillationTask(teacher, teacher, config, preprocessing)
    rows_B = torch.arange(20)
    inputs = task.prepare(torch.from_numpy(bars[0][:20]), rows_B, torch.Generator().manual_seed(0))
    result = task.step(inputs, rows_B)
    assert abs(result.loss.item()) < 1e-6
    assert result.metrics["agreement"] == 1


def test_mixup_blends_an_image_with_its_partner(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    still = DistillConfig(epochs=1, augmentation=AugmentationConfig(), mixup=True)
    task = DistillationTask(teacher, new_model(1), still, preprocessing)
    canvases, rows_B = torch.from_numpy(bars[0][:20]), torch.arange(20)
    shares = set()
    for seed in range(5):
        blend = task.prepare(canvases, rows_B, torch.Generator().manual_seed(seed))
        shares.add(blend.share)
        assert 0 <= blend.share < 1
        assert sorted(blend.partner_B.tolist()) == rows_B.tolist()
        for row, partner in enumerate(blend.partner_B.tolist()):
            mean = blend.share * canvases[row] / 255 + (1 - blend.share) * canvases[partner] / 255
            expected_HWC = (mean - preprocessing.mean[0]) / preprocessing.std[0]
            torch.testing.assert_close(
                blend.inputs_BCHW[row], expected_HWC.permute(2, 0, 1), rtol=1e-4, atol=1e-4
            )
    assert len(shares) == 5


def test_a_blend_has_the_labels_of_both_images(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    config = dataclasses.replace(CONFIG, mixup=True, alpha=0.3, temperature=2.0)
    targets_N = torch.from_numpy(bars[1]).clone()
    targets_N[1::2] = -1
    student = new_model(1)
    nn.init.normal_(student.head.weight)
    student.eval()
    task = DistillationTask(teacher, student, config, preprocessing, targets_N=targets_N)
    rows_B, partner_B, share = torch.tensor([4, 1, 7, 10]), torch.tensor([3, 0, 1, 2]), 0.2
    inputs_BCHW = torch.randn(4, 1, 8, 8)
    found = task.step(Blend(inputs_BCHW, partner_B, share), rows_B).loss

    with torch.no_grad():
        student_BK, teacher_BK = student(inputs_BCHW), teacher(inputs_BCHW)
    imitation = distillation_loss(student_BK, teacher_BK, temperature=2.0)
    own = [-student_BK[row].log_softmax(0)[targets_N[rows_B[row]]] for row in (0, 3)]
    # Rows 1 and 0 have partners 0 and 3, which are the two with labels.
    partners = [
        -student_BK[row].log_softmax(0)[targets_N[rows_B[partner]]]
        for row, partner in ((1, 0), (0, 3))
    ]
    labels = share * sum(own) / 2 + (1 - share) * sum(partners) / 2
    torch.testing.assert_close(found, 0.3 * imitation + 0.7 * labels)


def test_a_student_with_other_classes_is_refused(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    with pytest.raises(ValueError, match="found 5 classes, the teacher has 4"):
        distill(bars[0], teacher, new_model(1, 5), CONFIG, preprocessing, run=Run())


@pytest.mark.parametrize(
    ("alpha", "targets", "problem"),
    [
        (0.5, None, "alpha: found 0.5, but there is no label to learn"),
        (0.5, np.full(240, -1), "alpha: found 0.5, but there is no label to learn"),
        (0.5, np.zeros(239, dtype=np.int64), "found 240 images and 239 targets"),
        (0.5, np.full(240, 4), r"targets: found 4 to 4, allowed are -1 \(no label\) to 3"),
        (1.0, np.arange(240) % 4 - 2, r"targets: found -2 to 1, allowed are -1 \(no label\) to 3"),
    ],
)
def test_labels_must_fit(
    bars: Bars,
    preprocessing: Preprocessing,
    teacher: Classifier,
    alpha: float,
    targets: NDArray[np.int64] | None,
    problem: str,
) -> None:
    config = dataclasses.replace(CONFIG, alpha=alpha)
    with pytest.raises(ValueError, match=problem):
        distill(bars[0], teacher, new_model(1), config, preprocessing, run=Run(), targets_N=targets)


def test_a_student_stops_when_asked(
    bars: Bars, preprocessing: Preprocessing, teacher: Classifier
) -> None:
    run = Run(should_stop=lambda: True)
    with pytest.raises(Stopped):
        distill(bars[0], teacher, new_model(1), CONFIG, preprocessing, run=run)


def test_configurations() -> None:
    config = dataclasses.replace(CONFIG, mixup=True, alpha=0.5, clip_grad_norm=1.0)
    assert DistillConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match=r"alpha: found 1\.5, allowed are 0 to 1"):
        DistillConfig(epochs=1, alpha=1.5)
    with pytest.raises(ValueError, match=r"temperature: found 0, a value above 0"):
        DistillConfig(epochs=1, temperature=0)
