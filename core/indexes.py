"""Settings of the indexes over stored vectors."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class IndexSettings(BaseSettings):
    """What building an index may take from the database server."""

    index_memory_mb: int = Field(
        default=512,
        ge=16,
        description="Memory of the database server for building the index of a model's vectors, in "
        "MB. Enough is about 2.5 bytes a component and 300 a vector; with less it is built too, "
        "much more slowly.",
    )
