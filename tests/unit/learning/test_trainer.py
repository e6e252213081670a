"""The loop, on a task that a person can follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.learning.batches import Shuffled
from core.learning.checkpoint import Checkpoint
from core.learning.optimizers import OptimizerConfig, learning_rate_factor
from core.learning.progress import Progress
from core.learning.tasks import StepResult
from core.learning.trainer import Stopped, Trainer, TrainerConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1), dtype=np.uint8)
CONFIG = TrainerConfig(
    epochs=3,
    batch_size=8,
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, weight_decay=0.0),
    warmup_epochs=1.0,
    seed=0,
)


class Brightness:
    """Learns the mean of noisy images through dropout; a step takes `pace` seconds of `clock`."""

    def __init__(self, clock: Clock | None = None, pace: Callable[[int], float] | None = None):
        torch.manual_seed(0)
        self.module: nn.Module = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.clock = clock
        self.pace = pace
        self.steps = 0
        self.own_backward = False

    def prepare(self, images_BHWC: Tensor, rows_B: Tensor, generator: torch.Generator) -> Tensor:
        images_BP = images_BHWC.flatten(1) / 255
        return images_BP + 0.1 * torch.randn(images_BP.shape, generator=generator)

    def step(self, inputs: Tensor, rows_B: Tensor) -> StepResult:
        if self.clock is not None and self.pace is not None:
            self.clock.now += self.pace(self.steps)
        self.steps += 1
        loss = (self.module(inputs).squeeze(1) - inputs.mean(dim=1)).square().mean()
        if not self.own_backward:
            return StepResult(loss, {"mean": inputs.mean()})
        return StepResult(loss.detach(), backward=lambda: torch.autograd.backward(loss))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class EveryFew:
    """A monitor that says when, and counts."""

    def __init__(self, every: int, *, enough: int) -> None:
        self.every = every
        self.enough = enough
        self.losses: list[float] = []
        self.looks = 0

    @property
    def message(self) -> str | None:
        return f"looked {self.looks} times" if self.looks else None

    @property
    def finished(self) -> bool:
        return self.looks >= self.enough

    def due(self, step: int, steps: int | None) -> bool:
        return step % self.every == 0 or step == steps

    def note(self, loss: float) -> None:
        self.losses.append(loss)

    def look(self, step: int) -> dict[str, float]:
        self.looks += 1
        return {"looks": float(self.looks)}

    def state(self) -> dict[str, Any]:
        return {"looks": self.looks, "losses": self.losses}

    def resume(self, state: Mapping[str, Any]) -> None:
        self.looks, self.losses = state["looks"], list(state["losses"])


def weights(task: Brightness) -> list[float]:
    return torch.cat(
        [value.double().flatten() for value in task.module.state_dict().values()]
    ).tolist()


def stop_after(steps: int) -> Callable[[], bool]:
    asked = iter(range(1, 10_000))
    return lambda: next(asked) >= steps


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder, seconds=1e9, fingerprint={})


def test_steps_epochs_and_learning_rates_are_reported() -> None:
    seen: list[Progress] = []
    finished = Trainer(CONFIG, on_step=seen.append).fit(Brightness(), IMAGES)
    assert [(p.step, p.epoch) for p in seen] == [(n + 1, n // 5 + 1) for n in range(15)]
    assert {(p.steps, p.epochs) for p in seen} == {(15, 3)}
    assert (finished.steps, finished.epochs, finished.stopped_early) == (15, 3.0, False)
    for step, progress in enumerate(seen):
        factor = learning_rate_factor(step, steps=15, warmup_steps=5)
        assert progress.metrics["learning_rate"] == pytest.approx(0.05 * factor)
        assert 0 <= progress.data_wait <= 1
        assert not progress.probed
    assert "grad_norm" not in seen[0].metrics


def test_speed_is_that_of_the_recent_steps() -> None:
    clock, seen = Clock(), list[Progress]()
    config = dataclasses.replace(CONFIG, epochs=40)
    task = Brightness(clock, lambda step: 4.0 if step < 100 else 0.5)
    finished = Trainer(config, on_step=seen.append, clock=clock).fit(task, IMAGES)
    assert seen[99].images_per_second == pytest.approx(8 / 4.0)
    assert seen[99].seconds_left == pytest.approx(100 * 4.0)
    assert seen[-1].images_per_second == pytest.approx(8 / 0.5)
    assert seen[-1].seconds_left == 0
    assert finished.seconds == 100 * 4.0 + 100 * 0.5


def test_a_task_may_go_backward_itself() -> None:
    usual, own = Brightness(), Brightness()
    own.own_backward = True
    Trainer(CONFIG).fit(usual, IMAGES)
    Trainer(CONFIG).fit(own, IMAGES)
    assert weights(usual) == weights(own)


def test_gradients_are_clipped_and_their_length_reported() -> None:
    config = dataclasses.replace(
        CONFIG, epochs=1, batch_size=40, warmup_epochs=0.0, clip_grad_norm=1e-3
    )
    seen: list[Progress] = []
    task = Brightness()
    before = {name: value.detach().clone() for name, value in task.module.named_parameters()}
    Trainer(config, on_step=seen.append).fit(task, IMAGES)
    moved = torch.cat(
        [(value - before[name]).flatten() for name, value in task.module.named_parameters()]
    )
    assert [progress.steps for progress in seen] == [1]
    assert seen[0].metrics["grad_norm"] > 0.01
    # The first Nesterov step is rate times (1 + momentum) times the gradient.
    assert moved.norm().item() == pytest.approx(0.05 * 1.9 * 1e-3, rel=1e-3)


def test_the_seed_decides() -> None:
    tasks = [Brightness() for _ in range(3)]
    for task, seed in zip(tasks, (0, 0, 1), strict=True):
        torch.rand(3)
        Trainer(dataclasses.replace(CONFIG, seed=seed)).fit(task, IMAGES)
    assert weights(tasks[0]) == weights(tasks[1])
    assert weights(tasks[0]) != weights(tasks[2])


@pytest.mark.parametrize("steps", [1, 7, 14])
def test_dropout_and_noise_go_on_where_they_were(tmp_path: Path, steps: int) -> None:
    undisturbed, resumed = Brightness(), Brightness()
    Trainer(CONFIG).fit(undisturbed, IMAGES)
    with pytest.raises(Stopped, match=f"stopped after step {steps} of 15"):
        Trainer(CONFIG, checkpoint=checkpoint(tmp_path), should_stop=stop_after(steps)).fit(
            Brightness(), IMAGES
        )
    Trainer(CONFIG, checkpoint=checkpoint(tmp_path)).fit(resumed, IMAGES)
    assert weights(undisturbed) == weights(resumed)


def test_a_monitor_sees_every_loss_and_may_end_it() -> None:
    seen: list[Progress] = []
    monitor = EveryFew(4, enough=2)
    finished = Trainer(CONFIG, on_step=seen.append).fit(Brightness(), IMAGES, monitor=monitor)
    assert (finished.steps, finished.epochs, finished.stopped_early) == (8, 1.6, True)
    assert monitor.losses == [progress.loss for progress in seen]
    assert [progress.probed for progress in seen] == [False] * 3 + [True] + [False] * 3 + [True]
    assert [p.metrics.get("looks") for p in seen] == [None] * 3 + [1.0] + [None] * 3 + [2.0]
    assert [p.message for p in seen[2:5]] == [None, "looked 1 times", "looked 1 times"]
    assert (seen[-2].steps, seen[-1].steps, seen[-1].seconds_left) == (15, 8, 0.0)


def test_enough_at_the_very_end_is_not_early() -> None:
    monitor = EveryFew(100, enough=1)
    finished = Trainer(CONFIG).fit(Brightness(), IMAGES, monitor=monitor)
    assert (finished.steps, finished.stopped_early) == (15, False)


def test_what_a_monitor_counts_survives_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        Trainer(CONFIG, checkpoint=checkpoint(tmp_path), should_stop=stop_after(6)).fit(
            Brightness(), IMAGES, monitor=EveryFew(4, enough=2)
        )
    monitor = EveryFew(4, enough=2)
    finished = Trainer(CONFIG, checkpoint=checkpoint(tmp_path)).fit(
        Brightness(), IMAGES, monitor=monitor
    )
    assert (finished.steps, finished.stopped_early) == (8, True)
    assert len(monitor.losses) == 8


def test_a_run_that_ended_early_stays_ended(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="stopped after step 8 of 8"):
        Trainer(CONFIG, checkpoint=checkpoint(tmp_path), should_stop=stop_after(8)).fit(
            Brightness(), IMAGES, monitor=EveryFew(4, enough=2)
        )
    task = Brightness()
    finished = Trainer(CONFIG, checkpoint=checkpoint(tmp_path)).fit(
        task, IMAGES, monitor=EveryFew(4, enough=2)
    )
    assert (finished.steps, finished.stopped_early, task.steps) == (8, True, 0)


BUDGET = dataclasses.replace(CONFIG, epochs=None, budget_minutes=2.0)


def test_a_budget_decides_how_long() -> None:
    clock, seen = Clock(), list[Progress]()
    finished = Trainer(BUDGET, on_step=seen.append, clock=clock).fit(
        Brightness(clock, lambda _: 0.5), IMAGES
    )
    assert finished.seconds == clock.now == pytest.approx(120.0, rel=0.02)
    assert seen[-1].step == seen[-1].steps == finished.steps
    assert seen[-1].epoch == seen[-1].epochs == finished.steps // 5
    assert seen[3].steps == pytest.approx(240, abs=2), "an estimate while it is being measured"
    assert seen[3].seconds_left == 118.0
    rates = [progress.metrics["learning_rate"] for progress in seen]
    assert rates[:5] == pytest.approx([0.05 * (n + 1) / 6 for n in range(5)])
    assert rates[5:12] == pytest.approx([0.05] * 7, rel=1e-2), "no decay before the end is known"
    assert rates[-1] < 1e-4


def test_a_short_budget_warms_up_all_the_same() -> None:
    config = dataclasses.replace(BUDGET, warmup_epochs=100.0)
    clock, seen = Clock(), list[Progress]()
    Trainer(config, on_step=seen.append, clock=clock).fit(Brightness(clock, lambda _: 0.5), IMAGES)
    rates = [progress.metrics["learning_rate"] for progress in seen]
    peak = rates.index(max(rates))
    assert len(rates) / 20 < peak < len(rates) / 4
    assert max(rates) == pytest.approx(0.05, rel=0.01)
    rises = [later - earlier for earlier, later in pairwise(rates)]
    assert max(rises) < 0.05 / 20, "no jump when the length becomes known"


def test_an_interrupted_budget_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    with pytest.raises(Stopped):
        Trainer(
            BUDGET, clock=clock, checkpoint=checkpoint(tmp_path), should_stop=stop_after(100)
        ).fit(Brightness(clock, lambda _: 0.5), IMAGES)
    notes = checkpoint(tmp_path).load()
    assert notes is not None
    planned = notes.scalars["notes"]["steps"]
    assert notes.scalars["notes"]["seconds"] == 50.0
    clock, seen = Clock(), list[Progress]()
    finished = Trainer(
        BUDGET, clock=clock, checkpoint=checkpoint(tmp_path), on_step=seen.append
    ).fit(Brightness(clock, lambda _: 0.5), IMAGES)
    assert {progress.steps for progress in seen} == {planned} == {finished.steps}
    assert finished.seconds == pytest.approx(120.0, rel=0.02)
    assert clock.now == pytest.approx(70.0, rel=0.02)


def test_a_run_needs_an_end() -> None:
    with pytest.raises(ValueError, match="epochs and budget_minutes: found neither"):
        dataclasses.replace(CONFIG, epochs=None)
    with pytest.raises(ValueError, match="epochs and batch_size: found 0 and 8"):
        dataclasses.replace(CONFIG, epochs=0)


@pytest.mark.parametrize("name", ["clip_grad_norm", "budget_minutes"])
def test_limits_are_above_zero(name: str) -> None:
    given: dict[str, Any] = {name: 0.0}
    with pytest.raises(ValueError, match=f"{name}: found 0.0, more than 0 is needed"):
        dataclasses.replace(CONFIG, **given)


def test_batches_may_be_chosen() -> None:
    rows: list[int] = []

    class Few:
        steps_per_epoch = 5

        def rows(self, step: int) -> Tensor:
            drawn = Shuffled(10, batch_size=8, seed=1).rows(step)
            rows.extend(drawn.tolist())
            return drawn

    Trainer(CONFIG).fit(Brightness(), IMAGES, batches=Few())
    assert set(rows) == set(range(10))
