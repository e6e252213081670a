"""Metrics as Prometheus reads them: of this process, or of all API processes on one port."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from core.config import Settings
from core.telemetry import REGISTRY

# prometheus_client reads it when it is imported: whoever starts the processes sets it for them.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
OF_A_PROCESS = re.compile(r"gauge_live[a-z]*_(\d+)\.db")


def shared_folder(settings: Settings) -> Path | None:
    """Where API processes share their metrics; None when there is one process."""
    return settings.data_dir / "run" / "metrics" if settings.api_processes > 1 else None


def shared_environment(settings: Settings) -> dict[str, str]:
    """What several API processes need in their environment; empties the folder they share."""
    folder = shared_folder(settings)
    if folder is None:
        return {}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return {VARIABLE: str(folder)}


def forget_dead(settings: Settings) -> None:
    """Drop the gauges of API processes that have died; their counters stay."""
    folder = shared_folder(settings)
    for path in folder.glob("gauge_live*.db") if folder else ():
        found = OF_A_PROCESS.fullmatch(path.name)
        if found and not psutil.pid_exists(int(found[1])):
            multiprocess.mark_process_dead(int(found[1]), str(folder))  # type: ignore[no-untyped-call]


def exposition(settings: Settings) -> bytes:
    """All metrics in the text format, summed over the API processes that there are."""
    folder = shared_folder(settings)
    if folder is None or not folder.is_dir():
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)
