"""Contrastive pre-training on images that take seconds."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.learning.augmentations import AugmentationConfig
from core.learning.encoders import Encoder, create_encoder
from core.learning.evaluation import features, knn_accuracy
from core.learning.heads import ProjectionHead, ProjectionSpec
from core.learning.losses import contrastive_loss
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.simclr import Pretrained, SimCLRConfig, SimCLRTask, pretrain
from core.learning.trainer import Diverged, Progress

Bars = tuple[NDArray[np.uint8], NDArray[np.int64]]

SIMCLR = SimCLRConfig(
    encoder="resnet10_tiny",
    image_size=8,
    channels=1,
    epochs=4,
    batch_size=60,
    projection_dim=16,
    augmentation=AugmentationConfig(crop_area=(0.6, 1.0), brightness=0.2, contrast=0.2, jitter=0.8),
)
ONE_EPOCH = dataclasses.replace(SIMCLR, epochs=1)


def fresh_encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return create_encoder("resnet10_tiny", image_size=8, channels=1)


def same(one: Pretrained, other: Pretrained) -> bool:
    pairs = zip(state(one).values(), state(other).values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def state(pretrained: Pretrained) -> dict[str, Tensor]:
    return nn.Sequential(pretrained.encoder, pretrained.projection).state_dict()


def task(config: SimCLRConfig, preprocessing: Preprocessing, **given: Any) -> SimCLRTask:
    encoder = fresh_encoder()
    projection = ProjectionHead(encoder.feature_dim, hidden_dim=16, projection_dim=8)
    return SimCLRTask(encoder, projection, config, preprocessing, **given)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pretraining_beats_chance(bars: Bars, preprocessing: Preprocessing) -> None:
    seen: list[Progress] = []
    pretrained = pretrain(
        bars[0], SIMCLR, preprocessing, run=Run(on_step=seen.append), targets_N=bars[1]
    )
    assert not pretrained.encoder.training
    assert not pretrained.projection.training
    assert [progress.step for progress in seen] == list(range(1, 17))
    assert {progress.steps for progress in seen} == {16}
    assert seen[-1].epoch == seen[-1].epochs == 4
    assert seen[-1].loss < 0.8 * seen[-1].metrics["chance_loss"]
    report = pretrained.report
    assert (report["steps"], report["epochs"], report["stopped_early"]) == (16, 4.0, False)
    assert report["seconds"] > 0
    assert report["final"]["knn_accuracy"] == seen[-1].metrics["knn_accuracy"]
    assert report["knn_chance"] == 0.25
    assert report["final"]["knn_accuracy"] > 0.6
    assert report["rankme_of"] == 128
    assert 2 < report["final"]["rankme"] < 128
    assert report["message"] is None
    assert json.loads(json.dumps(report)) == report


def test_labels_that_are_only_looked_at_change_nothing(
    bars: Bars, preprocessing: Preprocessing
) -> None:
    without = pretrain(bars[0], ONE_EPOCH, preprocessing, run=Run())
    looked_at = pretrain(bars[0], ONE_EPOCH, preprocessing, run=Run(), targets_N=bars[1])
    assert same(without, looked_at)
    assert without.report["knn_chance"] is None
    often = dataclasses.replace(ONE_EPOCH, probe_every=1)
    assert same(without, pretrain(bars[0], often, preprocessing, run=Run(), targets_N=bars[1]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"views": 4},
        {"views": 8, "loss": "dcl"},
        {"views": 3, "loss": "supcon", "use_labels": True},
        {"micro_batch_size": 25},
        {"projection_layers": 3, "hidden_dim": 24, "optimizer": "lars", "lr_scaling": "sqrt"},
    ],
)
def test_same_seed_same_weights(
    bars: Bars, preprocessing: Preprocessing, options: dict[str, Any]
) -> None:
    config = dataclasses.replace(ONE_EPOCH, **options)

    def run(settings: SimCLRConfig) -> Pretrained:
        return pretrain(bars[0], settings, preprocessing, run=Run(), targets_N=bars[1])

    first = run(config)
    torch.rand(7)
    assert same(first, run(config))
    assert not same(first, run(dataclasses.replace(config, seed=1)))


def test_pretraining_reads_a_memory_map(
    bars: Bars, preprocessing: Preprocessing, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cache") / "images.npy"
    np.save(path, bars[0])
    mapped = pretrain(np.load(path, mmap_mode="r"), ONE_EPOCH, preprocessing, run=Run())
    assert same(mapped, pretrain(bars[0], ONE_EPOCH, preprocessing, run=Run()))


def test_the_projection_head_is_kept(bars: Bars, preprocessing: Preprocessing) -> None:
    config = dataclasses.replace(ONE_EPOCH, projection_layers=3, hidden_dim=None)
    pretrained = pretrain(bars[0], config, preprocessing, run=Run())
    assert pretrained.spec == ProjectionSpec(
        feature_dim=128, hidden_dim=128, projection_dim=16, layers=3
    )
    rebuilt = pretrained.spec.build()
    rebuilt.load_state_dict(pretrained.projection.state_dict())
    features_BD = torch.randn(5, 128, generator=generator())
    assert torch.equal(rebuilt.eval()(features_BD), pretrained.projection(features_BD))


def test_it_goes_on_from_an_encoder_and_leaves_it_alone(
    bars: Bars, preprocessing: Preprocessing
) -> None:
    given = fresh_encoder(seed=5)
    crawl = dataclasses.replace(ONE_EPOCH, optimizer="sgd", learning_rate=1e-12, weight_decay=0.0)
    went_on = pretrain(bars[0], crawl, preprocessing, run=Run(), encoder=given)
    for (name, before), after in zip(
        given.named_parameters(), went_on.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(before, after, msg=name)
    assert given.training, "the given encoder is as it was"
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            given.state_dict().values(), fresh_encoder(seed=5).state_dict().values(), strict=True
        )
    )


def test_another_start_is_another_run(
    bars: Bars, preprocessing: Preprocessing, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = Run(checkpoint_dir=tmp_path_factory.mktemp("run"), checkpoint_seconds=0)
    pretrain(bars[0], ONE_EPOCH, preprocessing, run=run, encoder=fresh_encoder(1))
    with pytest.raises(ValueError, match="another run"):
        pretrain(bars[0], ONE_EPOCH, preprocessing, run=run, encoder=fresh_encoder(2))


@pytest.mark.parametrize("views", [2, 16])
def test_all_views_go_through_the_encoder_at_once(
    preprocessing: Preprocessing, bars: Bars, views: int
) -> None:
    """In batches of their own, the statistics of batch normalisation would tell views apart."""
    made = task(dataclasses.replace(SIMCLR, views=views), preprocessing)
    sizes: list[int] = []
    made.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    rows_B = torch.arange(6)
    made.step(made.prepare(torch.from_numpy(bars[0][:6]), rows_B, generator()), rows_B)
    assert sizes == [6 * views]


def test_images_of_a_class_attract(preprocessing: Preprocessing, bars: Bars) -> None:
    config = dataclasses.replace(SIMCLR, loss="supcon", use_labels=True, temperature=0.2)
    targets_N = torch.tensor([0, 1, 0, -1, -1, 1, 2])
    made = task(config, preprocessing, targets_N=targets_N)
    rows_B = torch.tensor([4, 0, 2, 3, 6])
    images_BHWC = torch.from_numpy(bars[0])[rows_B]
    views = made.prepare(images_BHWC, rows_B, generator())
    result = made.step(views, rows_B)
    groups_N = torch.tensor([-1, 0, 0, -2, 2]).repeat(2)
    z_ND = made.projections.flatten(0, 1)
    expected = contrastive_loss(z_ND, groups_N, loss="supcon", temperature=0.2)
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    alone = contrastive_loss(z_ND, torch.arange(5).repeat(2), loss="supcon", temperature=0.2)
    assert result.loss.item() != pytest.approx(alone.item(), rel=1e-3)
    chance = math.log(config.views * config.batch_size - 1)
    assert float(result.metrics["chance_loss"]) == pytest.approx(chance)
    other = task(dataclasses.replace(config, loss="dcl"), preprocessing, targets_N=targets_N)
    assert other.chance is None, "it depends on how many of a class a batch has"


def test_few_labels_shape_the_features(bars: Bars, preprocessing: Preprocessing) -> None:
    few = np.where(np.arange(240) < 24, bars[1], -1)
    config = dataclasses.replace(
        SIMCLR, epochs=6, use_labels=True, loss="supcon", label_share=0.4, temperature=0.2
    )
    others = np.where(few < 0, bars[1], -1)
    joint = pretrain(
        bars[0], config, preprocessing, run=Run(), targets_N=few, probe_targets_N=others
    )
    assert joint.report["knn_images"] == 240 - 24, "those that were trained on say nothing"
    assert joint.report["final"]["knn_accuracy"] > 0.9
    found = knn_accuracy(
        features(joint.encoder, bars[0][:24], preprocessing),
        torch.from_numpy(bars[1][:24]),
        features(joint.encoder, bars[0][24:], preprocessing),
        torch.from_numpy(bars[1][24:]),
        neighbours=3,
    )
    assert found > 0.9
    without = dataclasses.replace(config, epochs=1)
    blind = pretrain(bars[0], without, preprocessing, run=Run(), targets_N=few)
    assert "knn_accuracy" not in blind.report["final"]


def test_micro_batches_see_their_views_twice(bars: Bars, preprocessing: Preprocessing) -> None:
    made = task(dataclasses.replace(SIMCLR, micro_batch_size=20), preprocessing)
    rows_B = torch.arange(50)
    views = made.prepare(torch.from_numpy(bars[0][:50]), rows_B, generator())
    first, again = [views(chunk) for chunk in range(3)], [views(chunk) for chunk in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [chunk.shape[1] for chunk in first] == [17, 17, 16]
    assert not torch.equal(first[0][:, :16], first[2])
    result = made.step(views, rows_B)
    assert result.backward is not None
    assert not result.loss.requires_grad
    assert made.projections.shape == (2, 50, 8)


def test_micro_batches_have_the_gradient_of_the_whole(
    bars: Bars, preprocessing: Preprocessing
) -> None:
    """In evaluation mode, where no batch statistics tell them apart, and without augmentation."""
    plain = dataclasses.replace(SIMCLR, augmentation=AugmentationConfig())
    rows_B, gradients = torch.arange(50), []
    for size in (None, 20):
        made = task(dataclasses.replace(plain, micro_batch_size=size), preprocessing)
        made.module.eval()
        views = made.prepare(torch.from_numpy(bars[0][:50]), rows_B, generator())
        result = made.step(views, rows_B)
        if result.backward is None:
            torch.autograd.backward(result.loss)
        else:
            result.backward()
        gradients.append({name: p.grad for name, p in made.module.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_a_collapsed_network_is_told(bars: Bars, preprocessing: Preprocessing) -> None:
    """Images that are all the same cannot be told apart, however one trains."""
    grey = np.full_like(bars[0], 90)
    seen: list[Progress] = []
    config = dataclasses.replace(
        ONE_EPOCH, augmentation=AugmentationConfig(brightness=0.01, jitter=1.0)
    )
    pretrained = pretrain(grey, config, preprocessing, run=Run(on_step=seen.append))
    assert "all images get nearly the same features" in pretrained.report["message"]
    assert seen[-1].message == pretrained.report["message"]


def test_contradicting_sizes_are_refused(bars: Bars, preprocessing: Preprocessing) -> None:
    with pytest.raises(ValueError, match="image_size"):
        pretrain(bars[0], dataclasses.replace(SIMCLR, image_size=16), preprocessing, run=Run())


def test_a_batch_larger_than_the_data_is_refused(bars: Bars, preprocessing: Preprocessing) -> None:
    with pytest.raises(ValueError, match="there are only 59 images"):
        pretrain(bars[0][:59], SIMCLR, preprocessing, run=Run())


def test_labels_must_fit_the_images(bars: Bars, preprocessing: Preprocessing) -> None:
    with pytest.raises(ValueError, match="targets: found 9, one for each of 240 images"):
        pretrain(bars[0], SIMCLR, preprocessing, run=Run(), targets_N=bars[1][:9])
    wanting = dataclasses.replace(SIMCLR, use_labels=True)
    with pytest.raises(ValueError, match="use_labels: there are no labels"):
        pretrain(bars[0], wanting, preprocessing, run=Run())
    with pytest.raises(ValueError, match="use_labels: no training image has a label"):
        pretrain(bars[0], wanting, preprocessing, run=Run(), targets_N=np.full(240, -1))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("loss", "triplet", "loss: found 'triplet', allowed are nt_xent, supcon, dcl"),
        ("views", 1, "views: found 1, at least 2"),
        ("micro_batch_size", 1, "micro_batch_size: found 1, at least 2"),
        ("probe_every", 0, "probe_every: found 0, at least 1"),
        ("plateau_patience", 0, "plateau_patience: found 0, at least 1"),
    ],
)
def test_options_that_make_no_sense(name: str, value: object, problem: str) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=problem):
        dataclasses.replace(SIMCLR, **given)


def test_divergence_says_what_to_change(bars: Bars, preprocessing: Preprocessing) -> None:
    config = dataclasses.replace(SIMCLR, optimizer="sgd", learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(Diverged, match="smaller learning_rate"):
        pretrain(bars[0], config, preprocessing, run=Run())


def test_the_configuration_survives_json() -> None:
    config = dataclasses.replace(SIMCLR, use_labels=True, budget_minutes=3.5, epochs=None)
    assert SimCLRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
