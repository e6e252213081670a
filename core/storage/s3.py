"""Blobs in a bucket of any S3 server, through the minio SDK."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error, ServerError

from core.errors import BlobNotFound, ConfigurationInvalid, StoreUnavailable
from core.storage.files import replacing
from core.storage.keys import KEY, check_key, check_namespace

CONNECT_SECONDS = 3.0
READ_SECONDS = 60.0
RETRIES = 2
COPY_BYTES = 2**20
PUTS_AT_ONCE = 8
HOST = re.compile(r"[A-Za-z0-9._:-]+")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
FORM = "s3://ACCESS_KEY:SECRET_KEY@host:port/bucket?secure=false&region=us-east-1"


class _Refused(Exception):
    """An answer with an error status and no XML, such as a proxy's HTML page."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


class _TolerantPool(urllib3.PoolManager):
    """Bounded waiting, and errors that the SDK can read whatever XML type the server states.

    The SDK parses error bodies of type application/xml only; other S3 servers (rclone's among
    them) send text/xml, which it would report as an unintelligible answer.
    """

    def __init__(self) -> None:
        super().__init__(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            retries=urllib3.Retry(
                total=RETRIES, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]
            ),
            maxsize=16,
        )

    def urlopen(self, method: str, url: str, redirect: bool = True, **rest: Any) -> Any:  # type: ignore[override]
        response = super().urlopen(method, url, redirect=redirect, **rest)
        if response.status < 400 or method == "HEAD":
            return response
        kind = response.headers.get("content-type", "").split(";")[0].strip()
        if kind not in {"text/xml", "application/xml"}:
            response.drain_conn()
            raise _Refused(response.status)
        response.headers["content-type"] = "application/xml"
        return response


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Address:
    """Where a bucket is and what opens it."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    secure: bool
    region: str

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Parse FEWLABELS_BLOB_URL.

        Raises:
            ConfigurationInvalid: A part is missing or wrong; the message repeats no part of it.
        """
        try:
            parts = urlsplit(url)
            query = parse_qs(parts.query, strict_parsing=bool(parts.query))
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigurationInvalid(f"FEWLABELS_BLOB_URL: expected {FORM}") from None
        bucket = unquote(parts.path).strip("/")
        secure = query.pop("secure", ["true"])[-1]
        region = query.pop("region", ["us-east-1"])[-1]
        complete = parts.username and parts.password and HOST.fullmatch(host or "")
        if not complete or query or not BUCKET.fullmatch(bucket) or secure not in {"true", "false"}:
            raise ConfigurationInvalid(f"FEWLABELS_BLOB_URL: expected {FORM}")
        address = f"[{host}]" if ":" in str(host) else str(host)
        return cls(
            endpoint=f"{address}:{port}" if port else address,
            bucket=bucket,
            access_key=unquote(str(parts.username)),
            secret_key=unquote(str(parts.password)),
            secure=secure == "true",
            region=region,
        )


class S3Store:
    """A BlobStore in one bucket; a PUT of S3 is atomic by itself."""

    def __init__(self, address: S3Address) -> None:
        """Name the bucket; nothing is contacted."""
        self._name = f"{address.endpoint}/{address.bucket}"
        self._bucket = address.bucket
        self._region = address.region
        self._client = Minio(
            endpoint=address.endpoint,
            access_key=address.access_key,
            secret_key=address.secret_key,
            secure=address.secure,
            region=address.region,
            http_client=_TolerantPool(),
        )

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
        with self._translated("prepare"):
            if not self._client.bucket_exists(self._bucket):
                try:
                    self._client.make_bucket(self._bucket, location=self._region)
                except S3Error:
                    # Another process may have made it in between.
                    if not self._client.bucket_exists(self._bucket):
                        raise

    def check(self) -> None:
        """Ask for the bucket: the server answers, the keys hold, the bucket is there."""
        with self._translated("check"):
            found = self._client.bucket_exists(self._bucket)
        if not found:
            raise StoreUnavailable(f"S3 store {self._name}: the bucket does not exist")

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes."""
        check_key(key)
        with self._translated("put"):
            self._client.put_object(self._bucket, key, io.BytesIO(data), len(data))

    def put_all(self, blobs: Mapping[str, bytes]) -> None:
        """Store many, several at a time."""
        with ThreadPoolExecutor(max_workers=PUTS_AT_ONCE) as threads:
            # list: the first failure is raised here.
            list(threads.map(self.put, blobs.keys(), blobs.values()))

    def put_file(self, key: str, path: Path) -> None:
        """Store a file's bytes."""
        check_key(key)
        with self._translated("put"):
            self._client.fput_object(self._bucket, key, str(path))

    def get(self, key: str) -> bytes:
        """The bytes."""
        with self._translated("get", key), self._opened(key) as answer:
            return cast(bytes, answer.read())

    def fetch(self, key: str, path: Path) -> None:
        """Copy the bytes to a file."""
        with self._translated("fetch", key), self._opened(key) as answer, replacing(path) as file:
            shutil.copyfileobj(answer, file, COPY_BYTES)

    def exists(self, key: str) -> bool:
        """Whether there are bytes under the key."""
        check_key(key)
        try:
            with self._translated("exists", key):
                self._client.stat_object(self._bucket, key)
        except BlobNotFound:
            # HEAD has no body, so a missing bucket looks like a missing blob.
            self.check()
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove the object."""
        check_key(key)
        try:
            with self._translated("delete", key):
                self._client.remove_object(self._bucket, key)
        except BlobNotFound:
            return  # some servers answer 404 where S3 answers 204

    def keys(self, namespace: str) -> Iterator[str]:
        """All keys of one namespace, in order."""
        return self._keys(check_namespace(namespace))

    def _keys(self, namespace: str) -> Iterator[str]:
        last = ""
        with self._translated("keys"):
            for item in self._client.list_objects(
                self._bucket, prefix=f"{namespace}/", recursive=True
            ):
                # Some servers list a key twice while it is being written again.
                if KEY.fullmatch(item.object_name) and item.object_name != last:
                    last = item.object_name
                    yield last

    @contextmanager
    def _opened(self, key: str) -> Iterator[Any]:
        with closing(self._client.get_object(self._bucket, check_key(key))) as answer:
            yield answer
            answer.release_conn()

    @contextmanager
    def _translated(self, operation: str, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except (MinioException, _Refused, urllib3.exceptions.HTTPError) as error:
            status, code = _status_and_code(error)
            if key is not None and status == 404 and code != "NoSuchBucket":
                raise BlobNotFound(f"no blob {key}") from None
            # Neither the error's text nor the URL: they may repeat what was signed.
            detail = f"{code} (HTTP {status})" if status else code
            raise StoreUnavailable(
                f"S3 store {self._name}: {operation} failed: {detail}"
            ) from error
        except (OSError, ParseError) as error:
            raise StoreUnavailable(f"S3 store {self._name}: {operation} failed: {error}") from error


def _status_and_code(error: Exception) -> tuple[int | None, str]:
    if isinstance(error, S3Error):
        return error.response.status, error.code or "unknown error"
    if isinstance(error, ServerError):
        return error.status_code, "server error"
    if isinstance(error, _Refused):
        return error.status, "answer that is not S3's"
    return None, type(error).__name__
