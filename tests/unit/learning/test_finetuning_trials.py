"""The rule that chooses, weights of classes, and the supervised contrastive task."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from core.learning.calibration import cross_fitted
from core.learning.data import stratified_folds
from core.learning.determinism import generator
from core.learning.encoders import create_encoder
from core.learning.finetuning import trials as trials_module
from core.learning.finetuning.config import FinetuneConfig
from core.learning.finetuning.contrastive import SupConTask
from core.learning.finetuning.labelled import class_weights, label_warnings
from core.learning.finetuning.trials import HeldOut, Trial, choose, predictions_of_choice
from core.learning.heads import ProjectionHead
from core.learning.preprocessing import Preprocessing


def trial(method: str, skill: float, *, seed: int, rows: int = 100) -> Trial:
    """A candidate whose logits point to the target as strongly as its skill."""
    drawn = torch.Generator().manual_seed(seed)
    targets = torch.arange(rows) % 4
    logits = torch.randn(rows, 4, generator=drawn) + skill * functional.one_hot(targets, 4)
    part = stratified_folds(targets, folds=5, seed=0)
    return Trial(method, "encoder", HeldOut(logits, targets, part, "of a test"))


def test_what_is_clearly_better_is_chosen() -> None:
    assert choose([trial("linear", 1.0, seed=0), trial("full", 6.0, seed=1)]) == 1


def test_what_is_hardly_better_is_not() -> None:
    trials = [trial("linear", 3.0, seed=0), trial("full", 3.05, seed=0)]
    better = [float(each.loss_of_each.mean()) for each in trials]
    assert better[1] < better[0]
    first = trials[0].held_out
    noise = 0.5 * torch.randn(100, 4, generator=torch.Generator().manual_seed(9))
    noisy = HeldOut(first.logits_MK + noise, first.targets_M, first.part_M, "of a test")
    assert choose([trials[0], Trial("full", "encoder", noisy)]) == 0


def test_ties_go_to_the_first() -> None:
    assert choose([trial("linear", 2.0, seed=0), trial("prototype", 2.0, seed=0)]) == 0


def test_weights_of_classes_decide() -> None:
    targets = torch.arange(100) % 4
    part = stratified_folds(targets, folds=5, seed=0)
    sure = 5.0 * functional.one_hot(targets, 4).float()
    common, rare = sure.clone(), sure.clone()
    common[targets == 3] = 0.0  # knows all but the last class
    rare[targets != 3] *= 0.4  # knows the last class best
    trials = [
        Trial(name, "encoder", HeldOut(logits, targets, part, "of a test"))
        for name, logits in (("linear", common), ("full", rare))
    ]
    no_say = torch.tensor([1.0, 1.0, 1.0, 0.01])
    all_say = torch.tensor([0.1, 0.1, 0.1, 10.0])
    assert choose(trials, weights_K=no_say) == 0
    assert choose(trials, weights_K=all_say) == 1


def test_no_part_decides_on_its_own_predictions() -> None:
    trials = [trial("linear", 1.0, seed=0), trial("full", 1.0, seed=1)]
    held = trials[0].held_out
    # Part 0 alone speaks for the second candidate, loudly.
    loud = trials[1].held_out.logits_MK.clone()
    rows = held.part_M == 0
    loud[rows] = 9.0 * functional.one_hot(held.targets_M[rows], 4).float()
    loud[~rows] -= 3.0 * functional.one_hot(held.targets_M[~rows], 4).float()
    second = Trial("full", "encoder", HeldOut(loud, held.targets_M, held.part_M, "of a test"))
    found = predictions_of_choice([trials[0], second])
    assert torch.equal(found.logits_MK[rows], held.logits_MK[rows])


def test_temperatures_are_fitted_once_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    real = cross_fitted

    def counted(logits: Tensor, targets: Tensor, part: Tensor) -> Tensor:
        fitted.append(len(targets))
        return real(logits, targets, part)

    monkeypatch.setattr(trials_module, "cross_fitted", counted)
    tried = [trial(name, 2.0, seed=seed) for seed, name in enumerate(("linear", "full", "supcon"))]
    choose(tried)
    predictions_of_choice(tried)
    assert all(each.to_dict()["log_loss"] > 0 for each in tried)
    assert fitted == [100] * 3


def test_balanced_weights_are_scikit_learns() -> None:
    targets = torch.tensor([0] * 8 + [1] * 4 + [3] * 2)
    found = class_weights(targets, class_count=4, rule="balanced")
    assert found is not None
    assert found.tolist() == pytest.approx([14 / 24, 14 / 12, 1.0, 14 / 6])
    assert float(found[targets].sum()) == pytest.approx(14)
    assert class_weights(targets, class_count=4, rule="none") is None
    assert class_weights(targets, class_count=4, rule="auto") is not None
    assert class_weights(targets[2:], class_count=4, rule="auto") is None  # 6 against 2


def test_warnings_are_silent_when_all_is_well() -> None:
    targets = torch.arange(20) % 4
    assert label_warnings(targets, class_count=4, weighted=False) == []
    assert label_warnings(targets, class_count=5, weighted=False) == [
        "1 of 5 classes have no label and are never predicted."
    ]
    uneven = torch.tensor([0] * 13 + [1] * 4)
    [said] = label_warnings(uneven, class_count=2, weighted=False)
    assert "13 labels, the smallest 4: rare classes may be overlooked" in said


def supcon_by_loops(z: Tensor, groups: list[int], temperature: float) -> Tensor:
    """Equation 2 of arXiv 2004.11362."""
    z = functional.normalize(z.double(), dim=1)
    losses = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        below = torch.stack([torch.exp(z[i] @ z[a] / temperature) for a in others]).sum()
        positives = [p for p in others if groups[p] == groups[i]]
        terms = [torch.log(torch.exp(z[i] @ z[p] / temperature) / below) for p in positives]
        losses.append(-torch.stack(terms).mean())
    return torch.stack(losses).mean()


def test_supcon_attracts_views_of_the_same_class(
    bars: tuple[NDArray[np.uint8], NDArray[np.int64]], preprocessing: Preprocessing
) -> None:
    torch.manual_seed(0)
    encoder = create_encoder("resnet10_tiny", image_size=8, channels=1)
    head = ProjectionHead(128, hidden_dim=32, projection_dim=16)
    config = dataclasses.replace(FinetuneConfig(method="supcon"), views=3)
    targets = torch.tensor([0, 1, 0, 2])  # one class is alone in the batch
    task = SupConTask(encoder, head, targets, config, preprocessing)
    rows = torch.tensor([3, 0, 2])
    images = torch.from_numpy(bars[0][rows.numpy()])
    inputs = task.prepare(images, rows, generator(0, "cpu"))
    assert inputs.shape == (3, 3, 1, 8, 8)
    task.module.eval()  # so that the projections are the same when computed again
    loss = task.step(inputs, rows).loss
    with torch.no_grad():
        wanted = supcon_by_loops(task.module(inputs.flatten(0, 1)), [2, 0, 0] * 3, 0.1)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
