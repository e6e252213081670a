"""Settings of the models that answer: how much waits, how long, and what is kept in memory."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class ServingSettings(BaseSettings):
    """The part of the settings that `/embed`, `/predict` and their like read."""

    max_inference_bytes: int = Field(
        default=64 * 2**20, gt=0, description="Largest body of an /embed or /predict request."
    )
    max_inference_images: int = Field(
        default=64, gt=0, description="Most images in one /embed or /predict request."
    )
    inference_threads: int = Field(
        default=2, gt=0, description="Threads that decode and preprocess images for serving."
    )
    inference_queue: int = Field(
        default=256,
        gt=0,
        description="Images of one model that may be decoded, wait and be worked on at the same "
        "time; callers beyond that get 429.",
    )
    inference_batch: int = Field(
        default=32, gt=0, description="Most images in one forward pass of a served model."
    )
    inference_batch_pixels: int = Field(
        default=32 * 224 * 224,
        gt=0,
        description="Most pixels of a model's inputs in one forward pass; bounds the batches of "
        "models with large inputs. One image always goes.",
    )
    inference_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Longest that a serving request may take before 504; a request may ask for "
        "less in X-Timeout-Ms.",
    )
    probe_seconds: float = Field(
        default=5.0,
        gt=0,
        description="Longest that a loaded model may take to answer a probe before /readyz is red.",
    )
    max_loaded_models: int = Field(
        default=16,
        gt=0,
        description="Models kept in memory for serving; the least recently used makes room.",
    )
    inference_memory_mb: int = Field(
        default=4096,
        gt=0,
        description="What the models in memory may take in each API process, in MB; the least "
        "recently used makes room.",
    )
