"""The contrastive loss of a batch, and how its views are made."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.learning.augmentations import augment
from core.learning.determinism import generator as seeded_generator
from core.learning.distributed import gather_keys, world
from core.learning.encoders import Encoder
from core.learning.gradient_cache import cached_step
from core.learning.heads import ProjectionHead
from core.learning.losses import chance_loss, contrastive_loss, view_groups
from core.learning.preprocessing import Preprocessing
from core.learning.simclr.config import SimCLRConfig
from core.learning.tasks import StepResult

ViewsOf = Callable[[int], Tensor]


class SimCLRTask:
    """All views of a batch go through the encoder at once: separate batches would let the
    statistics of batch normalisation tell the views apart.

    Args:
        encoder: Trained in place.
        projection: Trained in place.
        config: See `SimCLRConfig`.
        preprocessing: The encoder's.
        targets_N: Classes that attract, −1 where there is no label; None = every image is its own;
            on the device.
    """

    def __init__(
        self,
        encoder: Encoder,
        projection: ProjectionHead,
        config: SimCLRConfig,
        preprocessing: Preprocessing,
        *,
        targets_N: Tensor | None = None,
    ) -> None:
        self.encoder = encoder
        self.projection = projection
        self.module = nn.Sequential(encoder, projection)
        self.config = config
        self.preprocessing = preprocessing
        self.targets_N = targets_N
        self.projections = torch.empty(0)

    @property
    def chance(self) -> float | None:
        """The loss without learning; with labels only L_out's does not depend on the batch."""
        config = self.config
        if self.targets_N is not None and config.loss != "supcon":
            return None
        return chance_loss(views=config.views, batch_size=config.batch_size, loss=config.loss)

    def prepare(
        self,
        images_BHWC: Tensor,
        rows_B: Tensor,  # noqa: ARG002 — part of the task's interface
        generator: torch.Generator,
    ) -> ViewsOf:
        """The views of each chunk of a batch: ready if there is one, else made when they are
        asked for, the same ones each time."""
        chunks = self._chunks(len(images_BHWC))
        if chunks == 1:
            views_VBCHW = self._views(images_BHWC, generator)
            return lambda _: views_VBCHW
        parts = images_BHWC.tensor_split(chunks)
        drawn = torch.randint(2**62, (chunks,), generator=generator, device=generator.device)
        seeds, device = drawn.tolist(), str(generator.device)
        return lambda chunk: self._views(parts[chunk], seeded_generator(seeds[chunk], device))

    def step(self, views_of: ViewsOf, rows_B: Tensor) -> StepResult:
        """Contrastive loss; `chance_loss` is what it would be without learning."""
        chunks = self._chunks(len(rows_B))

        def encode(chunk: int) -> Tensor:
            views_VBCHW = views_of(chunk)
            z_ND: Tensor = self.module(views_VBCHW.flatten(0, 1))
            return z_ND.view(*views_VBCHW.shape[:2], -1)

        def loss_of(z_VBD: Tensor) -> Tensor:
            return self._loss(z_VBD, rows_B)

        metrics = {} if self.chance is None else {"chance_loss": torch.tensor(self.chance)}
        if chunks == 1:
            return StepResult(loss_of(encode(0)), metrics)
        loss, backward = cached_step(encode, chunks, loss_of=loss_of, module=self.module)
        return StepResult(loss, metrics, backward)

    def _chunks(self, batch: int) -> int:
        return -(-batch // (self.config.micro_batch_size or batch))

    @torch.no_grad()
    def _views(self, images_BHWC: Tensor, generator: torch.Generator) -> Tensor:
        config = self.config
        return augment(
            images_BHWC,
            config=config.augmentation,
            views=config.views,
            generator=generator,
            preprocessing=self.preprocessing,
        )

    def _loss(self, z_VBD: Tensor, rows_B: Tensor) -> Tensor:
        self.projections = z_VBD.detach()
        views, batch, _ = z_VBD.shape
        targets_B = None if self.targets_N is None else self.targets_N[rows_B]
        groups_N = view_groups(batch, views, targets_B=targets_B, first=world().rank * batch)
        z_ND, groups_N = z_VBD.flatten(0, 1), groups_N.to(z_VBD.device)
        return contrastive_loss(
            z_ND,
            groups_N,
            loss=self.config.loss,
            temperature=self.config.temperature,
            keys=gather_keys(z_ND, groups_N),
        )
