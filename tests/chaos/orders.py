"""A client that orders jobs as users do, and asks again under the same key until it is answered."""

from __future__ import annotations

import io
import random
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx2
import numpy as np
from PIL import Image as Pillow
from sklearn.datasets import load_digits

from core.db.models import UNFINISHED

IMAGES = 160
PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = 0.3
TINY: dict[str, Any] = {"encoder": "resnet10_tiny", "image_size": 16, "batch_size": 32}
# What is ordered, and how often: long enough to be disturbed, short enough for hundreds.
KINDS = {"pretrain": 6, "finetune": 3, "pipeline": 1, "embed": 1}
EPOCHS = 16


@dataclass
class Ordered:
    """A job that the service has accepted."""

    job_id: UUID
    kind: str
    """What two jobs have in common whose weights must be the same."""
    cancelled: bool = False
    """Somebody asked for it, at whatever time."""
    retries: int = 0


@dataclass
class Client:
    """What was accepted, and how to order more."""

    url: str
    seed: int
    kinds: tuple[str, ...] = tuple(KINDS)
    dataset_id: str = ""
    encoder_id: str = ""
    ordered: list[Ordered] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http = httpx2.Client(base_url=self.url, timeout=10)
        self._random = random.Random(self.seed)

    def close(self) -> None:
        self._http.close()

    def upload(self) -> None:
        """Digits, half of them in folders of their classes."""
        self.dataset_id = self.ask("POST", "/datasets", json={"name": uuid4().hex})["id"]
        path = f"/datasets/{self.dataset_id}/images?labels=folders"
        kind = {"content-type": "application/zip"}
        report = self.ask("POST", path, content=archive(), headers=kind)
        assert report["added"] == IMAGES, report

    def order_one(self) -> list[Ordered]:
        """Something of a random kind."""
        weights = [KINDS[kind] for kind in self.kinds]
        return self.order(self._random.choices(self.kinds, weights)[0])

    def unfinished(self) -> int:
        """Jobs that the service says have not ended."""
        jobs = self.ask("GET", "/usage")["jobs"]
        return sum(jobs.get(state, 0) for state in UNFINISHED)

    def order(self, kind: str) -> list[Ordered]:
        """A job or, of a pipeline, three."""
        answer = self.ask("POST", "/jobs", json=self._body(kind))
        made = [Ordered(UUID(job["id"]), f"{kind} {job['stage']}") for job in answer["jobs"]]
        self.ordered += made
        return made

    def cancel(self, one: Ordered) -> None:
        """Whatever state it is in."""
        one.cancelled = True
        self.ask("POST", f"/jobs/{one.job_id}/cancel", allowed=(409,))

    def retry(self, one: Ordered) -> None:
        """Where it has ended as cancelled, from the checkpoint or from the beginning."""
        start = self._random.choice(["checkpoint", "beginning"])
        answer = self.ask("POST", f"/jobs/{one.job_id}/retry", json={"from": start}, allowed=(409,))
        if "state" in answer:
            one.retries += 1
            one.cancelled = False

    def ask(
        self, method: str, path: str, *, allowed: tuple[int, ...] = (), **given: Any
    ) -> dict[str, Any]:
        """The answer, in the end: an order whose answer was lost is the same order.

        An allowed refusal is an answer, too.
        """
        headers = {"idempotency-key": uuid4().hex, **given.pop("headers", {})}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._http.request(method, path, headers=headers, **given)
            except httpx2.TransportError as error:
                said = str(error)
            else:
                if answer.is_success or answer.status_code in allowed:
                    return dict(answer.json())
                said = f"{answer.status_code} {answer.text}"
                if answer.status_code < 500 and answer.status_code not in {409, 429}:
                    raise AssertionError(f"{method} {path}: {said}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{method} {path}: no answer; the last was {said}")
            time.sleep(PAUSE_SECONDS)

    def _body(self, kind: str) -> dict[str, Any]:
        given = {"dataset_id": self.dataset_id, "priority": self._random.randint(-1, 1)}
        if kind == "pretrain":
            return {"stage": kind, **TINY, "epochs": EPOCHS, **given}
        if kind == "finetune":
            options = {"method": "full", "epochs": EPOCHS, "batch_size": 16}
            return {"stage": kind, "model_id": self.encoder_id, **options, **given}
        if kind == "embed":
            return {"stage": kind, "model_id": self.encoder_id, "index": "none", **given}
        return {
            "stage": kind,
            "pretrain": {**TINY, "epochs": 4},
            "finetune": {"method": "full", "epochs": 2, "batch_size": 16},
            "distill": {"epochs": 2, "batch_size": 32},
            **given,
        }


def archive() -> bytes:
    """The digits as a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in pictures():
            archive.writestr(name, content)
    return packed.getvalue()


def pictures() -> Iterator[tuple[str, bytes]]:
    data = load_digits()
    for number, pixels in enumerate(data.images[:IMAGES]):
        buffer = io.BytesIO()
        Pillow.fromarray((pixels * 15).astype(np.uint8)).save(buffer, "PNG")
        folder = f"digit {data.target[number]}/" if number % 2 else ""
        yield f"{folder}{number}.png", buffer.getvalue()
