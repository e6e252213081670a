"""Settings: the only reader of the environment (prefix FEWLABELS_, or a .env file)."""

from __future__ import annotations

import difflib
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from core.access import AccessSettings
from core.errors import ConfigurationInvalid
from core.exposure import has_known_secret, is_loopback, is_remote
from core.indexes import IndexSettings
from core.objects import ObjectStoreSettings
from core.outbound import OutboundSettings
from core.scheduling import SchedulingSettings
from core.serving import ServingSettings
from core.watching import WatchSettings

PREFIX = "FEWLABELS_"
# Not of the service: the address and key that commands and examples call it with, and what
# docker-compose.yml reads.
OF_CLIENTS = frozenset(PREFIX + name for name in ("URL", "API_KEY", "TAG", "PUBLISH"))


class Settings(
    AccessSettings,
    ObjectStoreSettings,
    IndexSettings,
    OutboundSettings,
    SchedulingSettings,
    ServingSettings,
    WatchSettings,
):
    """All settings with their defaults; each one is documented by its description."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # it has passwords
    )

    # Where things live
    database_url: SecretStr | None = Field(
        default=None,
        description="Postgres URL (postgresql://user:password@host/name). "
        "Unset: `fewlabels up` starts an embedded Postgres.",
    )
    broker_url: SecretStr | None = Field(
        default=None,
        description="Redis or Valkey URL (redis://:password@host:6379/0). "
        "Unset: `fewlabels up` starts an embedded Valkey.",
    )
    blob_url: SecretStr | None = Field(
        default=None,
        description="Where images and models are kept: file:///folder or "
        "s3://ACCESS_KEY:SECRET_KEY@host:port/bucket?secure=false. "
        "Unset: a folder inside the data folder.",
    )
    data_dir: Path = Field(
        default=Path("fewlabels-data"),
        description="Folder for embedded servers, blobs, caches and work in progress.",
    )
    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that the API listens on.")

    # Limits on what comes in
    max_json_bytes: int = Field(
        default=64 * 2**20, gt=0, description="Largest JSON or CSV body, in bytes."
    )
    max_upload_bytes: int = Field(
        default=4 * 2**30, gt=0, description="Largest upload (archive or multipart), in bytes."
    )
    max_upload_files: int = Field(
        default=10_000, gt=0, description="Most image files in one multipart upload."
    )
    max_archive_entries: int = Field(
        default=200_000, gt=0, description="Most entries in one uploaded archive."
    )
    max_archive_bytes: int = Field(
        default=32 * 2**30, gt=0, description="Most bytes that one archive may unpack to."
    )
    max_archive_ratio: float = Field(
        default=200.0,
        gt=1,
        description="An archive entry that unpacks to more than this many times its packed size "
        "is rejected as a decompression bomb.",
    )
    max_image_bytes: int = Field(
        default=32 * 2**20, gt=0, description="Largest encoded image file, in bytes."
    )
    max_image_pixels: int = Field(
        default=50_000_000,
        gt=0,
        description="Most pixels (width times height) of an image, checked before it is decoded.",
    )
    decode_processes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="Processes that decode uploaded images to check them: a number, or auto, "
        "which is one for each core.",
    )
    decode_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Processor time that decoding one uploaded image may take.",
    )
    decode_memory_mb: int = Field(
        default=1536,
        ge=128,
        description="Memory of one process that decodes uploads, in MB; an image that needs more "
        "is refused.",
    )
    max_images_per_dataset: int = Field(
        default=1_000_000, gt=0, description="Most images in one dataset."
    )
    blob_grace_seconds: float = Field(
        default=3600.0,
        ge=60,
        description="How long bytes that no image refers to are kept before the sweep deletes "
        "them; an upload has this long from writing an image to recording it.",
    )
    max_labels_per_request: int = Field(
        default=1_000_000, gt=0, description="Most labels in one request."
    )
    max_classes: int = Field(default=10_000, ge=2, description="Most classes in one dataset.")

    # Jobs
    worker_concurrency: int = Field(
        default=1, gt=0, description="Jobs that one worker runs at the same time."
    )
    lease_seconds: float = Field(
        default=30.0,
        ge=1,
        description="A job whose worker has been silent for this long is taken from it.",
    )
    sweep_seconds: float = Field(
        default=5.0, gt=0, description="Pause between two sweeps for lost and expired jobs."
    )
    job_seconds: float = Field(
        default=24 * 3600.0, gt=0, description="Longest that one job may run before it fails."
    )
    job_max_attempts: int = Field(
        default=3, gt=0, description="How often a job whose process died is tried."
    )
    cancel_grace_seconds: float = Field(
        default=10.0,
        gt=0,
        description="How long a cancelled job may take to stop by itself before it is killed.",
    )
    checkpoint_seconds: float = Field(
        default=60.0, gt=0, description="Training time between two checkpoints."
    )
    training_processes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="Processes that share the batches of a pre-training, at most: a number, or "
        "auto, which is one for each visible CUDA device and one on the CPU. The largest number "
        "up to it that divides the batch_size is taken.",
    )

    # Telling what happens
    log_format: Literal["console", "json"] = Field(
        default="console", description="Log lines for people or for machines."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important log lines that are written."
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _auth_is_on_where_others_can_call(self) -> Self:
        if self.auth_mode == "off" and not is_loopback(self.host):
            raise ValueError(
                f"auth_mode is 'off' and host is {self.host!r}: without keys the service listens "
                "on a loopback address only; set FEWLABELS_AUTH_MODE=keys"
            )
        return self

    @model_validator(mode="after")
    def _no_secret_that_all_know(self) -> Self:
        for name in ("database_url", "broker_url", "blob_url"):
            secret = getattr(self, name)
            url = secret.get_secret_value() if secret else ""
            if has_known_secret(url) and (self.auth_mode == "keys" or is_remote(url)):
                raise ValueError(
                    f"FEWLABELS_{name.upper()}: its password is one that everybody tries first; "
                    "give the server one of its own, for instance of `openssl rand -hex 16`"
                )
        return self

    @property
    def store_url(self) -> str:
        """Blob URL with the data folder's default filled in; may hold a secret."""
        if self.blob_url is not None:
            return self.blob_url.get_secret_value()
        return (self.data_dir / "blobs").as_uri()

    @property
    def sqlalchemy_url(self) -> str:
        """Database URL for SQLAlchemy with the psycopg driver; may hold a secret.

        Raises:
            ConfigurationInvalid: No database URL is set.
        """
        url = required(self.database_url, "FEWLABELS_DATABASE_URL")
        scheme, separator, rest = url.partition("://")
        if not separator or scheme.split("+")[0] not in {"postgres", "postgresql"}:
            raise ConfigurationInvalid(
                f"FEWLABELS_DATABASE_URL: found a {scheme!r} URL, only postgresql:// is supported"
            )
        return f"postgresql+psycopg://{rest}"


