"""Is pre-training learning anything? Probes every now and then, and says so in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learning.encoders import Encoder
from core.learning.evaluation import features
from core.learning.preprocessing import Preprocessing
from core.learning.representation import alignment, leave_one_out_accuracy, rankme, uniformity
from core.learning.trainer import Diverged

PROBES = 20
SHARE_OF_TIME = 0.03
RANK_IMAGES = 1024
LABELLED_IMAGES = 2000
FEWEST_IMAGES = 512
PROJECTIONS = 512
NEIGHBOURS = 20
COLLAPSED_RANK = 1.5
AT_CHANCE = 0.99
PROBES_AT_CHANCE = 3
LOSS_MARGIN = 0.005
READ_ROWS = 256


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at.

    Attributes:
        encoder: The one in training.
        projections: Those of the last batch, (V, B, D).
        images_NHWC: Canvases that it is trained on.
        targets_N: Their classes, −1 where there is no label; None when there are none.
        preprocessing: The encoder's.
        device: Where the encoder is.
    """

    encoder: Encoder
    projections: Callable[[], Tensor]
    images_NHWC: NDArray[np.uint8]
    targets_N: Tensor | None
    preprocessing: Preprocessing
    device: str


@dataclass(slots=True)
class _Record:
    """What was seen so far; goes into checkpoints."""

    interval: int | None = None
    rank_images: int = 0
    labelled_images: int = 0
    probes: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    probes_at_chance: int = 0
    probes_without_gain: int = 0
    best_score: float | None = None
    best_step: int = 0
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    message: str | None = None
    finished: bool = False


