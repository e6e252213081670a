"""Training the whole network on the labels, and measuring what that is worth."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch

from core.learning.augmentations import AugmentationConfig
from core.learning.determinism import seed_everything
from core.learning.encoders import Encoder
from core.learning.finetuning import FinetuneConfig, Finetuned, finetune
from core.learning.heads import ProjectionHead
from core.learning.preprocessing import Preprocessing
from core.learning.progress import Progress
from core.learning.run import Run
from core.learning.trainer import Stopped
from tests.unit.learning.digits import (
    Canvases,
    Targets,
    canvases,
    of_each,
    preprocessing_of,
    random_encoder,
)

MILD = AugmentationConfig(crop_area=(0.6, 1.0), brightness=0.2, contrast=0.2, jitter=0.8)
NETWORK = FinetuneConfig(method="full", epochs=2, batch_size=32, augmentation=MILD)
Drawn = tuple[Canvases, Targets]


@pytest.fixture(scope="module")
def digits() -> Drawn:
    return canvases()


@pytest.fixture(scope="module")
def preprocessing(digits: Drawn) -> Preprocessing:
    return preprocessing_of(digits[0])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return random_encoder()


@pytest.fixture(scope="module")
def projection() -> ProjectionHead:
    seed_everything(1)
    return ProjectionHead(128, hidden_dim=96, projection_dim=16)


@pytest.mark.parametrize("method", ["full", "supcon"])
def test_a_network_is_measured_on_a_held_out_fifth(
    digits: Drawn,
    preprocessing: Preprocessing,
    encoder: Encoder,
    projection: ProjectionHead,
    method: str,
) -> None:
    seen: list[Progress] = []
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    found = finetune(
        *of_each(digits, 5),
        encoder,
        dataclasses.replace(NETWORK, method=method, layer="projection"),
        preprocessing,
        class_count=10,
        run=Run(on_step=seen.append),
        projection=projection,
    )
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert found.held_out is not None
    assert found.held_out.method == "a held-out fifth of the labels"
    assert found.report["cross_validation"].total == 10
    assert (found.report["method"], found.classifier.head.in_features) == (method, 96)
    # 40 and 50 labels in batches of 32, two epochs each, counted on.
    assert [progress.step for progress in seen] == [1, 2, 3, 4]
    assert [progress.phase.split()[0] for progress in seen] == ["trying"] * 2 + ["training"] * 2


def test_auto_tries_networks_on_equal_terms_when_labels_allow(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    found = finetune(
        *of_each(digits, 20),
        encoder,
        dataclasses.replace(NETWORK, method="auto", batch_size=64, epochs=1),
        preprocessing,
        class_count=10,
        run=Run(),
    )
    on_fifth = [trial for trial in found.report["candidates"] if trial["total"] == 40]
    assert [trial["method"] for trial in on_fifth][1:] == ["full", "supcon"]
    assert on_fifth[0]["method"] in ("linear", "prototype")
    few = dataclasses.replace(NETWORK, method="auto")
    small = finetune(*of_each(digits, 6), encoder, few, preprocessing, class_count=10, run=Run())
    assert {t["method"] for t in small.report["candidates"]} == {"linear", "prototype"}


def test_from_scratch_auto_trains_the_network(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    config = dataclasses.replace(NETWORK, method="auto", from_scratch=True, calibrate=False)
    found = finetune(*of_each(digits, 3), encoder, config, preprocessing, class_count=10, run=Run())
    assert found.report["method"] == "full"
    assert any("accuracy was not measured" in text for text in found.report["warnings"])


def test_full_begins_with_the_fitted_head(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    images, targets = of_each(digits, 5)
    frozen = dataclasses.replace(NETWORK, calibrate=False, learning_rate=1e-12)
    found = finetune(images, targets, encoder, frozen, preprocessing, class_count=10, run=Run())
    head = finetune(
        images,
        targets,
        encoder,
        FinetuneConfig(calibrate=False),
        preprocessing,
        class_count=10,
        run=Run(),
    )
    torch.testing.assert_close(found.classifier.head.weight, head.classifier.head.weight)
    scratch = dataclasses.replace(frozen, from_scratch=True)
    blank = finetune(images, targets, encoder, scratch, preprocessing, class_count=10, run=Run())
    assert blank.classifier.head.weight.abs().max() < 1e-6


def test_a_pretrained_encoder_learns_at_its_own_rate(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    moved = []
    for rate in (3e-3, 3e-6):
        config = dataclasses.replace(
            NETWORK, calibrate=False, encoder_learning_rate=rate, weight_decay=0.0
        )
        found = finetune(
            *of_each(digits, 5), encoder, config, preprocessing, class_count=10, run=Run()
        )
        pairs = zip(encoder.parameters(), found.classifier.encoder.parameters(), strict=True)
        moved.append(max(float((a - b).detach().abs().max()) for a, b in pairs))
    assert moved[1] < moved[0] / 100


def test_trials_and_training_resume_from_checkpoints_of_their_own(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder, tmp_path: Path
) -> None:
    images, targets = of_each(digits, 5)
    config = dataclasses.replace(NETWORK, epochs=3)

    def run(settings: Run) -> Finetuned:
        return finetune(
            images, targets, encoder, config, preprocessing, class_count=10, run=settings
        )

    class After:
        def __init__(self, asked: int) -> None:
            self.left = asked

        def __call__(self) -> bool:
            self.left -= 1
            return self.left < 0

    undisturbed = run(Run())
    folder = tmp_path / "checkpoint"
    for asked in (2, 4):  # in the trial, then in the training
        with pytest.raises(Stopped):
            run(Run(checkpoint_dir=folder, should_stop=After(asked)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-full-encoder",
        "checkpoint-trial-full-encoder",
    ]
    resumed = run(Run(checkpoint_dir=folder))
    wanted = undisturbed.classifier.state_dict()
    assert all(torch.equal(wanted[k], v) for k, v in resumed.classifier.state_dict().items())


def _reached(told: list[tuple[int, float]], count: int) -> bool:
    return len(told) >= count


def test_a_training_counts_on_after_one_that_had_ended_before_an_interruption(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder, tmp_path: Path
) -> None:
    images, targets = of_each(digits, 10)
    told: list[tuple[int, float]] = []

    def run(settings: Run) -> None:
        finetune(images, targets, encoder, NETWORK, preprocessing, class_count=10, run=settings)

    def note(progress: Progress) -> None:
        told.append((progress.step, progress.metrics["learning_rate"]))

    run(Run(on_step=note))
    undisturbed = dict(told)
    assert sorted(undisturbed) == list(range(1, len(told) + 1))
    for after in range(1, len(undisturbed)):  # in the trial, at its end, in the training
        told.clear()
        folder = tmp_path / str(after) / "checkpoint"
        stopped = partial(_reached, told, after)
        with pytest.raises(Stopped):
            run(Run(on_step=note, should_stop=stopped, checkpoint_dir=folder))
        run(Run(on_step=note, checkpoint_dir=folder))
        assert dict(told) == undisturbed  # steps that no checkpoint holds are made again
