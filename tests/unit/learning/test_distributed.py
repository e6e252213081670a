"""Two real processes (gloo) against one process with the same global batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.learning.distributed import (
    SynchronisedBatchNorm,
    World,
    all_stop,
    average_gradients,
    gather_keys,
    gather_with_gradient,
    synchronise_batch_norm,
    world,
    wrap,
)
from core.learning.gradient_cache import cached_step
from core.learning.losses import contrastive_loss, view_groups

SIZE, VIEWS, BATCH = 2, 2, 8
IMAGES_BD = torch.randn(VIEWS, BATCH, 3, 4, generator=torch.Generator().manual_seed(0))
TARGETS_B = torch.tensor([0, 1, -1, 0, 1, -1, 2, 1])
CASES = [("nt_xent", False), ("supcon", True), ("dcl", True)]


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)
    )


def step(module: nn.Module, loss: str, *, labels: bool) -> Tensor:
    """Forward, backward and averaging of this process's part of the batch."""
    this = world()
    rows = BATCH // this.size
    part = slice(this.rank * rows, (this.rank + 1) * rows)
    z_ND = module(IMAGES_BD[:, part].flatten(0, 1))
    groups_N = view_groups(
        rows, VIEWS, targets_B=TARGETS_B[part] if labels else None, first=this.rank * rows
    )
    value = contrastive_loss(
        z_ND, groups_N, loss=loss, temperature=0.2, keys=gather_keys(z_ND, groups_N)
    )
    torch.autograd.backward(value)
    average_gradients(module)
    return value.detach()


def large_step(module: nn.Module) -> Tensor:
    """As `step`, with gradient caching; the module has no batch normalisation."""
    this = world()
    rows = BATCH // this.size
    part = IMAGES_BD[:, this.rank * rows : (this.rank + 1) * rows]
    groups_N = view_groups(rows, VIEWS, first=this.rank * rows)

    def encode(chunk: int) -> Tensor:
        images = part[:, 2 * chunk : 2 * chunk + 2]
        projections: Tensor = module(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return projections

    def loss_of(z_VBD: Tensor) -> Tensor:
        z_ND = z_VBD.flatten(0, 1)
        keys = gather_keys(z_ND, groups_N)
        return contrastive_loss(z_ND, groups_N, loss="nt_xent", temperature=0.2, keys=keys)

    loss, backward = cached_step(encode, rows // 2, loss_of=loss_of, module=module)
    backward()
    average_gradients(module)
    return loss


def perceptron() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def state(module: nn.Module) -> dict[str, Tensor]:
    """Gradients and running statistics after a step."""
    gradients = {
        f"{n} gradient": p.grad for n, p in module.named_parameters() if p.grad is not None
    }
    return gradients | dict(module.named_buffers())


def of_one_process(folder: Path) -> None:
    """What every process of the test runs; all assertions are made by the parent."""
    torch.distributed.init_process_group("gloo")
    this, found = world(), {}
    for loss, labels in CASES:
        module = wrap(network(seed=10 + this.rank))  # other weights in each process
        found[loss] = {"loss": step(module, loss, labels=labels), **state(module)}
        module.eval()
        found[loss]["eval"] = module(IMAGES_BD[0]).detach()
    module = perceptron()
    found["large"] = {"loss": large_step(module), **state(module)}
    found["stop"] = {"one": torch.tensor([all_stop(this.rank == 1), all_stop(False)])}
    leaf = torch.full((2, 1), float(this.rank), requires_grad=True)
    gathered = gather_with_gradient(leaf)
    torch.autograd.backward((gathered.flatten() * torch.arange(4) * (this.rank + 1)).sum())
    assert leaf.grad is not None
    found["gather"] = {"rows": gathered.detach(), "gradient": leaf.grad}
    torch.save(found, folder / f"{this.rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each process saved."""
    folder = tmp_path_factory.mktemp("processes")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={SIZE}"]
    done = subprocess.run(
        [sys.executable, *launcher, __file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[3],
        env={"PYTHONPATH": ".", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]


@pytest.mark.parametrize(("loss", "labels"), CASES)
def test_two_processes_train_as_one(
    found: list[dict[str, dict[str, Tensor]]], loss: str, labels: bool
) -> None:
    module = network(seed=10)
    expected_loss = step(module, loss, labels=labels)
    expected = state(module)
    module.eval()
    expected["eval"] = module(IMAGES_BD[0]).detach()
    losses = torch.stack([process[loss].pop("loss") for process in found])
    torch.testing.assert_close(losses.mean(), expected_loss)
    for process in found:
        torch.testing.assert_close(process[loss], expected, rtol=1e-4, atol=1e-6)


def test_gradient_caching_in_two_processes(found: list[dict[str, dict[str, Tensor]]]) -> None:
    module = perceptron()
    expected_loss = large_step(module)
    losses = torch.stack([process["large"].pop("loss") for process in found])
    torch.testing.assert_close(losses.mean(), expected_loss)
    for process in found:
        torch.testing.assert_close(process["large"], state(module), rtol=1e-4, atol=1e-6)


def test_all_processes_stop_together(found: list[dict[str, dict[str, Tensor]]]) -> None:
    for process in found:
        assert process["stop"]["one"].tolist() == [True, False]


def test_gathered_rows_and_their_gradients(found: list[dict[str, dict[str, Tensor]]]) -> None:
    for rank, process in enumerate(found):
        assert process["gather"]["rows"].flatten().tolist() == [0, 0, 1, 1]
        # Row r has weight r in the first process and 2 r in the second.
        rows = (2 * rank, 2 * rank + 1)
        assert process["gather"]["gradient"].flatten().tolist() == [3.0 * row for row in rows]


def test_one_process_needs_nothing() -> None:
    assert world() == World(rank=0, size=1)
    module = network(seed=0)
    assert wrap(module) is module
    assert not any(isinstance(part, SynchronisedBatchNorm) for part in module.modules())
    z_ND = torch.ones(2, 3)
    assert gather_with_gradient(z_ND) is z_ND
    assert gather_keys(z_ND, torch.zeros(2)) is None
    assert all_stop(True)
    assert not all_stop(False)


def test_synchronised_batch_norm_keeps_state_and_output() -> None:
    plain, synchronised = network(seed=3), synchronise_batch_norm(network(seed=3))
    assert any(isinstance(part, SynchronisedBatchNorm) for part in synchronised.modules())
    torch.testing.assert_close(dict(synchronised.state_dict()), dict(plain.state_dict()))
    torch.testing.assert_close(synchronised(IMAGES_BD[0]), plain(IMAGES_BD[0]))


if __name__ == "__main__":
    of_one_process(Path(sys.argv[1]))
