"""Parameter groups and the schedule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.learning.encoders import create_encoder
from core.learning.optimizers import (
    OPTIMIZERS,
    OptimizerConfig,
    build_optimizer,
    learning_rate_factor,
    scaled_rate,
    set_learning_rate,
)


def small_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_and_biases_do_not_decay(name: str) -> None:
    module = small_module()
    before = {key: value.clone() for key, value in module.named_parameters()}
    config = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(module, config)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in module.named_parameters():
        assert torch.equal(value, before[key]) == (value.ndim == 1), key


def test_lars_scales_by_norms_but_only_matrices() -> None:
    module = small_module()
    before = {key: value.clone() for key, value in module.named_parameters()}
    config = OptimizerConfig(name="lars", learning_rate=1.0, weight_decay=0.0)
    optimizer = build_optimizer(module, config)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    optimizer.step()
    for key, value in module.named_parameters():
        moved = (value - before[key]).norm().item()
        if value.ndim > 1:
            assert moved == pytest.approx(0.001 * before[key].norm().item(), rel=1e-3)
        else:
            assert moved == pytest.approx(5.0 * value.numel() ** 0.5, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name: str) -> None:
    module = small_module()
    rate = {"sgd": 0.1, "lars": 3.0, "adamw": 0.05}[name]
    optimizer = build_optimizer(
        module, OptimizerConfig(name=name, learning_rate=rate, weight_decay=0.0)
    )
    inputs = torch.randn(32, 4)
    targets = (inputs[:, 0] > 0).long()
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(module(inputs), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_unknown_optimizer() -> None:
    config = OptimizerConfig(name="adam", learning_rate=0.1, weight_decay=0.0)
    with pytest.raises(ValueError, match="'adam'"):
        build_optimizer(small_module(), config)


def test_schedule_warms_up_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, steps=100, warmup_steps=10) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1.0
    assert max(factors) == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_schedule_without_warm_up() -> None:
    assert learning_rate_factor(0, steps=10, warmup_steps=0) == 1.0


@pytest.mark.parametrize(
    ("scaling", "batch", "rate"),
    [("none", 4096, 0.3), ("linear", 4096, 4.8), ("linear", 64, 0.075), ("sqrt", 1024, 0.6)],
)
def test_the_rate_grows_with_the_batch(scaling: str, batch: int, rate: float) -> None:
    assert scaled_rate(0.3, scaling=scaling, batch_size=batch) == pytest.approx(rate)


def test_root_scaling_is_that_of_the_paper() -> None:
    # arXiv 2002.05709, appendix B.1: 0.075 times the root of the batch.
    for batch in (256, 512, 1000):
        found = scaled_rate(0.075 * 16, scaling="sqrt", batch_size=batch)
        assert found == pytest.approx(0.075 * batch**0.5)


def test_unknown_scaling() -> None:
    with pytest.raises(ValueError, match="lr_scaling: found 'cubic', allowed are none, sqrt"):
        scaled_rate(0.3, scaling="cubic", batch_size=256)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parts_learn_at_their_own_rates(name: str) -> None:
    module = small_module()
    before = {key: value.clone() for key, value in module.named_parameters()}
    config = OptimizerConfig(
        name=name, learning_rate=1.0, weight_decay=0.0, rate_factors={"0.": 0.0, "3.": 0.5}
    )
    optimizer = build_optimizer(module, config)
    set_learning_rate(optimizer, 0.2)
    rates = {
        id(parameter): group["lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {"0": 0.0, "1": 0.2, "3": 0.1}
    for key, parameter in module.named_parameters():
        assert rates[id(parameter)] == pytest.approx(expected[key[0]])
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for key, value in module.named_parameters():
        assert torch.equal(value, before[key]) == key.startswith("0."), key


def test_the_first_factor_that_fits_counts() -> None:
    module = nn.Sequential(small_module())
    config = OptimizerConfig(
        name="sgd", learning_rate=1.0, weight_decay=0.0, rate_factors={"0.3.": 1.0, "0.": 0.1}
    )
    factors = {
        id(parameter): group["rate_factor"]
        for group in build_optimizer(module, config).param_groups
        for parameter in group["params"]
    }
    for key, parameter in module.named_parameters():
        assert factors[id(parameter)] == (1.0 if key.startswith("0.3.") else 0.1)


@pytest.mark.parametrize("name", ["vit_b_16", "convnext_tiny", "mobilenet_v3_small"])
def test_only_weights_of_linear_layers_and_convolutions_decay(name: str) -> None:
    with torch.device("meta"):
        module = create_encoder(name, image_size=64, channels=3)
    config = OptimizerConfig(name="sgd", learning_rate=0.1, weight_decay=0.5)
    groups = build_optimizer(module, config).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    weights = {
        id(layer.in_proj_weight if isinstance(layer, nn.MultiheadAttention) else layer.weight)
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.MultiheadAttention)
    }
    assert decayed == weights
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
