"""Weights and training checkpoints as safetensors and JSON; no pickle."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_weights(module: nn.Module, path: Path) -> None:
    """Write all parameters and buffers of a module to one safetensors file."""
    save_file(_contiguous(module.state_dict()), path)


def load_weights(module: nn.Module, path: Path, *, mapped: bool = False) -> None:
    """Read what `save_weights` wrote, into a module of the same architecture.

    Args:
        module: Of the same architecture.
        path: The file.
        mapped: Whether the module uses the file's pages where they are: processes on one machine
            share them. The file must stay as it is.

    Raises:
        ValueError: A name or a shape differs.
        safetensors.SafetensorError: The file is not a safetensors file, or cut short.
    """
    try:
        module.load_state_dict(load_file(path), strict=True, assign=mapped)
    except RuntimeError as error:
        raise ValueError(f"{path.name} does not hold the weights of this model: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """Where a run is: steps done, and every tensor that the next step depends on."""

    step: int
    tensors: dict[str, Tensor]
    scalars: dict[str, Any]


class Checkpoint:
    """The latest state of one training run, in a folder of its own.

    Args:
        folder: Made when missing; nothing else may live in it.
        seconds: Training time between two checkpoints.
        fingerprint: Identifies the run (configuration and data); plain JSON types.
        allowed: Asked before each one: a run that goes on from it does not report again what
            came before, so that must have been written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        fingerprint: Mapping[str, Any],
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self.folder = folder
        self.seconds = seconds
        self.fingerprint = json.loads(json.dumps(dict(fingerprint)))
        self.allowed = allowed
        self._saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._saved_at >= self.seconds

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint; whenever the process dies, a whole one remains."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"step-{state.step:012d}"
        unfinished = self.folder / f"unfinished-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        save_file(_contiguous(state.tensors), unfinished / "tensors.safetensors")
        record = {"step": state.step, "scalars": state.scalars, "fingerprint": self.fingerprint}
        (unfinished / "state.json").write_text(json.dumps(record))
        for path in (unfinished / "tensors.safetensors", unfinished / "state.json", unfinished):
            _flush(path)
        if target.exists():  # the same step again: it holds the same state
            shutil.rmtree(unfinished)
        else:
            unfinished.rename(target)
            _flush(self.folder)
        for entry in self.folder.iterdir():
            if entry != target:
                shutil.rmtree(entry)
        self._saved_at = time.monotonic()

    def load(self) -> TrainingState | None:
        """The latest state, or None when there is none.

        Raises:
            ValueError: The folder holds the checkpoint of another run.
        """
        found = sorted(self.folder.glob("step-*"))
        if not found:
            return None
        record = json.loads((found[-1] / "state.json").read_text())
        if not _fits(record["fingerprint"], self.fingerprint):
            raise ValueError(
                f"{self.folder} holds a checkpoint of another run: found "
                f"{record['fingerprint']}, this one is {self.fingerprint}"
            )
        tensors = load_file(found[-1] / "tensors.safetensors")
        return TrainingState(step=record["step"], tensors=tensors, scalars=record["scalars"])


def _fits(saved: object, wanted: object) -> bool:
    """Whether two fingerprints are of the same run; an older version knew fewer options."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        return all(name in wanted and _fits(saved[name], wanted[name]) for name in saved)
    return saved == wanted


def capture(
    step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    notes: Mapping[str, Any],
) -> TrainingState:
    """Weights, optimizer state and notes (plain JSON types).

    No generator is in it: what is random in a step follows from the seed and the step.
    """
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    scalars: dict[str, Any] = {"notes": dict(notes)}
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            key = f"optimizer.{index}.{name}"
            if isinstance(value, Tensor):
                tensors[key] = value
            else:
                scalars[key] = value
    return TrainingState(step=step, tensors=tensors, scalars=scalars)


def restore(
    state: TrainingState, module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put back what `capture` took; returns its notes."""
    module.load_state_dict(
        {
            name.removeprefix("module."): tensor
            for name, tensor in state.tensors.items()
            if name.startswith("module.")
        }
    )
    entries: dict[int, dict[str, Any]] = {}
    for key, value in {**state.tensors, **state.scalars}.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            entries.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    _lay_out(optimizer)
    notes: dict[str, Any] = state.scalars["notes"]
    return notes


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the strides of their weights, which a file does not keep.

    A fused optimizer walks through memory and would pair the wrong elements otherwise.
    """
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _flush(path: Path) -> None:
    """Make a file or a folder survive a power cut before anything is renamed to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
