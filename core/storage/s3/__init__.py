"""Blobs in a bucket of any S3 server, through the minio SDK."""

from __future__ import annotations

from core.storage.s3.address import S3Address
from core.storage.s3.buckets import ForeignBucket
from core.storage.s3.multipart import MultipartUploads
from core.storage.s3.store import S3Store

__all__ = ["ForeignBucket", "MultipartUploads", "S3Address", "S3Store"]
