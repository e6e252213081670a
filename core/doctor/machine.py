"""Checks of this machine: versions, disk, memory, device."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil

from core.config import Settings, misspelt_settings
from core.doctor.finding import Finding, Level

GIB = 2**30
DISK_WARNING, DISK_FAILURE = 10 * GIB, GIB
MEMORY_WARNING, MEMORY_FAILURE = 4 * GIB, GIB
NAMED = ("fewlabels", "torch", "torchvision", "fastapi", "celery", "sqlalchemy", "pillow")


def check_versions(settings: Settings) -> Iterator[Finding]:
    """What is installed; to send along with a question."""
    del settings
    found = ", ".join(f"{name} {version(name)}" for name in NAMED)
    python = f"Python {sys.version.split()[0]} on {platform.system()} {platform.machine()}"
    yield Finding("versions", "ok", f"{python}; {found}")


def check_names(settings: Settings) -> Iterator[Finding]:
    """Every variable with our prefix is a setting: one that is misspelt counts for nothing."""
    del settings
    for name, meant in misspelt_settings().items():
        said = f"{name} is no setting, so it has no effect"
        remedy = f"is {meant} meant?" if meant else "remove it; .env.example has all settings"
        yield Finding("settings", "warning", said, remedy)


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Room where caches, checkpoints and embedded servers write."""
    folder = _existing(settings.data_dir)
    free = psutil.disk_usage(str(folder)).free
    level = _level(free, DISK_WARNING, DISK_FAILURE)
    remedy = f"make room under {settings.data_dir}, or move FEWLABELS_DATA_DIR to a larger disk"
    said = f"{free / GIB:.1f} GiB free at {settings.data_dir}"
    yield Finding("disk", level, said, "" if level == "ok" else remedy)


def check_memory(settings: Settings) -> Iterator[Finding]:
    """Memory for training and serving."""
    del settings
    memory = psutil.virtual_memory()
    level = _level(memory.available, MEMORY_WARNING, MEMORY_FAILURE)
    said = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    remedy = "end other programs, or lower batch_size and FEWLABELS_WORKER_CONCURRENCY"
    yield Finding("memory", level, said, "" if level == "ok" else remedy)


def check_device(settings: Settings) -> Iterator[Finding]:
    """The device that jobs would train on is the one that is wished for."""
    # By name: PyTorch takes seconds, and is needed for this check alone.
    found = importlib.import_module("core.stages.context").resolve_device(settings)
    if settings.device == "cuda" and found != "cuda":
        remedy = (
            "install a CUDA build of PyTorch and the driver (nvidia-smi shows the GPU; in a "
            "container pass it through), or set FEWLABELS_DEVICE=auto"
        )
        said = f"FEWLABELS_DEVICE is cuda, but PyTorch {version('torch')} sees no GPU"
        yield Finding("device", "failure", said, remedy)
        return
    yield Finding("device", "ok", f"jobs train on {found} (FEWLABELS_DEVICE={settings.device})")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _level(found: float, warning: float, failure: float) -> Level:
    if found < failure:
        return "failure"
    return "warning" if found < warning else "ok"