def required(secret: SecretStr | None, name: str) -> str:
    """The value of a setting that has no default outside `fewlabels up`."""
    if secret is None:
        raise ConfigurationInvalid(
            f"{name} is not set; set it, or run `fewlabels up`, which starts embedded servers"
        )
    return secret.get_secret_value()


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with overrides (None = not given).

    Raises:
        ConfigurationInvalid: A setting has a wrong value; the message names each one.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"FEWLABELS_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            if problem["loc"]
            else str(problem["msg"]).removeprefix("Value error, ")
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationInvalid("; ".join(lines)) from None


def misspelt_settings() -> dict[str, str | None]:
    """Variables with our prefix that nothing reads, each with the setting that may be meant."""
    known = [f"{PREFIX}{name}".upper() for name in Settings.model_fields]
    given = [name for name in os.environ if name.upper().startswith(PREFIX)]
    with suppress(OSError):
        lines = Path(".env").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition("=")[0].removeprefix("export ").strip() for line in lines]
        given += [name for name in names if name.upper().startswith(PREFIX)]
    unread = sorted({name.upper() for name in given} - {*known, *OF_CLIENTS})
    close = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.8) for name in unread}
    return {name: next(iter(found), None) for name, found in close.items()}


@lru_cache(maxsize=1)
def process_settings() -> Settings:
    """The settings of this process, read once; for entry points that nobody can hand them to."""
    return load_settings()


# What a program needs to find its libraries and this one; no settings, and so no secrets.
BARE = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TZ")


def bare_environment() -> dict[str, str]:
    """The environment of a child process that handles bytes from outside: without any secret."""
    return {name: os.environ[name] for name in BARE if name in os.environ}


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a child process: this process's, with exactly these settings in it.

    Secrets reach a child this way only: arguments are visible to every user of the machine.
    """
    environment = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if value is not None:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            environment[PREFIX + name.upper()] = text
    # Threads that spin for long while they wait take the cores from the API and from other jobs;
    # without spinning at all a step of a small network takes a third longer.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    environment.setdefault("GOMP_SPINCOUNT", "1000")
    # What a job compiles (core/learning/augmentations/kernel.py) is kept beside the code for the
    # next one, unless the code lies where nobody may write.
    if not os.access(__file__, os.W_OK):
        environment.setdefault("NUMBA_CACHE_DIR", str(settings.data_dir / "compiled"))
    return environment
