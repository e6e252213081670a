"""The one pre-training of a dataset, kept so that a broken run need not repeat it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from benchmarks.datasets import Dataset
from core.learning.checkpoint import load_weights, save_weights
from core.learning.encoders import create_encoder
from core.learning.heads import ProjectionSpec
from core.learning.progress import Progress
from core.learning.run import Run
from core.learning.simclr import Pretrained, SimCLRConfig, pretrain

KEPT = Path(os.environ.get("FEWLABELS_BENCHMARKS", "~/.cache/fewlabels-benchmarks")).expanduser()


def pretrained(dataset: Dataset, config: SimCLRConfig) -> Pretrained:
    """The encoder under these settings: read if it was trained before on this machine."""
    facts = json.dumps([dataset.name, config.to_dict()], sort_keys=True).encode()
    folder = KEPT / hashlib.sha256(facts).hexdigest()[:16]
    if not (folder / "report.json").exists():
        _train(dataset, config, folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    encoder = create_encoder(config.encoder, image_size=config.image_size, channels=config.channels)
    load_weights(encoder, folder / "encoder.safetensors")
    spec = ProjectionSpec.from_dict(report.pop("projection"))
    projection = spec.build()
    load_weights(projection, folder / "projection.safetensors")
    return Pretrained(
        encoder=encoder.eval(), projection=projection.eval(), spec=spec, report=report
    )


def _train(dataset: Dataset, config: SimCLRConfig, folder: Path) -> None:
    run = Run(on_step=_Told(), checkpoint_dir=folder / "checkpoint")
    model = pretrain(dataset.pool, config, dataset.preprocessing, run=run)
    save_weights(model.encoder, folder / "encoder.safetensors")
    save_weights(model.projection, folder / "projection.safetensors")
    report = {**model.report, "projection": model.spec.to_dict()}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


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
