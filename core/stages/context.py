"""What a stage may touch: its job, images as canvases, parents, and where it reports to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings
from core.datasets.cache import open_cache
from core.datasets.snapshot import SnapshotItem, load_items
from core.db.models import Model
from core.errors import JobCancelled, ModelNotFound
from core.jobs.leases import Claim
from core.jobs.outages import DATABASE_AWAY
from core.jobs.service import record_progress
from core.learning.architecture import Architecture
from core.learning.checkpoint import load_weights
from core.learning.data import channel_statistics
from core.learning.encoders import IMAGENET_STATISTICS
from core.learning.heads import ProjectionSpec
from core.learning.preprocessing import Preprocessing
from core.learning.progress import Progress
from core.learning.run import Run
from core.registry.artifact import WEIGHTS
from core.registry.service import source_of
from core.stages.facts import JobFacts
from core.stages.parent import ParentModel
from core.stages.phases import PhaseSpans
from core.storage.store import BlobStore
from core.telemetry import logger

log = logger(__name__)
PROJECTION = "projection.safetensors"
# Of a look at the encoder: shown with the progress until the next one.
PROBED = ("knn_accuracy", "knn_chance", "rankme", "alignment", "uniformity")
Pixels = NDArray[np.uint8]


class StageContext:
    """One attempt at one job."""

    def __init__(
        self,
        job: JobFacts,
        held: Claim,
        *,
        sessions: sessionmaker[Session],
        store: BlobStore,
        settings: Settings,
        should_stop: Callable[[], bool],
    ) -> None:
        self.job = job
        self.held = held
        self.sessions = sessions
        self.store = store
        self.settings = settings
        self.should_stop = should_stop
        self.device = resolve_device(settings)
        self.phases = PhaseSpans()
        self._reported = 0.0
        self._probed: dict[str, float] = {}
        self._unwritten: list[tuple[str, int, float]] = []
        self._told: dict[str, Any] = {}

    @property
    def work_dir(self) -> Path:
        """A folder of this job alone, which a later attempt on this machine finds again."""
        return self.settings.data_dir / "work" / str(self.job.id)

    @property
    def checkpoint_dir(self) -> Path:
        """Where training keeps its checkpoints, of this run of the job and of this version.

        What another version left behind may not fit; what came before a retry from the beginning
        is not wanted. Neither is resumed.
        """
        version = installed_version("fewlabels")
        return self.work_dir / f"checkpoint-{version}-{self.job.beginning}"

    def run(self) -> Run:
        """Device, callbacks and checkpoints for the learning library."""
        return Run(
            device=self.device,
            on_step=self.report,
            should_stop=self.should_stop,
            checkpoint_dir=self.checkpoint_dir,
            checkpoint_seconds=self.settings.checkpoint_seconds,
            may_save=lambda: not self._unwritten,
        )

    def report(self, progress: Progress) -> None:
        """Write progress and metrics, as often as the settings say and at the last step.

        Raises:
            LeaseLost: Another worker holds the job now.
        """
        self.phases.enter(progress.phase)
        values = {"loss": progress.loss, **progress.metrics}
        metrics = [(name, progress.step, float(value)) for name, value in values.items()]
        if progress.probed:
            self._probed = {name: values[name] for name in PROBED if name in values}
        if self._due(last=progress.step >= progress.steps):
            self._record({**_as_json(progress), **self._probed}, metrics)
        elif progress.probed:  # measured too rarely to be left out
            self._unwritten.extend(metrics)

    def tell(self, phase: str, done: int, total: int, **values: float) -> None:
        """Write how far something is that has no loss, as often, when it begins and at its end.

        Raises:
            JobCancelled: The job is to stop.
            LeaseLost: Another worker holds the job now.
        """
        self.phases.enter(phase)
        if self.should_stop():
            raise JobCancelled(f"stopped while {phase}")
        begins = phase != self._told.get("phase")
        if self._due(last=begins or done >= total):
            self._record({"phase": phase, "step": done, "steps": total, **values}, [])

    def write_rest(self, session: Session) -> None:
        """Write what could not be written before, in the transaction that ends the job.

        Raises:
            LeaseLost: Another worker holds the job now.
        """
        if self._unwritten:
            self._write(session)

    def canvases(self, items: Sequence[SnapshotItem], preprocessing: Preprocessing) -> Pixels:
        """The images as (N, S, S, C) uint8, decoded once for all jobs on this machine."""
        side = preprocessing.image_size
        return open_cache(
            self.settings.data_dir / "cache",
            self.store,
            [item.sha256 for item in items],
            canvas=preprocessing.canvas,
            shape=(side, side, preprocessing.channels),
            on_image=self._preparing,
        )

    def new_preprocessing(self, items: Sequence[SnapshotItem]) -> tuple[Preprocessing, Pixels]:
        """Preprocessing for a new encoder, and the canvases of these images.

        The channel statistics are those of the images, or, if the encoder begins with weights
        trained on ImageNet, those that go with the weights. Images of the test split have no say.
        """
        size, channels = self.job.plan["image_size"], self.job.plan["channels"]
        neutral = Preprocessing(
            image_size=size, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels
        )
        images_NHWC = self.canvases(items, neutral)
        if self.job.plan.get("init") == "imagenet":
            mean, std = (_as_channels(values, channels) for values in IMAGENET_STATISTICS)
        else:
            seen = [row for row, item in enumerate(items) if item.split != "test"]
            whole = len(seen) == len(items)  # then it stays a memory map
            mean, std = channel_statistics(images_NHWC if whole else images_NHWC[seen])
        final = Preprocessing(image_size=size, channels=channels, mean=mean, std=std)
        return final, images_NHWC

    def items(self) -> list[SnapshotItem]:
        """The snapshot's list."""
        return load_items(self.store, self.job.snapshot_digest)

    def parent(self) -> ParentModel | None:
        """The model that the job names, or that the job it needs has made.

        Raises:
            ModelNotFound: It was deleted meanwhile.
        """
        if self.job.model_id is not None:
            return self.load_model(self.job.model_id)
        if self.job.needs_id is not None:
            return self._load(Model.job_id == self.job.needs_id)
        return None

    def load_model(self, model_id: UUID) -> ParentModel:
        """A model of the job's project.

        Raises:
            ModelNotFound: There is none of this id; it may have been deleted meanwhile.
        """
        return self._load(Model.id == model_id)

    def processes(self, batch_size: int) -> int:
        """Processes to share such batches: as the settings say, but an even share for each.

        A share has at least two images: what is measured of one batch needs two.
        """
        wanted = self.settings.training_processes
        if wanted == "auto":
            wanted = torch.cuda.device_count() if self.device == "cuda" else 1
        most = max(1, min(wanted, batch_size // 2))
        return max(n for n in range(1, most + 1) if batch_size % n == 0)

    def _load(self, wanted: ColumnElement[bool]) -> ParentModel:
        with self.sessions.begin() as session:
            model = session.scalars(
                select(Model).where(wanted, Model.project_id == self.job.project_id)
            ).one_or_none()
            if model is None:
                raise ModelNotFound("model_id: the model that this job starts from was deleted")
            source = source_of(model, self.store, self.settings.data_dir / "models")
        architecture = Architecture.from_dict(model.manifest["architecture"])
        module = architecture.build()
        load_weights(module, source.fetch(WEIGHTS))
        projection, spec = None, model.manifest.get("projection")
        if spec:
            projection = ProjectionSpec.from_dict(spec).build().eval()
            load_weights(projection, source.fetch(PROJECTION))
        return ParentModel(
            model_id=model.id,
            manifest_sha256=model.manifest_sha256,
            architecture=architecture,
            module=module.eval(),
            preprocessing=Preprocessing.from_dict(model.manifest["preprocessing"]),
            classes=list(model.manifest.get("classes") or []),
            projection=projection,
            metrics=model.manifest.get("metrics") or {},
        )

    def _preparing(self, done: int, total: int) -> None:
        self.phases.enter("preparing images")
        if self.should_stop():
            raise JobCancelled("stopped while images were being prepared")
        if self._due(last=False):
            self._record({"phase": "preparing images", "step": done, "steps": total}, [])

    def _due(self, *, last: bool) -> bool:
        now = time.monotonic()
        if not last and now - self._reported < self.settings.progress_seconds:
            return False
        self._reported = now
        return True

    def _record(self, progress: dict[str, Any], metrics: list[tuple[str, int, float]]) -> None:
        self._unwritten.extend(metrics)
        self._told = progress
        try:
            with self.sessions.begin() as session:
                self._write(session)
        except DATABASE_AWAY as error:
            # Training goes on: the next report takes these values along, and the worker stops
            # this process when its lease cannot be renewed either.
            log.warning("progress was not written", error=str(error))
            return
        self._unwritten = []

    def _write(self, session: Session) -> None:
        record_progress(
            session, self.job.id, self.held.token, progress=self._told, metrics=self._unwritten
        )


def _as_json(progress: Progress) -> dict[str, Any]:
    """What a caller who polls the job sees of its progress."""
    values: dict[str, Any] = {
        "phase": progress.phase,
        "step": progress.step,
        "steps": progress.steps,
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "loss": round(progress.loss, 6),
        "images_per_second": round(progress.images_per_second, 1),
        "seconds_left": round(progress.seconds_left, 1),
        "data_wait": round(progress.data_wait, 3),
    }
    for name in ("learning_rate", "chance_loss"):
        if name in progress.metrics:
            values[name] = progress.metrics[name]
    if progress.message:
        values["message"] = progress.message
    return values


def _as_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """A statistic of three colours for an input of so many channels."""
    return tuple(values) if channels == len(values) else (sum(values) / len(values),) * channels


def resolve_device(settings: Settings) -> str:
    """The device as torch names it; the CPU when the wanted one is not there."""
    if settings.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return "cuda"
