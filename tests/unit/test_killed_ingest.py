"""A process that is killed between the bytes of an image and its row."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.auth import SCOPES, Caller, ensure_project
from core.datasets.service import create_dataset
from core.db.imports import Import, LooseBlob
from core.db.models import Dataset, Image
from core.db.session import make_engine, session_factory
from core.images import imports
from core.images.ingest import IncomingFile, ingest
from core.images.pool import DecodeLimits, DecodePool
from core.images.recording import ImageLimits
from core.storage.folder import FolderStore
from tests.integration.api.problems import picture
from tests.jobs_database import fresh_database

LIMITS = ImageLimits(max_images=100)
DECODING = DecodeLimits(max_bytes=10**6, max_pixels=10**6, seconds=10.0, memory_mb=512)
NOW, HOUR = timedelta(seconds=-1), timedelta(hours=1)
# Reads a line before each file, and a file per chunk: the test says when it goes on.
CHILD = """
import sys
from pathlib import Path
from uuid import UUID
from core.db.session import make_engine, session_factory
from core.images import ingest
from core.images.pool import DecodePool
from core.storage.folder import FolderStore
from tests.integration.api.problems import picture
from tests.unit.test_killed_ingest import DECODING, LIMITS

def files():
    for line in sys.stdin:
        yield ingest.IncomingFile(f"{int(line)}.png", picture(int(line)))

ingest.CHUNK_FILES = 1
url, folder, dataset_id = sys.argv[1:]
sessions, store = session_factory(make_engine(url)), FolderStore(Path(folder))
decoders = DecodePool(DECODING, processes=1)
ingest.ingest(sessions, store, UUID(dataset_id), files(), limits=LIMITS, decoders=decoders)
"""


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    with fresh_database(postgres_url) as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    return session_factory(engine)


@pytest.fixture
def dataset_id(sessions: sessionmaker[Session]) -> UUID:
    with sessions.begin() as session:
        caller = Caller(ensure_project(session, "killed"), SCOPES)
        return create_dataset(session, caller, name="d").id


def key_of(number: int) -> str:
    return f"images/{hashlib.sha256(picture(number)).hexdigest()}"


def wait_until(sessions: sessionmaker[Session], statement: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with sessions() as session:
            if session.scalar(text(statement)):
                return
        time.sleep(0.02)
    raise TimeoutError(statement)


def test_killed_between_the_bytes_and_the_row(
    engine: Engine, sessions: sessionmaker[Session], dataset_id: UUID, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "blobs")
    store.prepare()
    url = engine.url.render_as_string(hide_password=False)
    words = [sys.executable, "-c", CHILD, url, str(tmp_path / "blobs"), str(dataset_id)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        print(1, file=child.stdin, flush=True)
        wait_until(sessions, "SELECT count(*) = 1 FROM images")
        with sessions.begin() as session:
            # Recording waits for its turn at the dataset, after the bytes were stored.
            session.scalar(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update())
            print(2, file=child.stdin, flush=True)
            wait_until(sessions, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted")
            assert store.exists(key_of(2))
            child.kill()
        child.wait()
    with sessions.begin() as session:
        assert session.scalars(select(Image.sha256)).all() == [key_of(1).partition("/")[2]]
        assert session.scalars(select(LooseBlob.key)).all() == [key_of(2)]
        assert session.scalars(select(Import.state)).all() == ["running"]
        assert imports.sweep(session, silent=NOW) == 1
    # `fewlabels gc` sees it; the sweep leaves it until its time of grace is over.
    assert list(blobs.orphans(sessions, store)) == [key_of(2)]
    assert blobs.sweep(sessions, store, grace=HOUR) == 0
    assert blobs.sweep(sessions, store, grace=NOW) == 1
    assert list(store.keys("images")) == [key_of(1)]
    files = [IncomingFile(f"{n}.png", picture(n)) for n in (1, 2)]
    with closing(DecodePool(DECODING, processes=1)) as decoders:
        report = ingest(sessions, store, dataset_id, files, limits=LIMITS, decoders=decoders)
    assert (report.added, report.duplicates) == (1, 1)
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Image)) == 2
        assert session.scalars(select(LooseBlob.key)).all() == []
