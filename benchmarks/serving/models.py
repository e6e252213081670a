"""The models that are served: trained by jobs of a running service, as a user would."""

from __future__ import annotations

import io
import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image

JOB_SECONDS = 600.0
IMAGES, LABELLED = 64, 40


@dataclass(frozen=True)
class Kind:
    """A network at a size, and the image files that it is asked about."""

    encoder: str
    image_size: int
    file_size: tuple[int, int]

    @property
    def name(self) -> str:
        """As in the results."""
        return f"{self.encoder}@{self.image_size}"


# The second is a photograph of usual size, so that decoding counts.
KINDS = (Kind("resnet10", 32, (32, 32)), Kind("resnet18", 224, (500, 375)))


def pictures(kind: Kind) -> list[bytes]:
    """JPEG files, smooth with some grain as photographs are."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(IMAGES):
        coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(kind.file_size, Image.Resampling.BICUBIC)
        grain = random.normal(0, 6, (kind.file_size[1], kind.file_size[0], 1))
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def train(url: str, kind: Kind, files: list[bytes]) -> str:
    """The id of a classifier of two made-up classes; what it has learnt is not looked at."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        dataset = _done(client.post("/datasets", json={"name": kind.name}))["id"]
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for number, data in enumerate(files):
                info = tarfile.TarInfo(f"{number}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        headers = {"content-type": "application/x-tar"}
        path = f"/datasets/{dataset}/images"
        _done(client.post(path, content=body.getvalue(), headers=headers))
        labels = [{"file": f"{n}.jpg", "label": f"class {n % 2}"} for n in range(LABELLED)]
        _done(client.put(f"/datasets/{dataset}/labels", json={"labels": labels}))
        order = {
            "stage": "finetune",
            "dataset_id": dataset,
            "encoder": kind.encoder,
            "image_size": kind.image_size,
            "method": "full",
            "epochs": 1,
            "batch_size": 16,
            "calibrate": False,
        }
        job = _done(client.post("/jobs", json=order))["id"]
        deadline = time.monotonic() + JOB_SECONDS
        while time.monotonic() < deadline:
            row = _done(client.get(f"/jobs/{job}"))
            if row["state"] == "succeeded":
                return str(row["model_id"])
            if row["error"] is not None:
                raise SystemExit(f"training {kind.name}: {row['error']}")
            time.sleep(0.5)
    raise SystemExit(f"training {kind.name} did not end")


def hand_over(url: str, model_id: str, store: str, files: list[bytes], folder: Path) -> None:
    """What the peers need: the manifest, where the weights are, the images."""
    (folder / "images").mkdir(parents=True)
    for number, data in enumerate(files):
        (folder / "images" / f"{number:03d}").write_bytes(data)
    manifest = httpx2.get(f"{url}/models/{model_id}").json()["manifest"]
    told = {"id": model_id, "manifest": manifest, "store": store}
    (folder / "model.json").write_text(json.dumps(told))


def _done(answer: httpx2.Response) -> Any:
    if not answer.is_success:
        raise SystemExit(f"{answer.request.url}: {answer.text}")
    return answer.json()
