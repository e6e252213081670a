"""The real service to be fuzzed: servers from wheels, the API in a process, no worker, some data.

Without a worker the jobs that are ordered wait for ever: nothing trains.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from api.schemas.inference import SAMPLE_PNG
from core import auth
from core.config import Settings
from core.db.migrating import upgrade
from core.db.session import make_engine, session_factory
from core.embedded.folder import claimed_folder
from core.embedded.servers import with_servers
from core.embedded.service import base_url, service_programs
from core.embedded.supervisor import Supervisor
from core.embedded.valkey import free_port
from core.storage.store import BlobStore, open_store
from tests.integration.api.problems import pictures
from tests.tiny_models import CLASSES, record_tiny_model

PROJECT = "fuzz"
ALIASES = 10  # of each model
START_SECONDS = 120.0
IDENTITIES = {
    "all scopes": ("read", "write", "infer"),
    "a narrower key": ("read",),
    "no key": (),
}


@dataclass(frozen=True, slots=True)
class Service:
    """Where it answers, to whom, and what it has."""

    url: str
    keys: dict[str, str | None] = field(repr=False)
    """The secret of each identity; None has none."""
    known: dict[str, str]
    """Ids of what exists, and a picture, by their names in the configuration of schemathesis."""


@contextmanager
def running_service(folder: Path) -> Iterator[Service]:
    """A service in that folder with a project that has one of everything."""
    settings = Settings(
        _env_file=None,
        data_dir=folder,
        port=free_port("127.0.0.1"),
        auth_mode="keys",
        device="cpu",
        # How often a key may call has its own tests; here it would hide the operation behind it.
        requests_per_second=0,
        max_unfinished_jobs=0,
        stream_seconds=0.2,
        max_upload_bytes=2**20,
        max_json_bytes=2**20,
        max_inference_bytes=2**20,
    )
    with claimed_folder(folder) as claimed, Supervisor(claimed) as supervisor:
        settings = with_servers(settings, supervisor, tell=lambda _: None)
        upgrade(settings.sqlalchemy_url)
        store = open_store(settings.store_url)
        store.prepare()
        api = next(one for one in service_programs(settings, claimed) if one.name == "api")
        url = base_url(settings)
        supervisor.wait(supervisor.start(api), lambda: _ready(url), seconds=START_SECONDS)
        keys, models = _own(settings, store)
        yield Service(url, keys, _furnished(url, str(keys["all scopes"]), models))


def _ready(url: str) -> bool:
    # Not by httpx2, which would log every attempt.
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _own(settings: Settings, store: BlobStore) -> tuple[dict[str, str | None], list[str]]:
    """A key for each identity, and the ids of a classifier and an encoder."""
    database = make_engine(settings.sqlalchemy_url)
    keys: dict[str, str | None] = {}
    with session_factory(database).begin() as session:
        for name, scopes in IDENTITIES.items():
            keys[name] = None
            if scopes:
                _, keys[name] = auth.create_key(session, project=PROJECT, name=name, scopes=scopes)
        models = [
            str(record_tiny_model(session, store, classes=classes, project=PROJECT))
            for classes in (CLASSES, ())
        ]
    database.dispose()
    return keys, models


def _furnished(url: str, key: str, models: list[str]) -> dict[str, str]:
    """Give the project images, labels, a job and an alias; the ids of all."""
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:

        def sent(method: str, path: str, **body: Any) -> Any:
            return client.request(method, path, **body).raise_for_status().json()

        dataset_id = sent("POST", "/datasets", json={"name": "screws"})["id"]
        files = [("files", item) for item in pictures(6).items()]
        imported = sent("POST", f"/datasets/{dataset_id}/images", files=files)["import_id"]
        labels = [
            {"file": f"p{number}.png", "label": CLASSES[number % 2], "split": "train"}
            for number in range(4)
        ]
        sent("PUT", f"/datasets/{dataset_id}/labels", json={"labels": labels})
        image_id = sent("GET", f"/datasets/{dataset_id}/images")["items"][0]["id"]
        # It waits for ever, and holds the dataset: what deletes everything stops here.
        order = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
        job = sent("POST", "/jobs", json=order)
        # A model with an alias cannot be deleted, and some alias is left at the end.
        for number, model_id in enumerate(models * ALIASES):
            name = f"alias-{number}" if number else "production"
            sent("PUT", f"/aliases/{name}", json={"model_id": model_id})
    return {
        "dataset_id": dataset_id,
        "image_id": image_id,
        "import_id": imported,
        "job_id": job["id"],
        "snapshot_id": job["snapshot_id"],
        "classifier_id": models[0],
        "encoder_id": models[1],
        "picture": SAMPLE_PNG,
    }
