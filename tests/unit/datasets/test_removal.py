"""A deleted dataset is gone at once, its rows part by part, its bytes after the grace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.auth import SCOPES, Caller, ensure_project
from core.datasets import removal, service
from core.datasets.snapshot import freeze, get_snapshot, snapshot_key
from core.db.imports import Import, ImportLine
from core.db.models import Dataset, Image, Job, Model, Snapshot
from core.db.session import make_engine, session_factory
from core.errors import DatasetNotFound, ImageNotFound, SnapshotNotFound
from core.images import imports
from core.images.ingest import IncomingFile, ingest
from core.images.pool import DecodeLimits, DecodePool
from core.images.recording import ImageLimits
from core.quota import usage_of
from core.storage.folder import FolderStore
from tests.integration.api.problems import picture
from tests.jobs_database import fresh_database

LIMITS = ImageLimits(max_images=100, max_project_images=5)
DECODING = DecodeLimits(max_bytes=10**6, max_pixels=10**6, seconds=10.0, memory_mb=512)
NOW = timedelta(seconds=-1)


@pytest.fixture(scope="module")
def sessions(postgres_url: str) -> Iterator[sessionmaker[Session]]:
    with fresh_database(postgres_url) as url:
        engine = make_engine(url)
        yield session_factory(engine)
        engine.dispose()


@pytest.fixture
def caller(sessions: sessionmaker[Session]) -> Caller:
    with sessions.begin() as session:
        return Caller(ensure_project(session, uuid4().hex), SCOPES)


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecodePool]:
    with closing(DecodePool(DECODING, processes=1)) as pool:
        yield pool


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "blobs")
    made.prepare()
    return made


def create(sessions: sessionmaker[Session], caller: Caller, name: str = "same") -> UUID:
    with sessions.begin() as session:
        return service.create_dataset(session, caller, name=name).id


def delete(sessions: sessionmaker[Session], caller: Caller, dataset_id: UUID) -> None:
    with sessions.begin() as session:
        service.delete_dataset(session, caller, dataset_id)


def count(sessions: sessionmaker[Session], table: type[Import | ImportLine | Image]) -> int:
    with sessions() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def test_nobody_finds_a_deleted_dataset_and_its_name_and_room_are_free(
    sessions: sessionmaker[Session], caller: Caller, store: FolderStore, decoders: DecodePool
) -> None:
    dataset_id = create(sessions, caller)
    files = [IncomingFile(f"{n}.png", picture(n)) for n in range(5)]
    ingest(sessions, store, dataset_id, files, limits=LIMITS, decoders=decoders)
    with sessions.begin() as session:
        image_id = session.scalars(select(Image.id)).first()
        assert image_id is not None
        snapshot_id = freeze(session, store, service.get_dataset(session, caller, dataset_id)).id
    delete(sessions, caller, dataset_id)
    assert count(sessions, Image) == 5  # the sweep has not come yet
    with sessions() as session:
        with pytest.raises(DatasetNotFound):
            service.get_dataset(session, caller, dataset_id)
        with pytest.raises(ImageNotFound):
            service.get_image(session, caller, image_id)
        with pytest.raises(SnapshotNotFound):
            get_snapshot(session, caller, snapshot_id)
        assert usage_of(session, caller).images == 0
    with pytest.raises(DatasetNotFound):
        imports.start(sessions, dataset_id)
    again = create(sessions, caller)
    report = ingest(sessions, store, again, files, limits=LIMITS, decoders=decoders)
    assert report.added == 5


def test_an_upload_to_it_ends(
    sessions: sessionmaker[Session], caller: Caller, store: FolderStore, decoders: DecodePool
) -> None:
    dataset_id = create(sessions, caller)

    def files() -> Iterator[IncomingFile]:
        yield IncomingFile("a.png", picture(20))
        delete(sessions, caller, dataset_id)

    with pytest.raises(DatasetNotFound, match="deleted meanwhile; nothing was added"):
        ingest(sessions, store, dataset_id, files(), limits=LIMITS, decoders=decoders)


def test_rows_are_removed_in_parts(
    sessions: sessionmaker[Session],
    caller: Caller,
    store: FolderStore,
    decoders: DecodePool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    removal.sweep(sessions, seconds=20)  # of the other tests
    kept = create(sessions, caller, "kept"), create(sessions, caller)
    before = [count(sessions, table) for table in (Image, Import, ImportLine)]
    for dataset_id, numbers in zip(kept, ((30,), (30, 31, 32, 33)), strict=True):
        files = [IncomingFile(f"{n}.png", picture(n)) for n in numbers]
        ingest(sessions, store, dataset_id, files, limits=LIMITS, decoders=decoders)
    delete(sessions, caller, kept[1])
    monkeypatch.setattr(removal, "PART_IMAGES", 3)
    monkeypatch.setattr(removal, "PART_LINES", 3)
    assert removal.sweep(sessions, seconds=0) == 0
    assert removal.sweep(sessions, seconds=20) == 4
    found = [count(sessions, table) for table in (Image, Import, ImportLine)]
    assert found == [number + 1 for number in before]
    with sessions() as session:
        assert session.get(Dataset, kept[1]) is None
    blobs.sweep(sessions, store, grace=NOW)
    assert len(list(store.keys("images"))) == 1


def test_the_list_that_a_model_learned_stays(
    sessions: sessionmaker[Session], caller: Caller, store: FolderStore, decoders: DecodePool
) -> None:
    digests: list[str] = []
    for number in (40, 41):
        dataset_id = create(sessions, caller)
        file = IncomingFile("a.png", picture(number))
        ingest(sessions, store, dataset_id, [file], limits=LIMITS, decoders=decoders)
        with sessions.begin() as session:
            dataset = service.get_dataset(session, caller, dataset_id)
            digests.append(freeze(session, store, dataset).digest)
        delete(sessions, caller, dataset_id)
    with sessions.begin() as session:
        session.add(model_of(session, caller, digests[0]))
    removal.sweep(sessions, seconds=20)
    with sessions() as session:
        assert session.scalars(select(Snapshot.id).where(Snapshot.digest.in_(digests))).all() == []
    blobs.sweep(sessions, store, grace=NOW)
    assert list(store.keys("snapshots")) == [snapshot_key(digests[0])]
    assert list(blobs.orphans(sessions, store)) == []


def model_of(session: Session, caller: Caller, digest: str) -> Model:
    job = Job(
        project_id=caller.project_id,
        stage="pretrain",
        state="succeeded",
        spec={},
        plan={},
        max_attempts=1,
        finished_at=func.clock_timestamp(),
    )
    session.add(job)
    session.flush()
    return Model(
        project_id=caller.project_id,
        job_id=job.id,
        kind="encoder",
        manifest={"snapshot_sha256": digest, "files": {}},
        manifest_sha256="ab" * 32,
    )
