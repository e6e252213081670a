"""The API in this process over real servers: a fresh database and data folder a test module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from api.main import create_app
from core import auth
from core.config import Settings
from core.db.table import Table
from tests.integration.api.leaks import LogWatch, watching
from tests.integration.api.problems import pictures
from tests.jobs_database import fresh_database
from tests.tiny_models import CLASSES, record_tiny_model

LIMITS = {
    "max_json_bytes": 300_000,
    "max_upload_bytes": 4_000_000,
    "max_upload_files": 40,
    "max_archive_bytes": 20_000_000,
    "max_image_bytes": 2_000_000,
    "max_inference_bytes": 16_000_000,
    "max_inference_images": 8,
    "max_images_per_dataset": 300,
    "max_classes": 20,
    "max_labels_per_request": 400,
    "max_webhooks": 1000,
    "stream_seconds": 1.0,
    "key_cache_seconds": 0.0,
    "device": "cpu",
    "log_format": "json",
}


@pytest.fixture(scope="session", autouse=True)
def log_watch(tmp_path_factory: pytest.TempPathFactory, embedded: Settings) -> Iterator[LogWatch]:
    """Ends the run with an error where a key or a password of it stands in a log."""
    with watching(tmp_path_factory.mktemp("log") / "api.log") as watch:
        yield watch
        watch.others += sorted((embedded.data_dir / "logs").iterdir())
        assert watch.leaks() == []


@pytest.fixture(scope="module")
def database_url(postgres_url: str) -> Iterator[str]:
    """A migrated database of its own."""
    with fresh_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
def settings(
    database_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("api"),
        database_url=database_url.replace("+psycopg", ""),
        broker_url=broker_url,
        **LIMITS,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    """Calls as the local caller; what would be a crash is a 500 to look at."""
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as calling:
        yield calling


@pytest.fixture(scope="module")
def session(app: FastAPI, client: TestClient) -> Callable[[], Session]:
    """Transactions beside those of the API: `with session() as s, s.begin()`."""
    return app.state.sessions  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def guarded_client(settings: Settings) -> Iterator[TestClient]:
    """The service with keys."""
    keys = create_app(settings.model_copy(update={"auth_mode": "keys"}))
    with TestClient(keys, raise_server_exceptions=False, follow_redirects=False) as calling:
        yield calling


@pytest.fixture(scope="module")
def key(session: Callable[[], Session]) -> Callable[..., dict[str, str]]:
    """The header of a new key of a project."""

    def made(project: str, *scopes: str, revoked: bool = False, **wishes: Any) -> dict[str, str]:
        with session() as opened, opened.begin():
            row, secret = auth.create_key(
                opened, project=project, name="k", scopes=scopes, **wishes
            )
            if revoked:
                auth.revoke_key(opened, row.id)
        return {"authorization": f"Bearer {secret}"}

    return made


@pytest.fixture(scope="module")
def add_model(app: FastAPI, client: TestClient) -> Callable[..., UUID]:
    """Puts a tiny model into a project, as if a job had made it; returns its id."""

    def add(
        *,
        classes: tuple[str, ...] = (),
        seed: int = 0,
        project: str = "default",
        **wishes: Any,
    ) -> UUID:
        with app.state.sessions.begin() as session:
            store = app.state.store
            return record_tiny_model(
                session, store, classes=classes, seed=seed, project=project, **wishes
            )

    return add


@pytest.fixture(scope="module")
def add_dataset(client: TestClient) -> Callable[..., str]:
    """Makes a dataset, with images under these names; returns its id."""

    def add(files: dict[str, bytes] | None = None, **fields: object) -> str:
        body = {"name": f"data-{uuid4().hex}", **fields}
        dataset_id = str(client.post("/datasets", json=body).json()["id"])
        for start in range(0, len(files or {}), 40):
            part = list((files or {}).items())[start : start + 40]
            sent = [("files", (name, data)) for name, data in part]
            answer = client.post(f"/datasets/{dataset_id}/images", files=sent)
            assert answer.json()["rejected"] == 0, answer.text
        return dataset_id

    return add


@pytest.fixture(scope="module")
def folder(settings: Settings) -> Path:
    return settings.data_dir


@pytest.fixture
def unchanged(client: TestClient, session: Callable[[], Session]) -> Iterator[None]:
    """The same rows before and after, the records of uploads aside."""

    def rows() -> dict[str, list[str]]:
        with session() as opened:
            return {
                table.name: sorted(map(str, opened.execute(table.select())))
                for table in Table.metadata.sorted_tables
                if table.name not in {"imports", "import_lines"}
            }

    assert client.get("/datasets").status_code == 200  # the first call makes the project
    before = rows()
    yield
    assert rows() == before


@pytest.fixture(scope="module")
def dataset_id(add_dataset: Callable[..., str]) -> str:
    return add_dataset(pictures(3))


@pytest.fixture(scope="module")
def classifier(add_model: Callable[..., UUID], client: TestClient) -> UUID:
    return add_model(classes=CLASSES)


@pytest.fixture(scope="module")
def encoder(add_model: Callable[..., UUID], client: TestClient) -> UUID:
    return add_model()
