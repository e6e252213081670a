"""Heads on cached features: what is fitted, how often, and when it stops."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.learning.encoders import Encoder
from core.learning.finetuning import FinetuneConfig, cached, finetune
from core.learning.finetuning.cached import HeadFitter
from core.learning.logistic import choose_l2
from core.learning.minibatch import choose_l2_by_sgd
from core.learning.preprocessing import Preprocessing
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

HEAD = FinetuneConfig(method="auto", layer="auto")
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


@pytest.mark.parametrize("held_out", [False, True])
def test_the_penalty_of_a_head_is_chosen_once(
    digits: Drawn,
    preprocessing: Preprocessing,
    encoder: Encoder,
    held_out: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    for name in ("choose_l2", "cross_validate", "fit_logistic"):
        real = getattr(cached, name)

        def counted(*args: Any, name: str = name, real: Any = real, **named: Any) -> Any:
            asked.append(name)
            return real(*args, **named)

        monkeypatch.setattr(cached, name, counted)
    validation = of_each(digits, 5, start=5) if held_out else None
    config = FinetuneConfig()
    found = finetune(
        *of_each(digits, 5),
        encoder,
        config,
        preprocessing,
        class_count=10,
        run=Run(),
        validation=validation,
    )
    assert asked == (["choose_l2"] if held_out else ["cross_validate"]) + ["fit_logistic"]
    assert found.report["l2"] == found.report["candidates"][0]["l2"] > 0


def test_very_many_classes_choose_a_penalty_in_minibatches() -> None:
    def fitter(class_count: int, solver: str = "lbfgs") -> HeadFitter:
        return HeadFitter(
            method="linear", class_count=class_count, solver=solver, weights_K=None, seed=0
        )

    x = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(3000) % 1000
    _, l2 = fitter(1000).fit(x, y)
    assert l2 == choose_l2_by_sgd(x, y, class_count=1000, seed=0)
    _, few = fitter(10).fit(x[:100], y[:100] % 10)
    assert few == choose_l2(x[:100], y[:100] % 10, class_count=10, seed=0)


def test_a_run_stops_between_the_fits_of_candidates(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 3  # before the features, the first head, the second

    run = Run(should_stop=stop)
    with pytest.raises(Stopped, match="before comparing heads"):
        finetune(*of_each(digits, 3), encoder, HEAD, preprocessing, class_count=10, run=run)
    assert len(asked) == 3


def test_each_fold_chooses_its_own_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a fold have no say in the penalty of the head that is asked for them."""
    asked: list[int] = []

    def chosen(features: torch.Tensor, *args: Any, **named: Any) -> float:
        asked.append(len(features))
        return 0.1

    monkeypatch.setattr(cached, "choose_l2", chosen)
    monkeypatch.setattr(cached, "CHOOSE_ROWS", 50)
    features, targets = torch.randn(100, 4), torch.arange(100) % 2
    fitter = HeadFitter(method="linear", class_count=2, solver="lbfgs", weights_K=None, seed=0)
    fitter.cross_validate(features, targets, torch.arange(100) % 4)
    assert asked == [75, 75, 75, 75, 100]


def test_networks_that_could_not_be_compared_are_named(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    images, targets = of_each(digits, 20)
    two = targets < 2
    found = finetune(
        images[two], targets[two], encoder, HEAD, preprocessing, class_count=2, run=Run()
    )
    assert {trial["method"] for trial in found.report["candidates"]} == {"linear", "prototype"}
    assert any("full and supcon not tried" in warning for warning in found.report["warnings"])
