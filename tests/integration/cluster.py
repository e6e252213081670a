"""The service over hosts that are network namespaces: servers, API and sweep on the hub."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from PIL import Image as Pillow
from sklearn.datasets import load_digits
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.auth import create_key
from core.config import Settings, child_environment
from core.db.migrating import upgrade
from core.db.models import Dataset, Job
from core.db.session import make_engine, session_factory
from tests.integration.job_engine import TINY, wait_until
from tests.network_hosts import ADDRESS, Host, Network
from tests.network_servers import start_servers

IMAGES = 160


@dataclass
class Cluster:
    """The service over three hosts."""

    network: Network
    settings: Settings
    sessions: sessionmaker[Session]
    key: str
    folder: Path

    def start(self, name: str, host: Host, *, inside: Sequence[str] = (), **changes: Any) -> int:
        """`fewlabels NAME` on a host, with a data folder of its own; the process id.

        `inside` are words before the command.
        """
        own = self.folder / f"{name}-{host.name}"
        own.mkdir()
        settings = self.settings.model_copy(update={"data_dir": own, **changes})
        environment = {**child_environment(settings), "OMP_NUM_THREADS": "1"}
        command = (*inside, sys.executable, "-m", "core.cli", name)
        return host.start(*command, log=own / "log", environment=environment).pid

    def log(self) -> str:
        return "\n".join(
            f"---- {path.parent.name}\n{path.read_text()[-3000:]}"
            for path in sorted(self.folder.glob("*/log"))
        )

    def job(self, job_id: UUID) -> Job:
        with self.sessions.begin() as session:
            return session.scalars(select(Job).where(Job.id == job_id)).one()

    def wait(self, job_id: UUID, state: str, *, attempt: int = 1, seconds: float = 60) -> Job:
        def there() -> bool:
            row = self.job(job_id)
            return row.state == state and row.attempt >= attempt

        what = f"{state} in attempt {attempt}"
        wait_until(
            there, what, seconds=seconds, show=lambda: f"{self.job(job_id).progress}\n{self.log()}"
        )
        return self.job(job_id)

    def order(self, stage: str = "pretrain", **options: Any) -> UUID:
        with self.sessions.begin() as session:
            dataset = session.scalars(select(Dataset)).one()
        body = {"stage": stage, "dataset_id": str(dataset.id), **TINY, **options}
        return UUID(self.network.hub.ask("POST", "/jobs", self.key, **body)["id"])


@contextmanager
def running(made: Network, folder: Path) -> Iterator[Cluster]:
    """Servers on the hub, migrated, and nothing else yet."""
    servers = start_servers(made.hub, folder)
    local = servers.socket_url.replace("postgresql", "postgresql+psycopg", 1)
    upgrade(local)
    engine = make_engine(local)
    sessions = session_factory(engine)
    with sessions.begin() as session:
        scopes = ["read", "write", "infer"]
        _, key = create_key(session, project="default", name="k", scopes=scopes)
    settings = Settings(
        database_url=servers.database_url,
        broker_url=servers.broker_url,
        blob_url=servers.blob_url,
        data_dir=folder,
        host=ADDRESS,
        auth_mode="keys",
        device="cpu",
        export_onnx=False,
        ready_process=False,
        lease_seconds=4,
        sweep_seconds=1,
        checkpoint_seconds=1,
        _env_file=None,
    )
    cluster = Cluster(made, settings, sessions, key, folder)
    try:
        yield cluster
    finally:
        engine.dispose()


def upload(cluster: Cluster, host: Host) -> None:
    """Digits, half of them in folders of their classes, by the command that users have."""
    data, folder = load_digits(), cluster.folder / "digits"
    folder.mkdir()
    for number, pixels in enumerate(data.images[:IMAGES]):
        buffer = io.BytesIO()
        Pillow.fromarray((pixels * 15).astype(np.uint8)).save(buffer, "PNG")
        place = folder / (f"digit {data.target[number]}" if number % 2 else "")
        place.mkdir(exist_ok=True)
        (place / f"{number}.png").write_bytes(buffer.getvalue())
    given = ["upload", str(folder), "--dataset", "digits", "--class-folders"]
    url = ["--url", f"http://{ADDRESS}:8000", "--api-key", cluster.key]
    host.python("import sys; from core.cli import app; app(sys.argv[1:])", *given, *url)
