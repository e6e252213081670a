"""A blob store whose S3 server is slow, overloaded, cut off, killed: patience, then one error."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import StoreUnavailable
from core.storage.s3 import S3Store, client
from core.storage.store import open_store
from tests.conftest import S3Server
from tests.faulty_line import Faults, faulty_line

DATA = bytes(range(256)) * 4_000
LARGE = bytes(range(256)) * 100_000  # in several parts


def key_of(data: bytes) -> str:
    return f"images/{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def line(s3_server: S3Server) -> Iterator[tuple[S3Store, Faults]]:
    """A store that reaches its server through a line."""
    with faulty_line(s3_server.port) as (port, faults):
        store = S3Store.from_url(f"{s3_server.host_at(port)}/bucket?secure=false")
        store.prepare()
        store.put(key_of(b"old"), b"old")
        # Another one, which has no connection yet.
        yield S3Store(store.address), faults


def operations(store: S3Store, folder: Path) -> dict[str, Callable[[], object]]:
    (folder / "source").write_bytes(DATA)
    return {
        "put": lambda: store.put(key_of(DATA), DATA),
        "put_file": lambda: store.put_file(key_of(DATA), folder / "source"),
        "get": lambda: store.get(key_of(b"old")),
        "fetch": lambda: store.fetch(key_of(b"old"), folder / "target"),
        "exists": lambda: store.exists(key_of(b"old")),
        "delete": lambda: store.delete(key_of(b"old")),
    }


@pytest.mark.parametrize("name", ["put", "put_file", "get", "fetch", "exists", "delete"])
def test_an_overload_that_passes_is_not_noticed(
    line: tuple[S3Store, Faults], name: str, tmp_path: Path
) -> None:
    store, faults = line
    faults.overloaded = 5  # more than one request is tried
    operations(store, tmp_path)[name]()
    assert faults.met == 5


@pytest.mark.parametrize("name", ["put", "put_file", "get", "fetch", "exists", "delete"])
def test_an_overload_that_stays_is_told(
    line: tuple[S3Store, Faults], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSES", (0.1, 0.1))
    store, faults = line
    faults.overloaded = 1_000
    with pytest.raises(StoreUnavailable) as caught:
        operations(store, tmp_path)[name]()
    assert "503" in str(caught.value)
    assert 3 <= faults.met <= 12
    faults.overloaded = 0
    assert list(store.keys("images")) == [key_of(b"old")]
    assert not (tmp_path / "target").exists()


def test_a_broken_answer_goes_on_where_it_broke(
    line: tuple[S3Store, Faults], tmp_path: Path
) -> None:
    store, faults = line
    store.put(key_of(LARGE), LARGE)
    faults.passed, faults.cut, faults.cut_after = 0, 3, 7_000_000
    # Connections that were kept are without the fault.
    store = S3Store(store.address)
    with store.open(key_of(LARGE)) as stream:
        read = b"".join(iter(lambda: stream.read(100_000), b""))
    assert read == LARGE
    assert faults.met == 3
    assert faults.passed < 1.3 * len(LARGE)  # not from the beginning each time
    faults.cut, faults.cut_after = 2, 5_000
    S3Store(store.address).fetch(key_of(LARGE), tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == LARGE
    faults.cut = 2
    assert S3Store(store.address).get(key_of(LARGE)) == LARGE


def test_a_broken_request_is_sent_again(line: tuple[S3Store, Faults], tmp_path: Path) -> None:
    store, faults = line
    (tmp_path / "source").write_bytes(LARGE)
    faults.cut, faults.cut_after, faults.cut_request = 4, 300_000, True
    store.put(key_of(DATA), DATA)
    store.put_file(key_of(LARGE), tmp_path / "source")
    assert faults.met == 4
    assert store.get(key_of(DATA)) == DATA
    assert store.get(key_of(LARGE)) == LARGE


def test_slow_answers_are_waited_for(line: tuple[S3Store, Faults]) -> None:
    store, faults = line
    store.put(key_of(DATA), DATA)
    faults.pause = 0.02
    assert S3Store(store.address).get(key_of(DATA)) == DATA


def test_a_server_that_says_nothing_is_told(
    line: tuple[S3Store, Faults], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, faults = line
    monkeypatch.setattr(client, "PAUSES", (0.1,))
    monkeypatch.setattr(client, "READ_SECONDS", 0.3)
    faults.pause = 20.0
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="ReadTimeoutError"):
        S3Store(store.address).get(key_of(b"old"))
    assert time.monotonic() - started < 8


@contextmanager
def killed_half_way(
    store: S3Store, faults: Faults, server: S3Server, source: Path
) -> Iterator[list[BaseException]]:
    """The server dies in the middle of an upload, which has ended with the block; its errors."""
    size = source.stat().st_size
    errors: list[BaseException] = []

    def upload() -> None:
        try:
            store.put_file(key_of(source.read_bytes()), source)
        except BaseException as error:  # noqa: BLE001 — the test looks at it
            errors.append(error)

    faults.passed, faults.pause = 0, 16_384 / size  # about a second for all of it
    thread = threading.Thread(target=upload)
    thread.start()
    while faults.passed < size / 2:
        time.sleep(0.01)
    server.kill()
    assert thread.is_alive()
    faults.pause = 0.0
    try:
        yield errors
    finally:
        thread.join()


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["one part", "several parts"])
def test_a_server_killed_in_the_middle_comes_back(
    line: tuple[S3Store, Faults], s3_server: S3Server, tmp_path: Path, data: bytes
) -> None:
    store, faults = line
    (tmp_path / "source").write_bytes(data)
    with killed_half_way(store, faults, s3_server, tmp_path / "source") as errors:
        time.sleep(0.5)
        s3_server.start()
        for key in open_store(f"{s3_server.host}/bucket?secure=false").keys("images"):
            assert key in {key_of(b"old"), key_of(data)}
            assert key_of(store.get(key)) == key  # none is half
    assert errors == []
    assert store.get(key_of(data)) == data


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["one part", "several parts"])
def test_a_server_that_stays_dead_leaves_no_half_object(
    line: tuple[S3Store, Faults],
    s3_server: S3Server,
    tmp_path: Path,
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "PAUSES", (0.1, 0.1))
    store, faults = line
    (tmp_path / "source").write_bytes(data)
    with killed_half_way(store, faults, s3_server, tmp_path / "source") as errors:
        pass
    assert [type(error) for error in errors] == [StoreUnavailable]
    s3_server.start()
    assert list(store.keys("images")) == [key_of(b"old")]
    assert not store.exists(key_of(data))
