"""Where a bucket is and what opens it, from a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from core.errors import ConfigurationInvalid

HOST = re.compile(r"[A-Za-z0-9._:-]+")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
FORM = "s3://ACCESS_KEY:SECRET_KEY@host:port/bucket?secure=false&region=us-east-1"


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
