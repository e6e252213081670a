"""Pre-training from canvases to an encoder."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learning.batches import Batches, Shuffled, WithLabels
from core.learning.determinism import seed_everything
from core.learning.distributed import world
from core.learning.encoders import Encoder, create_encoder
from core.learning.heads import ProjectionHead, ProjectionSpec
from core.learning.monitor import ContrastiveMonitor, Subject
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.simclr.config import SimCLRConfig
from core.learning.simclr.task import SimCLRTask
from core.learning.trainer import TrainerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained:
    """An encoder and the projection head that it was trained with, on the CPU, in eval mode.

    Attributes:
        encoder: Gives the features.
        projection: Its first layers may serve a classifier (SimCLRv2).
        spec: To rebuild the projection head.
        report: Steps, seconds, and what was seen of the features; plain JSON types.
    """

    encoder: Encoder
    projection: ProjectionHead
    spec: ProjectionSpec
    report: dict[str, Any]


def pretrain(
    images_NHWC: NDArray[np.uint8],
    config: SimCLRConfig,
    preprocessing: Preprocessing,
    *,
    run: Run,
    targets_N: NDArray[np.int64] | None = None,
    probe_targets_N: NDArray[np.int64] | None = None,
    encoder: Encoder | None = None,
) -> Pretrained:
    """Train an encoder, and a projection head on top of it, on canvases.

    Args:
        images_NHWC: uint8 canvases, in memory or mapped; at least one batch.
        config: See `SimCLRConfig`.
        preprocessing: What the canvases were made with.
        run: Device, callbacks, checkpoints.
        targets_N: Classes, −1 where there is no label. They serve in the loss if
            `config.use_labels` says so, else to look at the features while they are trained.
        probe_targets_N: Classes to look at the features by in their place: labels that attract
            are learnt by heart and say nothing of the features.
        encoder: Go on from a copy of this one, in place of `config.init`.

    Raises:
        ValueError: The configuration contradicts itself or the data.
        Stopped: The run was asked to stop.
        Diverged: The loss became infinite or not a number.
    """
    _require_consistent(config, preprocessing, labelled=targets_N is not None)
    targets = _as_tensor(targets_N, len(images_NHWC))
    shown = _as_tensor(probe_targets_N, len(images_NHWC))
    if shown is None and not config.use_labels:
        shown = targets
    seed_everything(config.seed)
    learner = copy.deepcopy(encoder) if encoder is not None else _new_encoder(config)
    spec = _projection_of(learner, config)
    task = SimCLRTask(learner, spec.build(), config, preprocessing)
    if targets is not None and config.use_labels:
        task.targets_N = targets.to(run.device)
    fingerprint = _fingerprint(config, images=len(images_NHWC), targets_N=targets, start=encoder)
    monitor = _monitor(task, images_NHWC, shown, run.device)
    finished = run.trainer(TrainerConfig.of(config), fingerprint=fingerprint).fit(
        task, images_NHWC, batches=_batches(len(images_NHWC), config, targets), monitor=monitor
    )
    report = {**asdict(finished), **monitor.report()}
    task.module.cpu().eval()
    return Pretrained(encoder=learner, projection=task.projection, spec=spec, report=report)


def _require_consistent(
    config: SimCLRConfig, preprocessing: Preprocessing, *, labelled: bool
) -> None:
    found = (preprocessing.image_size, preprocessing.channels)
    if found != (config.image_size, config.channels):
        raise ValueError(
            f"image_size and channels: found {(config.image_size, config.channels)}, "
            f"the preprocessing has {found}"
        )
    if config.use_labels and not labelled:
        raise ValueError("use_labels: there are no labels")


def _as_tensor(targets_N: NDArray[np.int64] | None, images: int) -> Tensor | None:
    if targets_N is None:
        return None
    if len(targets_N) != images:
        raise ValueError(
            f"targets: found {len(targets_N)}, one for each of {images} images is needed"
        )
    return torch.from_numpy(np.asarray(targets_N, dtype=np.int64))


def _new_encoder(config: SimCLRConfig) -> Encoder:
    return create_encoder(
        config.encoder,
        image_size=config.image_size,
        channels=config.channels,
        stem=config.stem,
        init=config.init,
    )


def _fingerprint(
    config: SimCLRConfig, *, images: int, targets_N: Tensor | None, start: Encoder | None
) -> dict[str, Any]:
    """What tells one run from another."""
    return {
        "simclr": config.to_dict(),
        "images": images,
        "labels": None if targets_N is None else _digest(targets_N),
        "start": None if start is None else _digest(*start.state_dict().values()),
    }


def _projection_of(encoder: Encoder, config: SimCLRConfig) -> ProjectionSpec:
    return ProjectionSpec(
        feature_dim=encoder.feature_dim,
        hidden_dim=config.hidden_dim or encoder.feature_dim,
        projection_dim=config.projection_dim,
        layers=config.projection_layers,
    )


def _monitor(
    task: SimCLRTask, images_NHWC: NDArray[np.uint8], targets_N: Tensor | None, device: str
) -> ContrastiveMonitor:
    config = task.config
    subject = Subject(
        encoder=task.encoder,
        projections=lambda: task.projections,
        images_NHWC=images_NHWC,
        targets_N=targets_N,
        preprocessing=task.preprocessing,
        device=device,
    )
    return ContrastiveMonitor(
        subject,
        views_a_step=config.views * config.batch_size // world().size,
        chance_loss=task.chance,
        every=config.probe_every,
        patience=config.plateau_patience,
    )


def _batches(images: int, config: SimCLRConfig, targets_N: Tensor | None) -> Batches:
    shuffled = Shuffled(images, batch_size=config.batch_size, seed=config.seed)
    if targets_N is None or not config.use_labels:
        return shuffled
    labelled_rows_L = (targets_N >= 0).nonzero().flatten()
    return WithLabels(shuffled, labelled_rows_L, share=config.label_share, seed=config.seed)


def _digest(*tensors: Tensor) -> str:
    """A hash of the values."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
