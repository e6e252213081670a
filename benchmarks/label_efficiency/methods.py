"""The methods that are compared, each from a draw of labels to an accuracy on the test set."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.datasets import Dataset, draw_labels
from benchmarks.label_efficiency.recipes import Recipe
from core.learning.architecture import Architecture
from core.learning.classifier import Classifier
from core.learning.determinism import seed_everything
from core.learning.distillation import DistillConfig, distill
from core.learning.encoders import Encoder, create_encoder
from core.learning.evaluation import accuracy, features, knn_accuracy, predict_logits
from core.learning.finetuning import FinetuneConfig, finetune
from core.learning.run import Run
from core.learning.simclr import Pretrained

# Fewer labels than this a class are asked with one neighbour: more would be of other classes.
NEIGHBOURS = {10: 1, 60: 5, 100: 5}
REFERENCES = 10_000


@dataclass
class Draw:
    """One draw of labels on a dataset, with what the methods share."""

    dataset: Dataset
    recipe: Recipe
    pretrained: Pretrained | None
    digest: str | None  # of the encoder
    per_class: int
    seed: int
    rows: NDArray[np.int64] = field(init=False)
    teacher: Classifier | None = None

    def __post_init__(self) -> None:
        self.rows = draw_labels(self.dataset.pool_targets, self.per_class, seed=self.seed)

    def measure(self, method: str) -> dict[str, Any]:
        """Accuracy on the test set, and the seconds it took to get there."""
        started = time.perf_counter()
        value = METHODS[method](self)
        return {"accuracy": value, "seconds": round(time.perf_counter() - started, 1)}

    def settings(self, method: str) -> dict[str, Any]:
        """All that the figure follows from."""
        used: dict[str, dict[str, Any]] = {
            "pixels_knn": {"neighbours": NEIGHBOURS},
            "scratch": {
                "scratch": self.recipe.scratch(self.per_class).to_dict(),
                "network": self.recipe.pretrain.encoder,
            },
            "encoder_knn": {"neighbours": NEIGHBOURS, "encoder": self.digest},
            "finetune": self._finetune_settings(),
            "supcon": {
                "supcon": self.recipe.supcon(self.per_class).to_dict(),
                "encoder": self.digest,
            },
            "distill": self._distill_settings("same"),
            "distill_small": self._distill_settings(self.recipe.small),
        }
        return {"draw": self.seed, "per_class": self.per_class, **used[method]}

    def _finetune_settings(self) -> dict[str, Any]:
        config = self.recipe.finetune(self.per_class)
        return {"finetune": config.to_dict(), "encoder": self.digest}

    def _distill_settings(self, student: str) -> dict[str, Any]:
        return {
            "student": student,
            "distill": self.recipe.distill.to_dict(),
            "stride": self.recipe.distill_stride,
            **self._finetune_settings(),
        }

    @property
    def model(self) -> Pretrained:
        """The shared pre-training."""
        assert self.pretrained is not None, "only the settings are asked of a draw without it"
        return self.pretrained

    @property
    def labelled(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The images whose labels may be used, and those labels."""
        return self.dataset.pool[self.rows], self.dataset.pool_targets[self.rows]

    def train(self, encoder: Encoder, config: FinetuneConfig, *, pretrained: bool) -> Classifier:
        """A classifier from the drawn labels."""
        images, targets = self.labelled
        return finetune(
            images,
            targets,
            encoder,
            config,
            self.dataset.preprocessing,
            class_count=self.dataset.classes,
            run=Run(),
            projection=self.model.projection if pretrained else None,
        ).classifier

    def finetuned(self) -> Classifier:
        """The finetuned classifier, made once a draw: it is also the teacher."""
        if self.teacher is None:
            config = self.recipe.finetune(self.per_class)
            self.teacher = self.train(self.model.encoder, config, pretrained=True)
        return self.teacher

    def distilled(self, student: str) -> Classifier:
        """A student with random weights, taught on the whole pool without labels."""
        teacher = self.finetuned()
        config: DistillConfig = self.recipe.distill
        seed_everything(self.seed)
        architecture = Architecture(
            encoder=self.recipe.pretrain.encoder if student == "same" else student,
            image_size=self.dataset.preprocessing.image_size,
            channels=self.dataset.preprocessing.channels,
            class_count=self.dataset.classes,
        )
        learner = cast(Classifier, architecture.build())
        pool = self.dataset.pool[:: self.recipe.distill_stride]
        return distill(pool, teacher, learner, config, self.dataset.preprocessing, run=Run())

    def test_accuracy(self, model: Classifier) -> float:
        """On images that no stage has seen."""
        logits = predict_logits(model, self.dataset.test, self.dataset.preprocessing)
        return accuracy(logits, torch.from_numpy(self.dataset.test_targets))

    def knn(self, pool: torch.Tensor, test: torch.Tensor) -> float:
        """Accuracy of a vote of the labelled rows nearest in these features."""
        targets = torch.from_numpy(self.dataset.pool_targets[self.rows])
        return knn_accuracy(
            pool,
            targets,
            test,
            torch.from_numpy(self.dataset.test_targets),
            neighbours=NEIGHBOURS[self.per_class],
        )


def pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    """Grey values as features."""
    return torch.from_numpy(images.reshape(len(images), -1) / np.float32(255))


def reference_knn(dataset: Dataset, encoder: Encoder) -> dict[str, float]:
    """Accuracy of 20 neighbours among 10,000 labelled images: encoder against raw pixels."""
    pool, preprocessing = dataset.pool[:REFERENCES], dataset.preprocessing
    pairs = {
        "encoder": (
            features(encoder, pool, preprocessing),
            features(encoder, dataset.test, preprocessing),
        ),
        "pixels": (pixels(pool), pixels(dataset.test)),
    }
    targets = torch.from_numpy(dataset.pool_targets[:REFERENCES])
    test_targets = torch.from_numpy(dataset.test_targets)
    return {
        name: knn_accuracy(reference, targets, query, test_targets)
        for name, (reference, query) in pairs.items()
    }


def _pixels_knn(draw: Draw) -> float:
    return draw.knn(pixels(draw.labelled[0]), pixels(draw.dataset.test))


def _encoder_knn(draw: Draw) -> float:
    encoder, preprocessing = draw.model.encoder, draw.dataset.preprocessing
    return draw.knn(
        features(encoder, draw.labelled[0], preprocessing),
        features(encoder, draw.dataset.test, preprocessing),
    )


def _scratch(draw: Draw) -> float:
    recipe, preprocessing = draw.recipe, draw.dataset.preprocessing
    seed_everything(draw.seed)
    encoder = create_encoder(
        recipe.pretrain.encoder,
        image_size=preprocessing.image_size,
        channels=preprocessing.channels,
    )
    config = recipe.scratch(draw.per_class)
    return draw.test_accuracy(draw.train(encoder, config, pretrained=False))


def _supcon(draw: Draw) -> float:
    config = draw.recipe.supcon(draw.per_class)
    return draw.test_accuracy(draw.train(draw.model.encoder, config, pretrained=True))


METHODS: dict[str, Callable[[Draw], float]] = {
    "pixels_knn": _pixels_knn,
    "encoder_knn": _encoder_knn,
    "scratch": _scratch,
    "finetune": lambda draw: draw.test_accuracy(draw.finetuned()),
    "supcon": _supcon,
    "distill": lambda draw: draw.test_accuracy(draw.distilled("same")),
    "distill_small": lambda draw: draw.test_accuracy(draw.distilled(draw.recipe.small)),
}
