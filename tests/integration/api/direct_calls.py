"""The API over a real S3 server, and what clients, workers and the sweep do there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import urllib3
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from api.main import create_app
from core.config import Settings
from core.direct import uploads
from core.direct.run import Work, run
from core.direct.stores import Place
from tests.conftest import S3Server

PART = 5 * 2**20
NOISE = random.Random(5).randbytes(6_000_000)
BUCKET = "cameras"


@dataclass
class Direct:
    """The API over an S3 server, and what a worker and the sweep do, when the test says so."""

    client: TestClient
    app: FastAPI
    place: Place
    server: S3Server

    @property
    def sessions(self) -> sessionmaker[Session]:
        return self.app.state.sessions  # type: ignore[no-any-return]

    def work(self, import_id: str) -> None:
        run(Work(sessions=self.sessions, place=self.place, stop=lambda: False), UUID(import_id))

    def sweep(self) -> int:
        return uploads.sweep(self.sessions, self.place)

    def dataset(self) -> str:
        made = self.client.post("/datasets", json={"name": f"d-{uuid4()}"})
        return str(made.json()["id"])

    def announce(self, dataset_id: str, data: bytes, **fields: Any) -> dict[str, Any]:
        body = {"file": "a.tar", "bytes": len(data), "media_type": "application/x-tar", **fields}
        answer = self.client.post(f"/datasets/{dataset_id}/uploads", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def put(self, started: dict[str, Any], data: bytes) -> list[str]:
        """Send the parts as a client would; their ETags."""
        size, tags = started["part_bytes"], []
        for number, url in enumerate(started["urls"]):
            part = data[number * size : (number + 1) * size]
            answer = urllib3.request("PUT", url, body=part)
            assert answer.status == 200, answer.data
            tags.append(answer.headers["etag"])
        return tags

    def complete(self, started: dict[str, Any], tags: list[str], **fields: str) -> Any:
        url = f"/datasets/{started['dataset_id']}/uploads/{started['id']}/complete"
        return self.client.post(url, json={"etags": tags, **fields})

    def send(self, dataset_id: str, data: bytes, **fields: Any) -> dict[str, Any]:
        started = self.announce(dataset_id, data, **fields)
        answer = self.complete(started, self.put(started, data))
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"].endswith(answer.json()["id"])
        return dict(answer.json())

    def told(self, accepted: dict[str, Any]) -> dict[str, Any]:
        url = f"/datasets/{accepted['dataset_id']}/imports/{accepted['id']}"
        return dict(self.client.get(url).json())

    def incoming(self) -> list[str]:
        return list(self.place.blobs.keys("incoming"))


@contextmanager
def direct_calls(settings: Settings, folder: Path) -> Iterator[Direct]:
    """The API with small limits, and keys off."""
    server = S3Server(folder)
    server.start()
    try:
        changed = settings.model_copy(
            update={
                "blob_url": SecretStr(f"{server.host}/blobs?secure=false"),
                "direct_part_bytes": PART,
                "max_direct_bytes": 20_000_000,
                "max_direct_uploads": 3,
                "import_buckets": f"other, {BUCKET},blobs",
                "job_max_attempts": 2,
            }
        )
        app = create_app(changed)
        (server.folder / BUCKET).mkdir()
        with TestClient(app, raise_server_exceptions=False) as client:
            yield Direct(client, app, Place(app.state.store, changed), server)
    finally:
        server.kill()
