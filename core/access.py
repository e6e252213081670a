"""Settings of who may call, from where, how often, and how much a project may hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from core.exposure import is_origin, origins_in


class AccessSettings(BaseSettings):
    """The part of the settings that says what callers may do; 0 is no limit."""

    auth_mode: Literal["off", "keys"] = Field(
        default="off",
        description="`keys`: every call but health, metrics and documentation needs an API key. "
        "`off`: only on a loopback address.",
    )
    key_cache_seconds: float = Field(
        default=1.0,
        ge=0,
        description="How long the serving path may trust a verified key or a resolved alias "
        "before it asks the database again.",
    )
    tls: bool = Field(
        default=False,
        description="Whether callers reach the API by HTTPS only; then browsers are told so "
        "(Strict-Transport-Security).",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may call the API from a browser, separated by commas "
        "(https://app.example.com,https://labels.example.com). Unset: none.",
    )
    requests_per_second: int = Field(
        default=200,
        ge=0,
        description="Most requests of one API key in any second, over all API processes; more "
        "get 429. 0: any number.",
    )
    max_project_images: int = Field(
        default=10_000_000, ge=0, description="Most images in all datasets of a project. 0: any."
    )
    max_project_bytes: int = Field(
        default=2**40,
        ge=0,
        description="Most bytes of images in all datasets of a project; an image counts in each "
        "dataset that has it. 0: any.",
    )
    max_unfinished_jobs: int = Field(
        default=100,
        ge=0,
        description="Most jobs of a project that wait, are queued or run; more get 429. 0: any.",
    )
    idempotency_hours: float = Field(
        default=24.0,
        gt=0,
        description="How long the answer to a request with an Idempotency-Key is kept.",
    )

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in origins_in(value):
            if not is_origin(origin):
                raise ValueError(
                    f"found {origin[:200]!r}; allowed are origins such as https://app.example.com: "
                    "scheme, name and port, without a path, and no *"
                )
        return value

    @property
    def allowed_origins(self) -> list[str]:
        """Origins whose pages may call."""
        return origins_in(self.cors_origins)
