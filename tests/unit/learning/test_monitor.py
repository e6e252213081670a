"""Probes: what they measure, how often, and what they say of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.learning.encoders import Encoder, create_encoder
from core.learning.evaluation import features
from core.learning.monitor import ContrastiveMonitor, Subject
from core.learning.preprocessing import Preprocessing
from core.learning.representation import alignment, leave_one_out_accuracy, rankme, uniformity
from core.learning.trainer import Diverged

Bars = tuple[NDArray[np.uint8], NDArray[np.int64]]
Z_VBD = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0))
CHANCE = math.log(255)


def encoder() -> Encoder:
    torch.manual_seed(0)
    return create_encoder("resnet10_tiny", image_size=8, channels=1)


def monitor(
    bars: Bars,
    preprocessing: Preprocessing,
    *,
    looked_at: Encoder | None = None,
    targets: NDArray[np.int64] | None = None,
    views_a_step: int = 10_000,
    every: int | None = None,
    patience: int | None = None,
) -> ContrastiveMonitor:
    subject = Subject(
        encoder=looked_at or encoder(),
        projections=lambda: Z_VBD,
        images_NHWC=bars[0],
        targets_N=None if targets is None else torch.from_numpy(targets),
        preprocessing=preprocessing,
        device="cpu",
    )
    return ContrastiveMonitor(
        subject, views_a_step=views_a_step, chance_loss=CHANCE, every=every, patience=patience
    )


def looks(made: ContrastiveMonitor, losses: list[float]) -> None:
    """A probe after each loss."""
    for step, loss in enumerate(losses, start=1):
        assert made.due(step, 1000)
        made.note(loss)
        made.look(step)


def test_values_are_those_of_fixed_images(bars: Bars, preprocessing: Preprocessing) -> None:
    images, targets = bars
    made = monitor(bars, preprocessing, targets=targets)
    assert made.due(1000, 1000)
    values = made.look(1000)
    features_ND = features(encoder(), images, preprocessing)
    assert values["rankme"] == pytest.approx(rankme(features_ND), rel=1e-4)
    assert values["alignment"] == alignment(Z_VBD)
    assert values["uniformity"] == uniformity(Z_VBD[0])
    # 240 images of 4 classes: 20 neighbours.
    expected = leave_one_out_accuracy(features_ND, torch.from_numpy(targets), neighbours=20)
    assert values["knn_accuracy"] == pytest.approx(expected, abs=1 / 240)
    assert values["knn_chance"] == 0.25
    assert made.look(1000) == values


def test_only_labelled_images_have_neighbours(bars: Bars, preprocessing: Preprocessing) -> None:
    images, targets = bars
    few = np.where(np.arange(240) < 24, targets, -1)
    made = monitor(bars, preprocessing, targets=few)
    made.due(1000, 1000)
    expected = leave_one_out_accuracy(
        features(encoder(), images[:24], preprocessing), torch.from_numpy(few[:24]), neighbours=3
    )
    assert made.look(1000)["knn_accuracy"] == pytest.approx(expected, abs=1 / 24)
    assert made.report()["knn_images"] == 24


LONE = np.where(np.arange(240) < 4, np.arange(240), -1)


def test_a_lone_label_is_not_asked_for(bars: Bars, preprocessing: Preprocessing) -> None:
    """Its class has no other image that could name it: it would always count as wrong."""
    few = np.where(np.arange(240) < 24, bars[1], -1)
    few[100] = 9
    made = monitor(bars, preprocessing, targets=few)
    made.due(10, 10)
    made.look(10)
    assert made.report()["knn_images"] == 24


@pytest.mark.parametrize("labels", ["none", "one class", "one label", "one label a class"])
def test_without_two_classes_there_is_nothing_to_name(
    bars: Bars, preprocessing: Preprocessing, labels: str
) -> None:
    targets = {
        "none": None,
        "one class": bars[1] * 0,
        "one label": np.where(LONE == 0, 0, -1),
        "one label a class": LONE,
    }[labels]
    made = monitor(bars, preprocessing, targets=targets)
    made.due(10, 10)
    assert set(made.look(10)) == {"rankme", "alignment", "uniformity"}
    assert made.report()["knn_chance"] is None


def test_looking_changes_nothing(bars: Bars, preprocessing: Preprocessing) -> None:
    looked_at = encoder().train()
    before = {name: value.clone() for name, value in looked_at.state_dict().items()}
    made = monitor(bars, preprocessing, looked_at=looked_at, targets=bars[1])
    random_state = torch.get_rng_state()
    made.due(10, 10)
    made.look(10)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(before[name], v) for name, v in looked_at.state_dict().items())
    assert all(module.training for module in looked_at.modules())


@pytest.mark.parametrize(
    ("steps", "views_a_step", "interval"),
    [
        (2000, 10_000, 100),  # a twentieth
        (500, 256, 25),
        (7, 10_000, 1),
        (100, 60, 89),  # 480 images may be looked at after 89 steps of 60 views
    ],
)
def test_probes_are_rare_enough(
    bars: Bars, preprocessing: Preprocessing, steps: int, views_a_step: int, interval: int
) -> None:
    made = monitor(bars, preprocessing, targets=bars[1], views_a_step=views_a_step)
    due = [step for step in range(1, steps + 1) if made.due(step, steps)]
    assert due == sorted({*range(interval, steps + 1, interval), steps})


@pytest.mark.parametrize(("steps", "views_a_step"), [(500, 256), (5000, 256), (500, 8192)])
def test_probes_cost_three_percent_at_most(
    preprocessing: Preprocessing, steps: int, views_a_step: int
) -> None:
    many = np.zeros((5000, 8, 8, 1), dtype=np.uint8), np.arange(5000) % 10
    made = monitor(many, preprocessing, targets=many[1], views_a_step=views_a_step)
    probes = sum(made.due(step, steps) for step in range(1, steps + 1))
    state = made.state()
    images = state["rank_images"] + state["labelled_images"]
    assert 510 <= images <= 1024 + 2000
    # A forward pass is a third of a training step; the last probe may come on top.
    assert (probes - 1) * images / 3 <= 0.03 * steps * views_a_step


def test_the_interval_can_be_chosen(bars: Bars, preprocessing: Preprocessing) -> None:
    made = monitor(bars, preprocessing, every=3, views_a_step=2)
    assert [step for step in range(1, 12) if made.due(step, 11)] == [3, 6, 9, 11]


def test_nothing_is_due_before_the_length_is_known(
    bars: Bars, preprocessing: Preprocessing
) -> None:
    made = monitor(bars, preprocessing)
    assert not any(made.due(step, None) for step in range(1, 100))
    assert made.due(100, 200)
    assert made.due(110, 5000), "a correction of the length does not move the probes"


class Flat(nn.Module):
    """Nearly the same features for every image."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return 1 + self.noise * images_BCHW.flatten(1)[:, :16]


