"""The one pre-training of a dataset, kept beside the cells that follow from it."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

from benchmarks.cells import plain
from benchmarks.datasets import Dataset
from core.learning.checkpoint import load_weights, save_weights
from core.learning.encoders import create_encoder
from core.learning.heads import ProjectionSpec
from core.learning.progress import Progress
from core.learning.run import Run
from core.learning.simclr import Pretrained, SimCLRConfig, pretrain

ENCODER, PROJECTION, REPORT = "encoder.safetensors", "projection.safetensors", "encoder.json"


class Kept:
    """The pre-trained model in a folder of results.

    A time budget gives another encoder on another machine, so the weights are kept with the
    results: cells that are computed elsewhere, or later, belong to the same encoder.

    Args:
        folder: Of a dataset's results.
        config: What it has to be trained with.
    """

    def __init__(self, folder: Path, config: SimCLRConfig) -> None:
        self.folder = folder
        self.config = config

    def digest(self) -> str | None:
        """A hash of the weights, None where they are missing or of other settings."""
        if not all((self.folder / name).exists() for name in (ENCODER, PROJECTION, REPORT)):
            return None
        report = json.loads((self.folder / REPORT).read_text(encoding="utf-8"))
        if report["settings"] != plain(self.config.to_dict()):
            return None
        weights = (self.folder / ENCODER).read_bytes() + (self.folder / PROJECTION).read_bytes()
        return hashlib.sha256(weights).hexdigest()[:16]

    def load(self, dataset: Dataset) -> Pretrained:
        """The model; trained first where it is missing."""
        if self.digest() is None:
            self._train(dataset)
        config = self.config
        report = json.loads((self.folder / REPORT).read_text(encoding="utf-8"))
        encoder = create_encoder(
            config.encoder, image_size=config.image_size, channels=config.channels
        )
        load_weights(encoder, self.folder / ENCODER)
        spec = ProjectionSpec.from_dict(report["projection"])
        projection = spec.build()
        load_weights(projection, self.folder / PROJECTION)
        return Pretrained(
            encoder=encoder.eval(), projection=projection.eval(), spec=spec, report=report["report"]
        )

    def _train(self, dataset: Dataset) -> None:
        facts = json.dumps(plain(self.config.to_dict()), sort_keys=True).encode()
        unfinished = self.folder / "unfinished" / hashlib.sha256(facts).hexdigest()[:16]
        run = Run(on_step=_Told(), checkpoint_dir=unfinished)
        model = pretrain(dataset.pool, self.config, dataset.preprocessing, run=run)
        # The report says whose the weights are, so it goes first and comes last.
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / REPORT).unlink(missing_ok=True)
        save_weights(model.encoder, self.folder / ENCODER)
        save_weights(model.projection, self.folder / PROJECTION)
        report = {
            "settings": self.config.to_dict(),
            "projection": model.spec.to_dict(),
            "report": model.report,
        }
        text = json.dumps(report, indent=1, sort_keys=True) + "\n"
        (self.folder / REPORT).write_text(text, encoding="utf-8")
        shutil.rmtree(unfinished)


class _Told:
    """A line a minute."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self.last >= 60:
            self.last = time.monotonic()
            print(
                f"  pretrain: step {progress.step:,} of {progress.steps:,}, loss "
                f"{progress.loss:.3f}, {progress.seconds_left / 60:.0f} minutes left",
                flush=True,
            )
