"""The real API process to be soaked: servers from wheels, three models, an alias, no worker."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from core.config import Settings
from core.db.migrating import upgrade
from core.db.session import make_engine, session_factory
from core.embedded.folder import claimed_folder
from core.embedded.servers import with_servers
from core.embedded.service import base_url, service_programs
from core.embedded.supervisor import Supervisor
from core.embedded.valkey import free_port
from core.storage.store import open_store
from tests.tiny_models import CLASSES, record_tiny_model

START_SECONDS = 120.0
# A pass of it takes longer than all around it, and its head is not a new one.
MADE: dict[str, Any] = {"encoder": "resnet18", "side": 32, "head_std": 0.02}
MODELS = 3  # one more than there is room for


@dataclass(frozen=True, slots=True)
class Service:
    """Where it answers, its process, and the ids of its models."""

    url: str
    process: psutil.Process
    models: list[str]

    def resident(self) -> int:
        """Bytes of memory of its process and of those that this one has started."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(_resident(process) for process in family)


@contextmanager
def running_service(folder: Path, *, processes: int = 1) -> Iterator[Service]:
    """A service in that folder, of so many API processes, whose limits are soon reached."""
    settings = Settings(
        _env_file=None,
        data_dir=folder,
        port=free_port("127.0.0.1"),
        device="cpu",
        requests_per_second=0,
        inference_queue=64,
        inference_seconds=10,
        max_loaded_models=MODELS - 1,
        api_processes=processes,
        log_level="warning",
    )
    with claimed_folder(folder) as claimed, Supervisor(claimed) as supervisor:
        settings = with_servers(settings, supervisor, tell=lambda _: None)
        upgrade(settings.sqlalchemy_url)
        store = open_store(settings.store_url)
        store.prepare()
        database = make_engine(settings.sqlalchemy_url)
        with session_factory(database).begin() as session:
            models = [
                str(record_tiny_model(session, store, classes=CLASSES, seed=seed, **MADE))
                for seed in range(MODELS)
            ]
        database.dispose()
        api = next(one for one in service_programs(settings, claimed) if one.name == "api")
        url = base_url(settings)
        child = supervisor.start(api)
        supervisor.wait(child, lambda: is_ready(url), seconds=START_SECONDS)
        yield Service(url, psutil.Process(child.pid), models)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:  # it ended between the two looks
        return 0


def is_ready(url: str) -> bool:
    """Whether /readyz is green."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