class ContrastiveMonitor:
    """Measures the features of fixed images, and the projections of the last batch.

    Each probe measures RankMe on up to 1,024 images, the leave-one-out accuracy of nearest
    neighbours on up to 2,000 labelled ones if two classes have labels, alignment and uniformity.
    There are about 20 probes a run. Where they would take more than 3 % of the time (a forward
    pass counted as a third of a training step) they use fewer images, but at least 512, and then
    come less often. All of it follows from the number of steps, not from a clock, and uses no
    random numbers: probes change nothing in the training, and a resumed run makes the same ones.

    With `patience`, training is over when so many probes in a row have brought no gain: in the
    accuracy of the neighbours; without labels in the mean loss since the probe before, by 0.5 %.
    RankMe is no criterion: it also falls while features become more useful.

    Args:
        subject: What to look at.
        views_a_step: Images times views that this process trains on in a step.
        chance_loss: The loss without learning; None when it is not known.
        every: Steps between probes; None = as said above.
        patience: Probes without gain that end training; None = never.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        views_a_step: int,
        chance_loss: float | None,
        every: int | None = None,
        patience: int | None = None,
    ) -> None:
        self.subject = subject
        self.views_a_step = views_a_step
        self.chance_loss = chance_loss
        self.every = every
        self.patience = patience
        self._record = _Record()
        self._labelled = _labelled_rows(subject.targets_N)

    @property
    def message(self) -> str | None:
        """What is wrong, and what to try; None while all seems well."""
        return self._record.message

    @property
    def finished(self) -> bool:
        """Whether as many probes as `patience` have brought no gain."""
        return self._record.finished

    def due(self, step: int, steps: int | None) -> bool:
        """Whether to look after this step; not before the length of the run is known."""
        if steps is None:
            return False
        if self._record.interval is None:
            self._plan(steps)
        assert self._record.interval is not None
        return step % self._record.interval == 0 or step == steps

    def note(self, loss: float) -> None:
        """Take the loss of a step into the mean."""
        self._record.loss_sum += loss
        self._record.loss_count += 1

    def look(self, step: int) -> dict[str, float]:
        """Measure; values by name."""
        record = self._record
        values = self._measure()
        loss = record.loss_sum / max(1, record.loss_count)
        record.loss_sum, record.loss_count = 0.0, 0
        record.probes += 1
        record.last = {**values, "mean_loss": loss}
        self._judge_progress(step, values.get("knn_accuracy"), loss)
        record.message = self._verdict(values["rankme"], loss)
        return values

    def state(self) -> dict[str, Any]:
        """What was seen so far."""
        return asdict(self._record)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._record = _Record(**state)

    def report(self) -> dict[str, Any]:
        """Values of the last probe and of the best one, with what they are measured against."""
        record, targets_L = self._record, self._targets()
        return {
            "probes": record.probes,
            "final": record.last,
            "best": record.best,
            "best_step": record.best_step,
            "rankme_of": self._largest_rank(),
            "chance_loss": self.chance_loss,
            "knn_chance": None if targets_L is None else _chance(targets_L),
            "knn_images": 0 if targets_L is None else len(targets_L),
            "message": record.message,
        }

    def _plan(self, steps: int) -> None:
        """Fix how often to look, and at how many images."""
        record = self._record
        images = len(self.subject.images_NHWC)
        wanted = min(RANK_IMAGES, images), min(LABELLED_IMAGES, len(self._labelled))
        a_step = SHARE_OF_TIME * 3 * self.views_a_step  # images that may be looked at
        record.interval = self.every or max(
            math.ceil(steps / PROBES), math.ceil(min(sum(wanted), FEWEST_IMAGES) / a_step)
        )
        allowed = max(record.interval * a_step, FEWEST_IMAGES)
        shrunk = min(1.0, allowed / sum(wanted))
        record.rank_images = min(wanted[0], max(2, int(wanted[0] * shrunk)))
        record.labelled_images = int(wanted[1] * shrunk)

    def _measure(self) -> dict[str, float]:
        z_VBD = self.subject.projections()
        z_VBD = z_VBD[:, : max(2, PROJECTIONS // len(z_VBD))].cpu()
        rank_rows_R = _spread(torch.arange(len(self.subject.images_NHWC)), self._record.rank_images)
        labelled_rows_L = _spread(self._labelled, self._record.labelled_images)
        both = torch.cat([rank_rows_R, labelled_rows_L])
        rows_M, place = torch.unique(both, return_inverse=True)
        features_MD = self._features(rows_M)
        if not features_MD.isfinite().all():
            raise Diverged(
                "The features are no longer numbers in evaluation mode. Try a smaller "
                "learning_rate or a longer warm-up."
            )
        values = {
            "rankme": rankme(features_MD[place[: len(rank_rows_R)]]),
            "alignment": alignment(z_VBD),
            "uniformity": uniformity(z_VBD[0]),
        }
        targets_L = self._targets()
        if targets_L is not None:
            values["knn_accuracy"] = leave_one_out_accuracy(
                features_MD[place[len(rank_rows_R) :]],
                targets_L,
                neighbours=_neighbours(targets_L),
            )
            values["knn_chance"] = _chance(targets_L)
        return values

    def _features(self, rows_M: Tensor) -> Tensor:
        subject = self.subject
        return torch.cat(
            [
                features(
                    subject.encoder,
                    subject.images_NHWC[rows_B.numpy()],
                    subject.preprocessing,
                    device=subject.device,
                )
                for rows_B in torch.split(rows_M, READ_ROWS)
            ]
        )

    def _targets(self) -> Tensor | None:
        """Classes of the labelled images that are looked at; None when there is nothing to tell."""
        if self.subject.targets_N is None or self._record.labelled_images < 2:
            return None
        return self.subject.targets_N[_spread(self._labelled, self._record.labelled_images)]

    def _judge_progress(self, step: int, accuracy: float | None, loss: float) -> None:
        record = self._record
        score, margin = (-loss, LOSS_MARGIN * abs(loss)) if accuracy is None else (accuracy, 0.0)
        if record.best_score is None or score > record.best_score + margin:
            record.best_score, record.best_step, record.best = score, step, record.last
            record.probes_without_gain = 0
            return
        record.probes_without_gain += 1
        record.finished = self.patience is not None and record.probes_without_gain >= self.patience

    def _verdict(self, rank: float, loss: float) -> str | None:
        record = self._record
        at_chance = self.chance_loss is not None and loss >= AT_CHANCE * self.chance_loss
        record.probes_at_chance = record.probes_at_chance + 1 if at_chance else 0
        if rank < COLLAPSED_RANK:
            return (
                f"RankMe is {rank:.1f} of {self._largest_rank()}: all images get nearly the same "
                "features (collapse). Try a lower learning_rate, a longer warm-up or a larger "
                "batch_size; the images may also be nearly equal."
            )
        if record.probes_at_chance >= PROBES_AT_CHANCE:
            return (
                f"The loss has stayed at {loss:.2f} for {record.probes_at_chance} probes, which is "
                f"the level of chance ({self.chance_loss:.2f}): nothing is being learnt. Try "
                "another learning_rate or temperature, or an augmentation that leaves more of "
                "the image."
            )
        return None

    def _largest_rank(self) -> int:
        return min(self._record.rank_images, self.subject.encoder.feature_dim)


def _labelled_rows(targets_N: Tensor | None) -> Tensor:
    """Rows whose class has another row to be found by; none unless there are two such classes."""
    none = torch.empty(0, dtype=torch.int64)
    if targets_N is None:
        return none
    rows_L = (targets_N >= 0).nonzero().flatten()
    counts_K = torch.bincount(targets_N[rows_L])
    if int((counts_K >= 2).sum()) < 2:
        return none
    return rows_L[counts_K[targets_N[rows_L]] >= 2]


def _spread(rows: Tensor, count: int) -> Tensor:
    """So many of the rows, evenly spaced."""
    count = min(count, len(rows))
    return rows[torch.arange(count) * len(rows) // max(1, count)]


def _neighbours(targets_L: Tensor) -> int:
    """At most half of what a class has: with few labels, 20 neighbours would be other classes'."""
    return max(1, min(NEIGHBOURS, len(targets_L) // (2 * len(torch.unique(targets_L)))))


def _chance(targets_L: Tensor) -> float:
    """Accuracy of always naming the most frequent class."""
    return float(targets_L.bincount().max() / len(targets_L))
