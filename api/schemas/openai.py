"""Embeddings in the shape of OpenAI's API."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.inference import SAMPLE_PNG
from api.schemas.strict import StrictBody
from api.schemas.text import Text


class OpenAIEmbeddingsIn(StrictBody):
    """Images as data URIs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "production", "input": f"data:image/png;base64,{SAMPLE_PNG}"}]
        },
    )

    model: Text = Field(min_length=1, max_length=200, description="Id or alias.")
    input: str | list[str] = Field(min_length=1, description="A data: URI, or several.")
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="Numbers, or base64 of little-endian float32."
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="The model's own dimension, or nothing."
    )
    user: Text | None = Field(default=None, description="Not used.")


class OpenAIEmbedding(BaseModel):
    """The vector of one image."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class OpenAIUsage(BaseModel):
    """Images, where OpenAI counts tokens."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddingsOut(BaseModel):
    """Unit vectors in the order of the input."""

    object: Literal["list"] = "list"
    model: str = Field(description="The id of the model that answered.")
    data: list[OpenAIEmbedding]
    usage: OpenAIUsage
