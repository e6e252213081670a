"""Jobs as JSON: what may be asked, and what is told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.placement import Placement
from api.schemas.stages import DistillOptions, FinetuneOptions, NewEncoder, PretrainOptions
from api.schemas.strict import StrictBody

State = Literal[
    "waiting", "queued", "running", "cancelling", "succeeded", "failed", "crashed", "cancelled"
]
SAMPLE_ID = "3f2c8a52-6f0e-4a3e-9d8e-1f6f5b0c7d11"
_DATASET = Field(description="The dataset to learn from; it is frozen as it is now.")


class PretrainJobIn(PretrainOptions, Placement):
    """Pre-train an encoder."""

    stage: Literal["pretrain"]
    dataset_id: UUID = _DATASET


class FinetuneJobIn(FinetuneOptions, NewEncoder, Placement):
    """Train a classifier: on an encoder, on the encoder of a job, or without either.

    `encoder`, `stem`, `init` and `image_size` are for a job without `model_id` and `needs` only.
    """

    stage: Literal["finetune"]
    dataset_id: UUID = _DATASET
    model_id: UUID | None = Field(
        default=None,
        description="The encoder, or a classifier whose encoder is taken; without it and `needs` "
        "training begins with the weights that `init` names.",
    )
    needs: UUID | None = Field(
        default=None, description="The job whose encoder to use; it may still run."
    )


class DistillJobIn(DistillOptions, Placement):
    """Train a student of a classifier."""

    stage: Literal["distill"]
    dataset_id: UUID = _DATASET
    model_id: UUID | None = Field(default=None, description="The teacher.")
    needs: UUID | None = Field(
        default=None, description="The finetune job whose classifier teaches; it may still run."
    )


class EmbedJobIn(Placement):
    """Store a vector for every image of the dataset that has none of this model yet."""

    model_config = ConfigDict(protected_namespaces=())

    stage: Literal["embed"]
    dataset_id: UUID = Field(description="The dataset to embed, as it is now.")
    model_id: UUID | None = Field(default=None, description="The model that gives the vectors.")
    needs: UUID | None = Field(
        default=None, description="The job whose model gives them; it may still run."
    )
    index: Literal["auto", "hnsw", "none"] = Field(
        default="auto",
        description="Whether to build an index over the model's vectors, which `POST /search` "
        "uses; `auto` does from 10,000 images. One that is there is kept.",
    )
    batch_size: Annotated[int, Field(strict=True, ge=1, le=65_536)] | Literal["auto"] = Field(
        default="auto", description="How many images go through the network at once."
    )


class PipelineJobIn(Placement):
    """All three stages, one after the other."""

    stage: Literal["pipeline"]
    dataset_id: UUID = _DATASET
    pretrain: PretrainOptions = PretrainOptions()
    finetune: FinetuneOptions = FinetuneOptions()
    distill: DistillOptions = DistillOptions()


JobIn = Annotated[
    PretrainJobIn | FinetuneJobIn | DistillJobIn | EmbedJobIn | PipelineJobIn,
    Field(discriminator="stage"),
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
    "budget": {
        "summary": "An encoder in ten minutes",
        "value": {"stage": "pretrain", "dataset_id": SAMPLE_ID, "budget_minutes": 10},
    },
    "joint_labels": {
        "summary": "An encoder from all images, in which labels take part",
        "value": {
            "stage": "pretrain",
            "dataset_id": SAMPLE_ID,
            "use_labels": True,
            "label_share": 0.25,
        },
    },
    "microscopy": {
        "summary": "Images without up and down, changed a little less than usual",
        "value": {
            "stage": "pretrain",
            "dataset_id": SAMPLE_ID,
            "augmentation": "microscopy",
            "augmentation_strength": 0.8,
            "views": 4,
        },
    },
    "continue": {
        "summary": "Go on training an encoder, on more images",
        "value": {"stage": "pretrain", "dataset_id": SAMPLE_ID, "model_id": SAMPLE_ID},
    },
    "finetune": {
        "summary": "A classifier on that encoder",
        "value": {"stage": "finetune", "dataset_id": SAMPLE_ID, "model_id": SAMPLE_ID},
    },
    "supcon": {
        "summary": "Train the encoder further with the labels (SupCon)",
        "value": {
            "stage": "finetune",
            "dataset_id": SAMPLE_ID,
            "model_id": SAMPLE_ID,
            "method": "supcon",
        },
    },
    "baseline": {
        "summary": "A classifier, and beside it one without pre-training",
        "value": {
            "stage": "finetune",
            "dataset_id": SAMPLE_ID,
            "model_id": SAMPLE_ID,
            "baseline": True,
        },
    },
    "scratch": {
        "summary": "Only the labels, without pre-training",
        "value": {"stage": "finetune", "dataset_id": SAMPLE_ID, "method": "full"},
    },
    "embed": {
        "summary": "A vector for every image, to search among",
        "value": {"stage": "embed", "dataset_id": SAMPLE_ID, "model_id": SAMPLE_ID},
    },
    "distill": {
        "summary": "A smaller student",
        "value": {"stage": "distill", "dataset_id": SAMPLE_ID, "model_id": SAMPLE_ID},
    },
}


class JobFilter(StrictBody):
    """Which jobs to list."""

    state: State | None = None
    stage: Literal["pretrain", "finetune", "distill", "embed", "evaluate"] | None = None
    dataset_id: UUID | None = None
    pipeline_id: UUID | None = None
    cursor: str | None = Field(default=None, description="The next_cursor of the page before.")
    limit: int = Field(default=50, ge=1, le=1000, description="Most items on a page.")


class JobErrorOut(BaseModel):
    """Why a job failed or crashed."""

    code: str
    detail: str


class TimeLeftOut(BaseModel):
    """How long a job will still train."""

    seconds: float
    estimated_from: str = Field(
        description="How it was estimated: `recent pace` (the steps that are left, at the mean of "
        "the last 50) or `budget` (what is left of `budget_minutes`). What comes after training, "
        "measuring and storing, is not in it."
    )


class RetryIn(StrictBody):
    """Where a retried job starts."""

    from_: Literal["checkpoint", "beginning"] = Field(
        default="checkpoint",
        alias="from",
        description="`checkpoint`: where the job came to, if a checkpoint was kept. `beginning`: "
        "as if it had never run.",
    )


class JobOut(BaseModel):
    """A job."""

    id: UUID
    stage: Literal["pretrain", "finetune", "distill", "embed", "evaluate"]
    state: State
    dataset_id: UUID | None
    snapshot_id: UUID | None
    pipeline_id: UUID | None
    needs: UUID | None = Field(description="The job that must succeed first.")
    model_id: UUID | None = Field(description="What the job made.")
    attempt: int
    max_attempts: int
    priority: int
    device: Literal["cpu", "gpu"] = Field(description="Whose workers may take it.")
    not_before: datetime | None = Field(
        default=None,
        description="Of a queued job that was interrupted: until then it pauses.",
    )
    queue_position: int | None = Field(
        default=None,
        description="Of a queued job: its place among those for the same device, 1 comes next.",
    )
    spec: dict[str, Any] = Field(description="What was asked.")
    plan: dict[str, Any] = Field(
        description="What it was resolved to. `epochs` and `steps` are null where "
        "`budget_minutes` decides; `method` and `layer` of a finetune job may stay `auto`, then "
        "the images held back decide between `candidates` while it runs; options that the job "
        "does not use are not listed."
    )
    progress: dict[str, Any] | None = Field(
        description="`phase`; `step` of `steps`, `epoch` of `epochs` (with `budget_minutes`, "
        "`steps` and `epochs` are estimates that change, or null at first); `loss`, "
        "`learning_rate`, `images_per_second`, `seconds_left`; `data_wait`, the share of the time "
        "that training waits for images; `message`, in words, when something needs attention. Of a "
        "pretrain job also `chance_loss` and, from the last look at the encoder, `knn_accuracy` "
        "with `knn_chance` where there are labels, `rankme`, `alignment`, `uniformity`."
    )
    time_left: TimeLeftOut | None = Field(
        default=None, description="Of a running job, once it can be told."
    )
    result: dict[str, Any] | None = Field(
        default=None, description="What an embed or evaluate job found out, once it has succeeded."
    )
    error: JobErrorOut | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str] = Field(
        default_factory=dict,
        description="Paths: `self`, `events`, `logs`, `metrics`, and `model`, `snapshot`, "
        "`dataset`, `needs` where there are such.",
    )


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
