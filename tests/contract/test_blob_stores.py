"""What every blob store promises, on a real folder and a real S3 server."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from core.errors import BlobNotFound, ConfigurationInvalid, StoreUnavailable
from core.storage.folder import FolderStore
from core.storage.s3 import S3Store, client
from core.storage.store import BlobStore, open_store

ABSENT = "images/" + "0" * 64


def key_of(data: bytes, namespace: str = "images") -> str:
    return f"{namespace}/{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return (tmp_path / "blobs of a team").as_uri()
    host = request.getfixturevalue("s3_host")
    return f"{host}/bucket-{uuid4().hex}?secure=false"


@pytest.fixture
def store(url: str) -> BlobStore:
    store = open_store(url)
    store.prepare()
    return store


def test_bytes_come_back(store: BlobStore) -> None:
    data = bytes(range(256)) * 5000
    store.put(key_of(data), data)
    assert store.get(key_of(data)) == data
    assert store.exists(key_of(data))


def test_many_at_once(store: BlobStore) -> None:
    parts = [f"number {number}".encode() * number for number in range(1, 40)]
    store.put(key_of(parts[3]), parts[3])
    store.put_all({key_of(data): data for data in parts})
    store.put_all({key_of(data): data for data in parts[:5]})
    store.put_all({})
    assert [store.get(key_of(data)) for data in parts] == parts
    assert len(list(store.keys("images"))) == len(parts)


def test_a_stream_gives_the_bytes_piece_by_piece(store: BlobStore) -> None:
    data = bytes(range(256)) * 5000
    store.put(key_of(data), data)
    with store.open(key_of(data)) as stream:
        pieces = list(iter(lambda: stream.read(100_000) or b"", b""))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 100_000
    with pytest.raises(BlobNotFound), store.open(ABSENT):
        pass


def test_nothing_is_a_blob_too(store: BlobStore) -> None:
    store.put(key_of(b""), b"")
    assert store.get(key_of(b"")) == b""


def test_files_go_in_and_out(store: BlobStore, tmp_path: Path) -> None:
    data = b"some megabytes" * 500_000
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    target.write_bytes(b"what was there before")
    store.put_file(key_of(data), source)
    store.fetch(key_of(data), target)
    assert target.read_bytes() == data
    assert store.get(key_of(data)) == data
    assert source.read_bytes() == data


def test_twice_is_the_same_as_once(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"again")
    for _ in range(2):
        store.put(key_of(b"again"), b"again")
        store.put_file(key_of(b"again"), tmp_path / "file")
    assert list(store.keys("images")) == [key_of(b"again")]


def test_a_missing_blob_is_one_error(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobNotFound):
        store.get(ABSENT)
    with pytest.raises(BlobNotFound):
        store.fetch(ABSENT, tmp_path / "target")
    assert not store.exists(ABSENT)
    assert not (tmp_path / "target").exists()


def test_a_deleted_blob_is_gone(store: BlobStore) -> None:
    store.put(key_of(b"short-lived"), b"short-lived")
    store.delete(key_of(b"short-lived"))
    store.delete(key_of(b"short-lived"))
    assert not store.exists(key_of(b"short-lived"))
    assert list(store.keys("images")) == []


def test_keys_are_listed_by_namespace_in_order(store: BlobStore) -> None:
    blobs = [str(number).encode() for number in range(20)]
    for data in blobs:
        store.put(key_of(data), data)
    store.put(key_of(b"other", "models"), b"other")
    assert list(store.keys("images")) == sorted(map(key_of, blobs))
    assert list(store.keys("models")) == [key_of(b"other", "models")]
    assert list(store.keys("nothing")) == []


@pytest.mark.parametrize(
    "key",
    [
        "0" * 64,
        "images/" + "0" * 63,
        "images/" + "0" * 64 + "\n",
        "images/" + "A" * 64,
        "Images/" + "0" * 64,
        "../" + "0" * 64,
        "images/../" + "0" * 61,
        "/images/" + "0" * 64,
        "",
    ],
)
def test_a_key_of_another_form_is_a_bug(store: BlobStore, key: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b"x"),
        lambda: store.put_file(key, source),
        lambda: store.get(key),
        lambda: store.fetch(key, tmp_path / "target"),
        lambda: store.open(key).__enter__(),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: store.keys(key),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="a blob"):
            call()


def test_writers_of_one_key_do_not_disturb_each_other(store: BlobStore) -> None:
    data = b"z" * 300_000
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(3):
                store.put(key_of(data), data)
                # rclone shows no object while it is written anew; S3 itself and folders do.
                if isinstance(store, FolderStore):
                    assert store.get(key_of(data)) == data
        except BaseException as error:  # noqa: BLE001 — reported by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.get(key_of(data)) == data
    assert list(store.keys("images")) == [key_of(data)]


def test_a_store_that_was_never_prepared_is_unavailable(url: str, tmp_path: Path) -> None:
    store = open_store(url)
    calls: list[Callable[[], object]] = [
        store.check,
        lambda: store.put(ABSENT, b"x"),
        lambda: store.get(ABSENT),
        lambda: store.fetch(ABSENT, tmp_path / "target"),
        lambda: store.exists(ABSENT),
        lambda: list(store.keys("images")),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            call()
    store.prepare()
    store.prepare()
    store.check()


def test_a_failed_fetch_leaves_no_file(store: BlobStore, tmp_path: Path) -> None:
    store.put(key_of(b"data"), b"data")
    with pytest.raises(StoreUnavailable):
        store.fetch(key_of(b"data"), tmp_path / "no such folder" / "target")
    with pytest.raises(StoreUnavailable):
        store.put_file(ABSENT, tmp_path / "no such source")
    assert not store.exists(ABSENT)


def test_a_folder_that_fails_in_the_midst_of_many_leaves_nothing_unfinished(
    tmp_path: Path,
) -> None:
    store = FolderStore(tmp_path / "blobs")
    store.prepare()
    good, bad = b"good", b"bad"
    (tmp_path / "blobs" / "images").mkdir()
    (tmp_path / "blobs" / "images" / key_of(bad).split("/")[1][:2]).write_text("in the way")
    with pytest.raises(StoreUnavailable):
        store.put_all({key_of(good): good, key_of(bad): bad})
    assert list((tmp_path / "blobs" / ".incoming").iterdir()) == []
    assert not store.exists(key_of(good))


def test_a_folder_is_private_and_heals_a_torn_blob(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    store = open_store(root.as_uri())
    store.prepare()
    store.put(key_of(b"whole"), b"whole")
    digest = hashlib.sha256(b"whole").hexdigest()
    path = root / "images" / digest[:2] / digest
    assert [folder.stat().st_mode & 0o777 for folder in (root, path.parent)] == [0o700, 0o700]
    path.write_bytes(b"wh")
    store.put(key_of(b"whole"), b"whole")
    assert store.get(key_of(b"whole")) == b"whole"
    assert list((root / ".incoming").iterdir()) == []


def test_wrong_keys_of_s3_are_refused_without_showing_them(s3_host: str) -> None:
    address = s3_host.split("@")[1]
    store = open_store(f"s3://tester:wrong%2Fsecret@{address}/bucket?secure=false")
    with pytest.raises(StoreUnavailable) as caught:
        store.check()
    assert "403" in str(caught.value)
    with pytest.raises(StoreUnavailable) as caught:
        store.get(ABSENT)
    assert "wrong" not in str(caught.value)
    assert "SignatureDoesNotMatch" in str(caught.value)


def test_an_s3_server_that_is_down_is_told_in_bounded_time() -> None:
    store = open_store("s3://access:hidden-secret@127.0.0.1:1/bucket?secure=false")
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        store.check()
    assert time.monotonic() - started < 10
    assert "hidden" not in str(caught.value)


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[int]]]:
    """A proxy that answers every request in HTML with the status the test puts in the list."""
    status = [502]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html>gateway</html>"
            self.send_response(status[0])
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"s3://a:b@127.0.0.1:{server.server_address[1]}/bucket?secure=false", status
        server.shutdown()
        thread.join()


def test_answers_that_are_not_xml_are_told_by_their_status(
    gateway: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSES", (0.1,))
    url, status = gateway
    store = open_store(url)
    for status[0] in (502, 403, 400):
        with pytest.raises(StoreUnavailable):
            store.get(ABSENT)
    status[0] = 404
    with pytest.raises(BlobNotFound):
        store.get(ABSENT)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/no/scheme",
        "ftp://user:topsecret@host/bucket",
        "s3://host/bucket",
        "s3://user:topsecret@host",
        "s3://user:topsecret@host/bucket/deeper",
        "s3://user:topsecret@host:port/bucket",
        "s3://user:topsecret@host/b",
        "s3://user:topsecret@host/Bucket",
        "s3://user:topsecret@host/bucket?secure=perhaps",
        "s3://user:topsecret@host/bucket?unknown=1",
        "s3://user:topsecret@ho st/bucket",
        "file://elsewhere/folder",
        "file:relative",
    ],
)
def test_a_wrong_url_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        open_store(url)
    assert "topsecret" not in str(caught.value)
    assert "FEWLABELS_BLOB_URL" in str(caught.value)


def test_credentials_may_hold_any_character(s3_host: str) -> None:
    url = "s3://user%40team:se%2Fcr%3Aet@[::1]:9000/bucket?region=eu-west-1&secure=false"
    assert isinstance(open_store(url), S3Store)