def test_a_collapse_is_told(bars: Bars, preprocessing: Preprocessing) -> None:
    made = monitor(bars, preprocessing, looked_at=Encoder(Flat(1e-3), 16), every=1)
    looks(made, [CHANCE])
    assert made.message is not None
    assert made.message.startswith("RankMe is 1.0 of 16: all images get nearly the same features")
    assert "learning_rate" in made.message
    assert made.report()["message"] == made.message


def test_features_that_differ_are_no_collapse(bars: Bars, preprocessing: Preprocessing) -> None:
    made = monitor(bars, preprocessing, looked_at=Encoder(Flat(1.0), 16), every=1)
    looks(made, [CHANCE])
    assert made.message is None


def test_a_loss_that_stays_at_chance_is_told(bars: Bars, preprocessing: Preprocessing) -> None:
    made = monitor(bars, preprocessing, every=1)
    looks(made, [CHANCE, CHANCE])
    assert made.message is None
    looks(made, [0.995 * CHANCE])
    assert made.message is not None
    assert "The loss has stayed at 5.51 for 3 probes" in made.message
    assert "level of chance (5.54)" in made.message
    looks(made, [4.0])
    assert made.message is None


def test_training_that_brings_nothing_more_is_over(
    bars: Bars, preprocessing: Preprocessing
) -> None:
    made = monitor(bars, preprocessing, every=1, patience=3)
    looks(made, [5.0, 4.5, 4.499, 4.498])  # not half a percent better
    assert not made.finished
    looks(made, [4.3, 4.4, 4.4])
    assert not made.finished
    looks(made, [4.4])
    assert made.finished
    assert made.report()["best"]["mean_loss"] == pytest.approx(4.3)


def test_without_patience_it_is_never_over(bars: Bars, preprocessing: Preprocessing) -> None:
    made = monitor(bars, preprocessing, every=1)
    looks(made, [4.0] * 12)
    assert not made.finished


def test_with_labels_the_neighbours_decide(bars: Bars, preprocessing: Preprocessing) -> None:
    made = monitor(bars, preprocessing, targets=bars[1], every=1, patience=2)
    looks(made, [5.0, 4.0])  # the loss falls, the features are the same
    assert not made.finished
    looks(made, [3.0])
    assert made.finished
    assert made.report()["best_step"] == 1


def test_the_loss_is_the_mean_since_the_last_look(bars: Bars, preprocessing: Preprocessing) -> None:
    made = monitor(bars, preprocessing, every=2)
    for step, loss in enumerate([4.0, 3.0, 2.0, 1.0], start=1):
        made.note(loss)
        if made.due(step, 4):
            made.look(step)
    assert made.report()["final"]["mean_loss"] == 1.5
    assert made.report()["probes"] == 2


def test_all_that_was_seen_survives_a_checkpoint(bars: Bars, preprocessing: Preprocessing) -> None:
    losses = [5.0, 4.9, CHANCE, CHANCE, CHANCE, 4.895, 4.89, 4.89]
    whole = monitor(bars, preprocessing, every=1, patience=9)
    looks(whole, losses)
    for cut in range(len(losses)):
        first = monitor(bars, preprocessing, every=1, patience=9)
        looks(first, losses[:cut])
        second = monitor(bars, preprocessing, every=1, patience=9)
        second.resume(json.loads(json.dumps(first.state())))
        for step, loss in enumerate(losses[cut:], start=cut + 1):
            assert second.due(step, 1000)
            second.note(loss)
            second.look(step)
        assert second.state() == whole.state()


def test_features_that_are_no_numbers(bars: Bars, preprocessing: Preprocessing) -> None:
    made = monitor(bars, preprocessing, looked_at=Encoder(Flat(math.nan), 16), every=1)
    made.due(1, 10)
    with pytest.raises(Diverged, match="smaller learning_rate"):
        made.look(1)
