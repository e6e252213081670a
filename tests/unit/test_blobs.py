"""Bytes without a row do not stay, bytes with one do, whoever dies in between."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.auth import SCOPES, Caller, ensure_project
from core.datasets import removal
from core.datasets.service import create_dataset, delete_dataset, delete_image, get_dataset
from core.datasets.snapshot import freeze
from core.db.imports import Import, LooseBlob
from core.db.models import Image
from core.db.session import make_engine, session_factory
from core.errors import StoreUnavailable
from core.images import imports
from core.images.ingest import IncomingFile, ingest
from core.images.pool import DecodeLimits, DecodePool
from core.images.recording import ImageLimits
from core.images.thumbnails import thumbnail, thumbnail_keys
from core.storage.folder import FolderStore
from tests.integration.api.problems import picture
from tests.jobs_database import fresh_database

LIMITS = ImageLimits(max_images=100)
DECODING = DecodeLimits(max_bytes=10**6, max_pixels=10**6, seconds=10.0, memory_mb=512)
NOW = timedelta(seconds=-1)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def sessions(postgres_url: str) -> Iterator[sessionmaker[Session]]:
    with fresh_database(postgres_url) as url:
        engine = make_engine(url)
        yield session_factory(engine)
        engine.dispose()


@pytest.fixture(scope="module")
def caller(sessions: sessionmaker[Session]) -> Caller:
    with sessions.begin() as session:
        return Caller(ensure_project(session, "blobs"), SCOPES)


@pytest.fixture
def store(tmp_path: Path, sessions: sessionmaker[Session]) -> FolderStore:
    with sessions.begin() as session:
        blobs.unmark(session, session.scalars(select(LooseBlob.key)).all())
    made = FolderStore(tmp_path / "blobs")
    made.prepare()
    return made


def add(sessions: sessionmaker[Session], store: FolderStore, caller: Caller, *numbers: int) -> UUID:
    with sessions.begin() as session:
        dataset_id = create_dataset(session, caller, name=uuid4().hex).id
    files = [IncomingFile(f"{n}.png", picture(n)) for n in numbers]
    with closing(DecodePool(DECODING, processes=1)) as decoders:
        report = ingest(sessions, store, dataset_id, files, limits=LIMITS, decoders=decoders)
    assert report.added == len(numbers)
    return dataset_id


def remove(sessions: sessionmaker[Session], caller: Caller, dataset_id: UUID) -> None:
    with sessions.begin() as session:
        delete_dataset(session, caller, dataset_id)
    removal.sweep(sessions, seconds=20)


def key_of(number: int) -> str:
    return f"images/{hashlib.sha256(picture(number)).hexdigest()}"


def marks(sessions: sessionmaker[Session]) -> set[str]:
    with sessions() as session:
        return set(session.scalars(select(LooseBlob.key)))


def test_a_recorded_image_has_no_mark_and_stays(
    sessions: sessionmaker[Session], store: FolderStore, caller: Caller
) -> None:
    add(sessions, store, caller, 1, 2)
    assert marks(sessions) == set()
    assert blobs.sweep(sessions, store, grace=NOW) == 0
    assert store.exists(key_of(1))
    assert list(blobs.orphans(sessions, store)) == []


class Dying(FolderStore):
    """The process ends between the bytes and the row."""

    def put_all(self, blobs: Mapping[str, bytes]) -> None:
        super().put_all(blobs)
        raise KeyboardInterrupt


def test_bytes_of_an_upload_that_died_are_swept_after_the_grace(
    sessions: sessionmaker[Session], store: FolderStore, caller: Caller, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        add(sessions, Dying(tmp_path / "blobs"), caller, 3)
    assert store.exists(key_of(3))
    assert marks(sessions) == {key_of(3)}
    assert blobs.sweep(sessions, store, grace=HOUR) == 0
    assert store.exists(key_of(3))
    assert blobs.sweep(sessions, store, grace=NOW) == 1
    assert not store.exists(key_of(3))
    assert marks(sessions) == set()


def test_deleting_frees_what_nobody_else_has(
    sessions: sessionmaker[Session], store: FolderStore, caller: Caller
) -> None:
    first, second = add(sessions, store, caller, 4, 5, 6), add(sessions, store, caller, 6)
    with sessions.begin() as session:
        image = select(Image).where(Image.dataset_id == first, Image.byte_count > 0)
        one = next(i for i in session.scalars(image) if f"images/{i.sha256}" == key_of(4))
        delete_image(session, caller, one.id)
        assert get_dataset(session, caller, first).image_count == 2
    assert store.exists(key_of(4))  # until the sweep: the transaction may still fail
    assert blobs.sweep(sessions, store, grace=NOW) == 1
    remove(sessions, caller, first)
    assert marks(sessions) == {key_of(5), key_of(6)}
    assert blobs.sweep(sessions, store, grace=NOW) == 1
    assert [store.exists(key_of(n)) for n in (4, 5, 6)] == [False, False, True]
    with sessions() as session:
        assert get_dataset(session, caller, second).image_count == 1


class Slow(FolderStore):
    """Deletes when it is told to."""

    reached = threading.Event()
    go_on = threading.Event()

    def delete(self, key: str) -> None:
        self.reached.set()
        assert self.go_on.wait(20)
        super().delete(key)


def test_an_upload_of_what_is_being_swept_waits_and_writes_it_anew(
    sessions: sessionmaker[Session], store: FolderStore, caller: Caller, tmp_path: Path
) -> None:
    dataset_id = add(sessions, store, caller, 7)
    remove(sessions, caller, dataset_id)
    slow = Slow(tmp_path / "blobs")
    with ThreadPoolExecutor() as threads:
        sweeping = threads.submit(blobs.sweep, sessions, slow, grace=NOW)
        assert slow.reached.wait(20)
        adding = threads.submit(add, sessions, store, caller, 7)
        threading.Event().wait(0.3)
        assert not adding.done()
        slow.go_on.set()
        assert sweeping.result(20) == 1
        adding.result(20)
    assert store.exists(key_of(7))
    assert marks(sessions) == set()


def test_a_store_that_is_away_keeps_the_marks(
    sessions: sessionmaker[Session], store: FolderStore, caller: Caller, tmp_path: Path
) -> None:
    dataset_id = add(sessions, store, caller, 8)
    remove(sessions, caller, dataset_id)
    with pytest.raises(StoreUnavailable):
        blobs.sweep(sessions, FolderStore(tmp_path / "gone"), grace=NOW)
    assert marks(sessions) == {key_of(8)}


def test_orphans_are_found_and_marked(
    sessions: sessionmaker[Session], store: FolderStore, caller: Caller
) -> None:
    dataset_id = add(sessions, store, caller, 9)
    with sessions.begin() as session:
        frozen = freeze(session, store, get_dataset(session, caller, dataset_id)).digest
    left = [f"{namespace}/{'ab' * 32}" for namespace in blobs.NAMESPACES]
    for key in left:
        store.put(key, b"left behind")
    assert sorted(blobs.orphans(sessions, store)) == sorted(left)
    assert blobs.mark_orphans(sessions, [*left, key_of(9), f"snapshots/{frozen}"]) == len(left)
    assert blobs.mark_orphans(sessions, left) == 0
    assert blobs.sweep(sessions, store, grace=NOW) == len(left)
    assert list(blobs.orphans(sessions, store)) == []
    assert store.exists(f"snapshots/{frozen}")


def test_thumbnails_go_with_their_image(
    sessions: sessionmaker[Session], store: FolderStore, caller: Caller
) -> None:
    dataset_id = add(sessions, store, caller, 11)
    sha256 = key_of(11).partition("/")[2]
    with closing(DecodePool(DECODING, processes=1)) as decoders:
        assert thumbnail(store, decoders, sha256, 128)
    assert len(list(store.keys("thumbnails"))) == 1
    remove(sessions, caller, dataset_id)
    assert blobs.sweep(sessions, store, grace=NOW, made_from=thumbnail_keys) == 1
    assert list(store.keys("thumbnails")) == []


def test_an_import_whose_process_died_is_no_longer_running(
    sessions: sessionmaker[Session], store: FolderStore, caller: Caller
) -> None:
    dataset_id = add(sessions, store, caller, 10)
    silent = imports.start(sessions, dataset_id)
    with sessions.begin() as session:
        assert imports.sweep(session, silent=HOUR) == 0
        assert imports.sweep(session, silent=NOW) == 1
    with sessions() as session:
        states = session.scalars(select(Import.state).where(Import.dataset_id == dataset_id))
        assert sorted(states) == ["complete", "interrupted"]
        dataset = get_dataset(session, caller, dataset_id)
        assert imports.get_import(session, dataset, silent).state == "interrupted"
