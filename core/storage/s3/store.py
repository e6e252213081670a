"""A blob store in a bucket."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

from minio.error import S3Error

from core.errors import BlobNotFound, ConfigurationInvalid, StoreUnavailable
from core.storage.files import replacing
from core.storage.keys import KEY, check_key, check_namespace
from core.storage.s3.address import FORM, S3Address
from core.storage.s3.client import insist, make_client, translated
from core.storage.s3.reading import ObjectStream

COPY_BYTES = 2**20
PUTS_AT_ONCE = 8


class S3Store:
    """A BlobStore in one bucket; a PUT of S3 is atomic by itself."""

    def __init__(self, address: S3Address) -> None:
        """Name the bucket; nothing is contacted."""
        self.address = address
        self._name = f"{address.endpoint}/{address.bucket}"
        self._bucket = address.bucket
        self._client = make_client(address)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The store that an s3:// URL names."""
        address = S3Address.from_url(url)
        try:
            return cls(address)
        except ValueError:
            raise ConfigurationInvalid(f"FEWLABELS_BLOB_URL: expected {FORM}") from None

    def prepare(self) -> None:
        """Make the bucket if it is not there."""
        with translated(self._name, "prepare"):
            if not self._client.bucket_exists(self._bucket):
                try:
                    self._client.make_bucket(self._bucket, location=self.address.region)
                except S3Error:
                    # Another process may have made it in between.
                    if not self._client.bucket_exists(self._bucket):
                        raise

    def check(self) -> None:
        """Ask for the bucket: the server answers, the keys hold, the bucket is there."""
        with translated(self._name, "check"):
            found = self._client.bucket_exists(self._bucket)
        if not found:
            raise StoreUnavailable(f"S3 store {self._name}: the bucket does not exist")

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes."""
        check_key(key)
        with translated(self._name, "put"):
            insist(lambda: self._client.put_object(self._bucket, key, io.BytesIO(data), len(data)))

    def put_all(self, blobs: Mapping[str, bytes]) -> None:
        """Store many, several at a time."""
        with ThreadPoolExecutor(max_workers=PUTS_AT_ONCE) as threads:
            # list: the first failure is raised here.
            list(threads.map(self.put, blobs.keys(), blobs.values()))

    def put_file(self, key: str, path: Path) -> None:
        """Store a file's bytes."""
        check_key(key)
        with translated(self._name, "put"):
            insist(lambda: self._client.fput_object(self._bucket, key, str(path)))

    def get(self, key: str) -> bytes:
        """The bytes."""
        check_key(key)
        with translated(self._name, "get", key):
            return insist(lambda: self._read(key))

    def fetch(self, key: str, path: Path) -> None:
        """Copy the bytes to a file."""
        with self.open(key) as stream, translated(self._name, "fetch"), replacing(path) as file:
            shutil.copyfileobj(stream, file, COPY_BYTES)

    @contextmanager
    def open(self, key: str) -> Iterator[io.RawIOBase]:
        """The bytes as a stream."""
        check_key(key)
        with translated(self._name, "get", key):
            stream = ObjectStream(self._name, lambda start: self._from(key, start))
        with stream:
            yield stream

    def exists(self, key: str) -> bool:
        """Whether there are bytes under the key."""
        check_key(key)
        try:
            with translated(self._name, "exists", key):
                insist(lambda: self._client.stat_object(self._bucket, key))
        except BlobNotFound:
            # HEAD has no body, so a missing bucket looks like a missing blob.
            self.check()
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove the object."""
        check_key(key)
        try:
            with translated(self._name, "delete", key):
                insist(lambda: self._client.remove_object(self._bucket, key))
        except BlobNotFound:
            return  # some servers answer 404 where S3 answers 204

    def keys(self, namespace: str) -> Iterator[str]:
        """All keys of one namespace, in order."""
        return self._keys(check_namespace(namespace))

    def _keys(self, namespace: str) -> Iterator[str]:
        last = ""
        with translated(self._name, "keys"):
            for item in self._client.list_objects(
                self._bucket, prefix=f"{namespace}/", recursive=True
            ):
                # Some servers list a key twice while it is being written again.
                if KEY.fullmatch(item.object_name) and item.object_name != last:
                    last = item.object_name
                    yield last

    def _read(self, key: str) -> bytes:
        answer = self._from(key, 0)
        try:
            data = cast(bytes, answer.read())
            answer.release_conn()
        finally:
            answer.close()
        return data

    def _from(self, key: str, start: int) -> Any:
        return self._client.get_object(self._bucket, key, offset=start)
