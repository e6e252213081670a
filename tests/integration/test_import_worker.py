"""An accepted import ends once, whatever becomes of the worker; with a real one, and a real S3."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from core.datasets.service import create_dataset
from core.db.direct import ImportOrder
from core.db.imports import Import, ImportLine
from core.db.models import Dataset
from core.direct import orders
from core.storage.store import BlobStore, open_store
from tests.conftest import S3Server
from tests.faulty_line import Faults, faulty_line
from tests.integration.api.problems import pictures
from tests.integration.job_engine import Engine, job_engine, wait_until
from tests.unit.images.archive_samples import tar_of


@dataclass
class Importing:
    """An engine whose worker reaches the object store through a line."""

    engine: Engine
    store: BlobStore
    faults: Faults
    blob_url: SecretStr
    files: int = 0

    def start(self, name: str) -> None:
        self.engine.start(name, blob_url=self.blob_url, decode_processes=1)

    def order(self, files: int) -> UUID:
        """An import of an archive with as many files; nobody has begun with it."""
        self.files = files
        key = f"incoming/{os.urandom(32).hex()}"
        self.store.put(key, tar_of(pictures(self.files)))
        with self.engine.sessions.begin() as session:
            name = f"d-{key}"
            dataset = create_dataset(session, self.engine.caller, name=name[:60])
            source = {"key": key, "file": "a.tar", "sha256": None}
            return orders.place(session, dataset.id, source, max_attempts=3).id

    def row(self, import_id: UUID) -> Import:
        with self.engine.sessions.begin() as session:
            return session.get_one(Import, import_id)

    def wait_for(self, import_id: UUID, added: int, state: str) -> None:
        def there() -> bool:
            row = self.row(import_id)
            return row.added >= added and row.state == state

        def show() -> str:
            row = self.row(import_id)
            logs = [(self.engine.folder / f"{name}.log") for name in self.engine.workers]
            said = "\n".join(path.read_text()[-3000:] for path in logs)
            return f"{row.state} {row.added} {row.error_detail}\n{said}"

        wait_until(there, f"{added} images, {state}", seconds=60, show=show)

    def assert_complete_once(self, import_id: UUID) -> None:
        with self.engine.sessions.begin() as session:
            row = session.get_one(Import, import_id)
            assert (row.added, row.duplicates, row.rejected) == (self.files, 0, 0)
            lines = session.execute(_lines(import_id)).all()
            assert [line.number for line in lines] == list(range(self.files))
            assert {line.file for line in lines} == set(pictures(self.files))
            assert session.get_one(Dataset, row.dataset_id).image_count == self.files
            assert session.scalar(select(func.count()).select_from(ImportOrder)) == 0


def _lines(import_id: UUID) -> Select[int, str]:
    found = select(ImportLine.number, ImportLine.file).where(ImportLine.import_id == import_id)
    return found.order_by(ImportLine.number)


@pytest.fixture
def importing(
    postgres_url: str, broker_url: str, tmp_path: Path, s3_server: S3Server
) -> Iterator[Importing]:
    folder = tmp_path / "engine"
    folder.mkdir()
    with (
        faulty_line(s3_server.port) as (port, faults),
        job_engine(postgres_url, broker_url, folder) as engine,
    ):
        store = open_store(f"{s3_server.host}/blobs?secure=false")
        store.prepare()
        url = SecretStr(f"{s3_server.host_at(port)}/blobs?secure=false")
        yield Importing(engine, store, faults, url)


def test_a_killed_worker_loses_nothing(importing: Importing) -> None:
    import_id = importing.order(600)  # two chunks
    importing.faults.pause = 0.002
    importing.start("sweeps")
    importing.start("imports")
    importing.wait_for(import_id, 1, "running")
    worker = importing.engine.workers["imports"]
    parent = psutil.Process(worker.pid)
    for process in [*parent.children(recursive=True), parent]:
        process.kill()
    worker.wait()
    kept = importing.row(import_id).added
    assert 0 < kept < importing.files
    importing.faults.pause = 0.0
    importing.wait_for(import_id, kept, "queued")  # the sweep finds the lease over
    importing.start("imports")
    importing.wait_for(import_id, importing.files, "complete")
    importing.assert_complete_once(import_id)


def test_a_stopped_worker_hands_its_import_back(importing: Importing) -> None:
    import_id = importing.order(1_100)  # a chunk recorded, one on its way, one unread
    importing.faults.pause = 0.002
    importing.start("sweeps")
    importing.start("imports")
    importing.wait_for(import_id, 1, "running")
    worker = importing.engine.workers["imports"]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    row = importing.row(import_id)
    assert row.state == "queued"
    assert 0 < row.added < importing.files
    with importing.engine.sessions.begin() as session:
        assert attempts(session, import_id) == 0
    importing.faults.pause = 0.0
    importing.start("imports")
    importing.wait_for(import_id, importing.files, "complete")
    importing.assert_complete_once(import_id)


def test_a_store_that_goes_away_in_the_middle_is_waited_for(
    importing: Importing, s3_server: S3Server
) -> None:
    import_id = importing.order(200)
    importing.faults.pause = 0.002
    importing.start("sweeps")
    importing.start("imports")

    def in_the_middle() -> bool:
        return len(list(islice(importing.store.keys("images"), 20))) == 20

    wait_until(in_the_middle, "some images are stored")
    s3_server.kill()
    assert importing.row(import_id).added == 0
    importing.faults.pause = 0.0
    s3_server.start()
    importing.wait_for(import_id, importing.files, "complete")
    importing.assert_complete_once(import_id)


def attempts(session: Session, import_id: UUID) -> int:
    return session.get_one(ImportOrder, import_id).attempt
