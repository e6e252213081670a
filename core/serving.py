"""Settings of the models that answer: how much waits, how long, and what is kept in memory."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

PINNED = re.compile(r"([^/,]{1,200}/)?[a-z0-9][a-z0-9._-]{0,99}")


class ServingSettings(BaseSettings):
    """The part of the settings that `/embed`, `/predict` and their like read."""

    max_inference_bytes: int = Field(
        default=64 * 2**20, gt=0, description="Largest body of an /embed or /predict request."
    )
    max_inference_images: int = Field(
        default=64, gt=0, description="Most images in one /embed or /predict request."
    )
    max_inbound_mb: int = Field(
        default=1024,
        gt=0,
        description="Bodies of serving requests that may be in memory at the same time, in MB, in "
        "each API process; callers beyond that get 429 before theirs is read.",
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
    inference_runtime: Literal["auto", "eager", "onnxruntime", "openvino"] = Field(
        default="auto",
        description="What runs the served models on a CPU: `auto` is what was fastest when the "
        "model was made; a model without an ONNX file is run by PyTorch (`eager`).",
    )
    export_onnx: bool = Field(
        default=True,
        description="Whether a job ends with writing model.onnx and timing the runtimes: some "
        "seconds, for large encoders half a minute.",
    )
    export_int8: bool = Field(
        default=True,
        description="Whether a classifier is tried in eight bits, too, for /predict alone, and "
        "served so where its classes and confidences stay the same and time is saved.",
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
    pinned_models: str = Field(
        default="",
        description="Models that are loaded at the start and stay in memory, separated by commas: "
        "an alias or id of the project `default`, or PROJECT/ALIAS. Aliases are followed when they "
        "move; /readyz is red until they are loaded.",
    )
    api_processes: int = Field(
        default=1,
        ge=1,
        description="Processes that serve HTTP on one port. Each has its own queue and models; the "
        "weights of a model are in memory once.",
    )

    @field_validator("pinned_models")
    @classmethod
    def _named(cls, value: str) -> str:
        for reference in filter(None, map(str.strip, value.split(","))):
            if not PINNED.fullmatch(reference):
                raise ValueError(
                    f"found {reference!r}; allowed are an alias, an id, PROJECT/ALIAS and "
                    "PROJECT/ID, separated by commas"
                )
        return value

    def images_a_pass(self, image_size: int) -> int:
        """Most images of this size that one forward pass takes."""
        fitting = max(1, self.inference_batch_pixels // image_size**2)
        return min(self.inference_batch, fitting)

    @property
    def pinned(self) -> list[str]:
        """The single references of `pinned_models`."""
        return [name for part in self.pinned_models.split(",") if (name := part.strip())]
