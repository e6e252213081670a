"""Settings of what comes past the API: straight to the object store, or from its buckets."""

from __future__ import annotations

import re

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

ADDRESS = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+/?")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class ObjectStoreSettings(BaseSettings):
    """The part of the settings that has a meaning where blobs are kept in an object store."""

    max_direct_bytes: int = Field(
        default=256 * 2**30,
        gt=0,
        description="Largest archive that a client may send straight to the object store, in "
        "bytes.",
    )
    max_direct_uploads: int = Field(
        default=16,
        gt=0,
        description="Most archives of a project on their way to the object store, or there and "
        "not imported yet; more get 429.",
    )
    direct_part_bytes: int = Field(
        default=64 * 2**20,
        ge=5 * 2**20,
        description="Bytes of one part of such an archive; more where it would have over 1000.",
    )
    direct_hours: float = Field(
        default=24.0,
        gt=0,
        le=7 * 24,
        description="How long the addresses of the parts are valid; what is not completed by "
        "then is removed.",
    )
    direct_url: str = Field(
        default="",
        description="Where clients reach the object store, where that is another address than "
        "the server's own (https://objects.example.com).",
    )
    import_buckets: str = Field(
        default="",
        description="Buckets of the object store that images may be imported from, separated by "
        "commas; every project may read all of them. Unset: none.",
    )

    @field_validator("direct_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not ADDRESS.fullmatch(value):
            raise ValueError(
                f"found {value[:200]!r}; expected a scheme and a host, such as "
                "https://objects.example.com"
            )
        return value.rstrip("/")

    @field_validator("import_buckets")
    @classmethod
    def _names(cls, value: str) -> str:
        for name in buckets_in(value):
            if not BUCKET.fullmatch(name):
                raise ValueError(
                    f"found {name[:200]!r}; names of buckets are 3 to 63 lower-case letters, "
                    "digits, dots and hyphens"
                )
        return value

    @property
    def allowed_buckets(self) -> frozenset[str]:
        """Buckets that may be imported from."""
        return buckets_in(self.import_buckets)


def buckets_in(text: str) -> frozenset[str]:
    """The names in a list with commas."""
    return frozenset(name.strip() for name in text.split(",")) - {""}
