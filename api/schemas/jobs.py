"""Jobs as JSON: what may be asked, and what is told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]
EncoderName = Literal[
    "resnet10_tiny", "resnet10", "resnet18", "resnet34", "resnet50", "mobilenet_v3_small"
]
Preset = Literal["photo", "small", "greyscale", "document"]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=2, le=65_536)]
Rate = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
ImageSize = Annotated[int, Field(ge=8, le=512)]
State = Literal[
    "waiting", "queued", "running", "cancelling", "succeeded", "failed", "crashed", "cancelled"
]
SAMPLE_ID = "3f2c8a52-6f0e-4a3e-9d8e-1f6f5b0c7d11"


class StageOptions(BaseModel):
    """What every stage understands; `auto` is resolved from the data and the device."""

    model_config = ConfigDict(extra="forbid")

    epochs: Epochs | Auto = "auto"
    batch_size: BatchSize | Auto = "auto"
    learning_rate: Rate | Auto = "auto"
    weight_decay: Decay | Auto = "auto"
    augmentation: Preset | Auto = Field(
        default="auto",
        description="`document` does not mirror: for writing, signs, and whatever has a "
        "right way round.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31)


class PretrainOptions(StageOptions):
    """SimCLR on all images, without labels."""

    encoder: EncoderName | Auto = "auto"
    image_size: ImageSize | Auto = "auto"
    views: int = Field(default=2, ge=2, le=16, description="Augmented views of each image.")
    temperature: Temperature | Auto = "auto"
    optimizer: Literal["adamw", "sgd", "lars"] | Auto = "auto"


class FinetuneOptions(StageOptions):
    """A classifier on the labelled images."""

    train: Literal["head", "full"] | Auto = Field(
        default="auto", description="`head`: the encoder stays frozen. `full`: everything learns."
    )


class DistillOptions(StageOptions):
    """A student that learns the classifier's answers on all images."""

    student: EncoderName | Literal["same"] | Auto = Field(
        default="auto", description="`auto` takes a smaller encoder than the teacher's."
    )
    temperature: Temperature | Auto = "auto"
    optimizer: Literal["adamw", "sgd", "lars"] | Auto = "auto"


class PretrainJobIn(PretrainOptions):
    """Pre-train an encoder."""

    stage: Literal["pretrain"]
    dataset_id: UUID


class FinetuneJobIn(FinetuneOptions):
    """Train a classifier: on an encoder, on the encoder of a job, or from scratch."""

    stage: Literal["finetune"]
    dataset_id: UUID
    model_id: UUID | None = Field(
        default=None, description="The encoder; without it and `needs`: random weights."
    )
    needs: UUID | None = Field(
        default=None, description="The pretrain job whose encoder to use; it may still run."
    )
    encoder: EncoderName | Auto = Field(default="auto", description="Only from scratch.")
    image_size: ImageSize | Auto = Field(default="auto", description="Only from scratch.")


class DistillJobIn(DistillOptions):
    """Train a student of a classifier."""

    stage: Literal["distill"]
    dataset_id: UUID
    model_id: UUID | None = Field(default=None, description="The teacher.")
    needs: UUID | None = Field(
        default=None, description="The finetune job whose classifier teaches; it may still run."
    )


class PipelineJobIn(BaseModel):
    """All three stages, one after the other."""

    model_config = ConfigDict(extra="forbid")

    stage: Literal["pipeline"]
    dataset_id: UUID
    pretrain: PretrainOptions = PretrainOptions()
    finetune: FinetuneOptions = FinetuneOptions()
    distill: DistillOptions = DistillOptions()


JobIn = Annotated[
    PretrainJobIn | FinetuneJobIn | DistillJobIn | PipelineJobIn, Field(discriminator="stage")
]
JOB_EXAMPLES: dict[str, Any] = {
    "pipeline": {
        "summary": "All three stages",
        "value": {"stage": "pipeline", "dataset_id": SAMPLE_ID},
    },
    "pretrain": {
        "summary": "An encoder from unlabelled images",
        "value": {"stage": "pretrain", "dataset_id": SAMPLE_ID, "epochs": 100},
    },
    "finetune": {
        "summary": "A classifier on that encoder",
        "value": {"stage": "finetune", "dataset_id": SAMPLE_ID, "model_id": SAMPLE_ID},
    },
    "scratch": {
        "summary": "The baseline: the same labels without pre-training",
        "value": {"stage": "finetune", "dataset_id": SAMPLE_ID, "train": "full"},
    },
    "distill": {
        "summary": "A smaller student",
        "value": {"stage": "distill", "dataset_id": SAMPLE_ID, "model_id": SAMPLE_ID},
    },
}


class JobFilter(BaseModel):
    """Which jobs to list."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    stage: Literal["pretrain", "finetune", "distill"] | None = None
    dataset_id: UUID | None = None
    pipeline_id: UUID | None = None
    cursor: str | None = Field(default=None, description="The next_cursor of the page before.")
    limit: int = Field(default=50, ge=1, le=1000, description="Most items on a page.")


class JobErrorOut(BaseModel):
    """Why a job failed or crashed."""

    code: str
    detail: str


class JobOut(BaseModel):
    """A job."""

    id: UUID
    stage: Literal["pretrain", "finetune", "distill"]
    state: State
    dataset_id: UUID | None
    snapshot_id: UUID | None
    pipeline_id: UUID | None
    needs: UUID | None = Field(description="The job that must succeed first.")
    model_id: UUID | None = Field(description="What the job made.")
    attempt: int
    max_attempts: int
    spec: dict[str, Any] = Field(description="What was asked.")
    plan: dict[str, Any] = Field(description="What it was resolved to.")
    progress: dict[str, Any] | None = Field(
        description="step of steps, epoch of epochs, loss, images_per_second, seconds_left"
    )
    error: JobErrorOut | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobCreatedOut(JobOut):
    """The job that was made; of a pipeline the last one, with the whole chain in `jobs`."""

    jobs: list[JobOut] = Field(description="All jobs of this request, in the order they run.")


class JobPage(BaseModel):
    """A page of jobs."""

    items: list[JobOut]
    next_cursor: str | None


class SeriesOut(BaseModel):
    """One metric over the steps of a job."""

    name: str
    steps: list[int]
    values: list[float]


class MetricsOut(BaseModel):
    """The metrics of a job."""

    job_id: UUID
    series: list[SeriesOut]
