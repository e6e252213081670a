"""Gradient caching against one pass over the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core.learning.gradient_cache import cached_step, running_statistics_kept
from core.learning.losses import nt_xent

VIEWS, BATCH = 2, 12
INPUTS_VBD = torch.randn(VIEWS, BATCH, 6, generator=torch.Generator().manual_seed(0))


def network(*, norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(1)
    middle = nn.BatchNorm1d(8) if norm else nn.Identity()
    return nn.Sequential(
        nn.Linear(6, 8), middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 4)
    ).double()


def encoder(module: nn.Module, rows: int) -> Callable[[int], Tensor]:
    """Both views of so many images go through the module together."""

    def encode(chunk: int) -> Tensor:
        part_VBD = INPUTS_VBD[:, chunk * rows : (chunk + 1) * rows].double()
        projections: Tensor = module(part_VBD.flatten(0, 1)).unflatten(0, (VIEWS, -1))
        return projections

    return encode


def loss_of(z_VBD: Tensor) -> Tensor:
    return nt_xent(z_VBD, temperature=0.2)


def gradients(module: nn.Module) -> list[Tensor]:
    found = []
    for parameter in module.parameters():
        assert parameter.grad is not None
        found.append(parameter.grad)
    return found


@pytest.mark.parametrize("rows", [12, 6, 5, 1])
def test_gradients_are_those_of_the_whole_batch(rows: int) -> None:
    whole, cached = network(), network()
    expected = loss_of(encoder(whole, BATCH)(0))
    torch.autograd.backward(expected)
    loss, backward = cached_step(
        encoder(cached, rows), -(-BATCH // rows), loss_of=loss_of, module=cached
    )
    backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradients(cached), gradients(whole))


def test_every_chunk_is_normalised_by_itself() -> None:
    reference, cached = network(norm=True), network(norm=True)
    encode = encoder(reference, 4)
    expected = loss_of(torch.cat([encode(chunk) for chunk in range(3)], dim=1))
    torch.autograd.backward(expected)
    loss, backward = cached_step(encoder(cached, 4), 3, loss_of=loss_of, module=cached)
    backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradients(cached), gradients(reference))


@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0])
def test_running_statistics_move_once_by_the_mean_over_the_chunks(momentum: float) -> None:
    module = network(norm=True)
    norm = module[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.momentum = momentum
    norm.running_mean.fill_(3.0)
    inputs_VBD = INPUTS_VBD.double()
    chunks = [module[0](inputs_VBD[:, 4 * k : 4 * k + 4].flatten(0, 1)) for k in range(3)]
    mean_D = torch.stack([chunk.mean(dim=0) for chunk in chunks]).mean(dim=0)
    var_D = torch.stack([chunk.var(dim=0) for chunk in chunks]).mean(dim=0)
    _, backward = cached_step(encoder(module, 4), 3, loss_of=loss_of, module=module)
    backward()
    torch.testing.assert_close(norm.running_mean, (1 - momentum) * 3.0 + momentum * mean_D.detach())
    torch.testing.assert_close(norm.running_var, (1 - momentum) * 1.0 + momentum * var_D.detach())
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 1
    assert norm.momentum == momentum


def test_running_statistics_can_be_kept() -> None:
    module = network(norm=True)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    expected = network(norm=True)(INPUTS_VBD[0].double())
    with running_statistics_kept(module):
        found = module(INPUTS_VBD[0].double())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)
    module(INPUTS_VBD[0].double())
    assert module.state_dict()["1.num_batches_tracked"].item() == 1


def test_both_passes_drop_the_same_units() -> None:
    """The gradient is that of the loss that was reported."""
    module = network(dropout=0.5)
    encode, seen = encoder(module, 4), []

    def watched(chunk: int) -> Tensor:
        seen.append(encode(chunk))
        return seen[-1]

    _, backward = cached_step(watched, 3, loss_of=loss_of, module=module)
    outside = torch.get_rng_state()
    backward()
    assert torch.equal(torch.get_rng_state(), outside)
    assert not seen[0].equal(encode(0))  # dropout is at work
    torch.testing.assert_close(seen[:3], [z.detach() for z in seen[3:]], rtol=0, atol=0)


@pytest.mark.parametrize("outside", [True, False])
def test_the_second_pass_has_the_precision_of_the_first(outside: bool) -> None:
    """The trainer calls `backward` outside of autocast."""
    module, seen = network().float(), []

    def encode(chunk: int) -> Tensor:
        part_VBD = INPUTS_VBD[:, chunk * 6 : chunk * 6 + 6]
        projections: Tensor = module(part_VBD.flatten(0, 1)).unflatten(0, (VIEWS, -1))
        seen.append(projections)
        return projections

    with torch.autocast("cpu", torch.bfloat16):
        _, backward = cached_step(encode, 2, loss_of=loss_of, module=module)
        if not outside:
            backward()
    if outside:
        backward()
    assert {z.dtype for z in seen} == {torch.bfloat16}
    assert all(grad.isfinite().all() and grad.any() for grad in gradients(module))
