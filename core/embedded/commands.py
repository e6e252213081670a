"""The commands of API, worker and beat: the same under `fewlabels up` and in a container."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from core.config import Settings, child_environment, required
from core.errors import ConfigurationInvalid
from core.exposition import shared_environment
from core.jobs.queue import IMPORTS_QUEUE, JOBS_QUEUES, SWEEPS_QUEUE

API_DRAIN_SECONDS = 5
# Longer than clients (httpx: 5) and proxies (60) keep an idle connection: whoever closes it first
# must not be the side that does not know whether a request is on its way.
KEEP_ALIVE_SECONDS = 75
SCHEDULE = "beat-schedule"
PYTHON = [sys.executable, "-m"]


def api_command(settings: Settings) -> list[str]:
    """The HTTP server."""
    address = ["--host", settings.host, "--port", str(settings.port)]
    server = ["--http", "httptools", "--loop", "uvloop", "--no-access-log", "--no-server-header"]
    drain = ["--timeout-graceful-shutdown", str(API_DRAIN_SECONDS)]
    drain += ["--timeout-keep-alive", str(KEEP_ALIVE_SECONDS)]
    level = ["--log-level", settings.log_level]
    processes = ["--workers", str(settings.api_processes)] if settings.api_processes > 1 else []
    return [
        *PYTHON,
        "uvicorn",
        "--factory",
        "api.main:create_app",
        *address,
        *server,
        *drain,
        *level,
        *processes,
    ]


def api_environment(settings: Settings) -> dict[str, str]:
    """The environment of the HTTP server's processes."""
    environment = {**child_environment(settings), **shared_environment(settings)}
    # Decoding and forward threads would each keep a heap of their own: hundreds of MB that are
    # never given back.
    environment.setdefault("MALLOC_ARENA_MAX", "2")
    return environment


def worker_command(settings: Settings) -> list[str]:
    """The worker that runs imports, and jobs of the devices that it has."""
    concurrency = ["-c", str(settings.worker_concurrency)]
    taken = [JOBS_QUEUES[device] for device in settings.devices_taken]
    queues = ["-Q", ",".join([*taken, IMPORTS_QUEUE])]
    return [*_celery_worker(settings), *queues, *concurrency, "-n", "worker@%h"]


def beat_command(settings: Settings, run: Path) -> list[str]:
    """The clock and the worker of the sweeps; `run` is a folder for the clock's file."""
    sweeps = ["-B", "-Q", SWEEPS_QUEUE, "-c", "1", "--schedule", str(run / SCHEDULE)]
    return [*_celery_worker(settings), *sweeps, "-n", "beat@%h"]


def forget_schedule(run: Path) -> None:
    """Drop the clock's file, which may be torn after a crash and is made anew."""
    for schedule in run.glob(f"{SCHEDULE}*"):
        schedule.unlink()


def become(name: str, settings: Settings) -> NoReturn:
    """Turn this process into `api`, `worker` or `beat`, so that signals reach it directly.

    Raises:
        ConfigurationInvalid: A URL is missing, or the data folder cannot be written.
    """
    required(settings.database_url, "FEWLABELS_DATABASE_URL")
    required(settings.broker_url, "FEWLABELS_BROKER_URL")
    run = settings.data_dir / "run"
    try:
        run.mkdir(parents=True, exist_ok=True)
        if name == "beat":
            forget_schedule(run)
    except OSError as error:
        raise ConfigurationInvalid(
            f"FEWLABELS_DATA_DIR: {settings.data_dir} cannot be written ({error.strerror})"
        ) from error
    environment = api_environment(settings) if name == "api" else child_environment(settings)
    command = {
        "api": lambda: api_command(settings),
        "worker": lambda: worker_command(settings),
        "beat": lambda: beat_command(settings, run),
    }[name]()
    # Celery and uvicorn look into the working folder first; run/ holds nothing to import.
    os.chdir(run)
    os.execve(command[0], command, environment)


def _celery_worker(settings: Settings) -> list[str]:
    worker = [*PYTHON, "celery", "-A", "worker.celery_app", "worker"]
    # Nobody listens to the events that workers send each other.
    quiet = ["--loglevel", settings.log_level, "--without-gossip", "--without-mingle"]
    return [*worker, "--include", "worker.alive", *quiet]
