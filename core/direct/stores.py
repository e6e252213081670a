"""What of the object store direct uploads and imports from buckets need, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from core.config import Settings
from core.errors import BucketNotAllowed, NoObjectStore
from core.storage.s3 import ForeignBucket, MultipartUploads, S3Address, S3Store
from core.storage.store import BlobStore


@dataclass(frozen=True, slots=True)
class Place:
    """The blob store with the settings that say what may be done past the API."""

    blobs: BlobStore
    settings: Settings

    @property
    def is_remote(self) -> bool:
        """Whether clients can reach it themselves."""
        return isinstance(self.blobs, S3Store)

    def multipart_uploads(self) -> MultipartUploads:
        """Uploads in parts, which clients send.

        Raises:
            NoObjectStore: Blobs lie in a folder.
        """
        if not isinstance(self.blobs, S3Store):
            raise NoObjectStore(
                "this server keeps its images in a folder, which clients cannot reach; send the "
                "archive as the body of POST /datasets/{dataset_id}/images"
            )
        address = self.blobs.address
        return MultipartUploads(address, _as_clients_reach_it(address, self.settings.direct_url))

    def import_bucket(self, name: str) -> ForeignBucket:
        """A bucket that may be imported from.

        Raises:
            NoObjectStore: Blobs lie in a folder.
            BucketNotAllowed: The settings do not name it, or it has the blobs of all projects.
        """
        if not isinstance(self.blobs, S3Store):
            raise NoObjectStore(
                "this server keeps its images in a folder and reads no buckets; send the files "
                "to POST /datasets/{dataset_id}/images"
            )
        allowed = self.settings.allowed_buckets - {self.blobs.address.bucket}
        if name not in allowed:
            names = ", ".join(sorted(allowed)) or "none"
            raise BucketNotAllowed(
                f"source.bucket: found {name!r}; this server imports from: {names} "
                "(FEWLABELS_IMPORT_BUCKETS)"
            )
        return ForeignBucket(self.blobs.address, name)


def _as_clients_reach_it(address: S3Address, url: str) -> S3Address:
    if not url:
        return address
    parts = urlsplit(url)
    return replace(address, endpoint=parts.netloc, secure=parts.scheme == "https")
