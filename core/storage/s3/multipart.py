"""Multipart uploads that clients send to the store themselves, through addresses signed here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from minio import Minio
from minio.datatypes import Part
from minio.error import S3Error

from core.errors import PartsInvalid
from core.storage.keys import check_key
from core.storage.s3.address import S3Address
from core.storage.s3.client import insist, make_client, translated

# The store lists so many in one answer, and the addresses of more would be megabytes.
MOST_PARTS = 1_000
LEAST_PART_BYTES = 5 * 2**20  # S3 refuses smaller ones, but for the last
LONGEST_HOURS = 7 * 24.0  # that an address can be valid


class MultipartUploads:
    """Start, complete and abort them in one bucket; the bytes pass by.

    The SDK has these calls only as private ones, which its own uploads are made of.
    """

    def __init__(self, address: S3Address, signed_for: S3Address) -> None:
        """Take the bucket's address, and the one under which clients reach it."""
        self._name = f"{address.endpoint}/{address.bucket}"
        self._bucket = address.bucket
        self._client: Minio = make_client(address)
        self._signer: Minio = make_client(signed_for)

    def start(self, key: str, media_type: str) -> str:
        """The store's own name of a new upload."""
        check_key(key)
        headers = {"Content-Type": media_type}
        with translated(self._name, "start of an upload"):
            return insist(
                lambda: self._client._create_multipart_upload(self._bucket, key, {**headers})
            )

    def addresses(self, key: str, upload: str, *, parts: int, hours: float) -> list[str]:
        """Where to PUT each part, in order; whoever has an address can write that part."""
        return [
            self._signer.get_presigned_url(
                "PUT",
                self._bucket,
                check_key(key),
                expires=timedelta(hours=hours),
                extra_query_params={"partNumber": str(number), "uploadId": upload},
            )
            for number in range(1, parts + 1)
        ]

    def complete(self, key: str, upload: str, etags: Sequence[str], *, size: int) -> None:
        """Make one object of the parts; again is the same as once.

        Raises:
            PartsInvalid: They are not those that have arrived, or not so many bytes.
            StoreUnavailable: The store does not answer or refuses.
        """
        wanted = [Part(number, etag.strip('"')) for number, etag in enumerate(etags, 1)]
        with translated(self._name, "end of an upload"):
            try:
                found = self._client._list_parts(self._bucket, key, upload).parts
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise
                self._require_whole(key, size)
                return
            _require_same(wanted, found, size)
            self._client._complete_multipart_upload(self._bucket, key, upload, wanted)

    def abort(self, key: str, upload: str) -> None:
        """Forget the parts; nothing happens when there are none."""
        with translated(self._name, "abort of an upload"):
            try:
                self._client._abort_multipart_upload(self._bucket, check_key(key), upload)
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise

    def _require_whole(self, key: str, size: int) -> None:
        """The object is there: an earlier call made it, and its answer was lost."""
        try:
            found = self._client.stat_object(self._bucket, key).size
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            found = None
        if found != size:
            raise PartsInvalid(
                "upload_id: the object store does not know this upload any more; start another"
            )


def _require_same(wanted: Sequence[Part], found: Sequence[Part], size: int) -> None:
    arrived = {part.part_number: part for part in found}
    for part in wanted:
        there = arrived.get(part.part_number)
        if there is None:
            raise PartsInvalid(
                f"etags: part {part.part_number} has not arrived; PUT it, and complete again"
            )
        if there.etag != part.etag:
            raise PartsInvalid(
                f"etags: found {part.etag!r} for part {part.part_number}, the object store has "
                f"{there.etag!r}"
            )
    total = sum(arrived[part.part_number].size or 0 for part in wanted)
    if total != size:
        raise PartsInvalid(
            f"etags: the parts have {total} bytes together, the upload was announced with {size}"
        )
