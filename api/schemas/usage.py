"""What a project holds and may hold, as JSON."""

from __future__ import annotations

from pydantic import BaseModel, Field

NONE = "null: no limit."


class LimitsOut(BaseModel):
    """The limits that hold for the project and the key."""

    images: int | None = Field(description=f"Of the project. {NONE}")
    bytes: int | None = Field(description=f"Of the project's images. {NONE}")
    images_per_dataset: int
    unfinished_jobs: int | None = Field(description=f"Waiting, queued or running. {NONE}")
    requests_per_second: int | None = Field(description=f"Of this API key. {NONE}")
    upload_bytes: int = Field(description="Of one request that uploads images.")
    inference_bytes: int = Field(description="Of one request to /embed or /predict.")
    json_bytes: int = Field(description="Of any other request.")


class UsageOut(BaseModel):
    """What the project holds, and what it may hold."""

    datasets: int
    images: int = Field(description="In all datasets; one in two datasets counts twice.")
    bytes: int = Field(description="Of these images.")
    models: int
    jobs: dict[str, int] = Field(
        description="By state.", examples=[{"running": 1, "succeeded": 12}]
    )
    unfinished_jobs: int = Field(description="Waiting, queued or running.")
    requests_left: int | None = Field(
        description="That this API key may send in this second. null: any number, or not known "
        "because the broker does not answer."
    )
    limits: LimitsOut
