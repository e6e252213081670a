"""What is sent, in every form that is taken, and whether an answer is the right one."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def drawing(seed: int) -> bytes:
    """Rectangles of many colours, which also an untrained model tells apart."""
    chance = np.random.default_rng(seed)
    pixels = np.empty((80, 96, 3), dtype=np.uint8)
    pixels[:] = chance.integers(0, 256, 3)
    for _ in range(4):
        top, left = chance.integers(0, 60, 2)
        height, width = chance.integers(10, 50, 2)
        pixels[top : top + height, left : left + width] = chance.integers(0, 256, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


PICTURES = [drawing(seed) for seed in range(12)]
BAD = [b"no image at all", PICTURES[0][:70]]
TOLERANCE = 1e-4  # between a batch and one image: sums in another order
BAD_SHARE = 0.1
RARE_SHARE = 0.002  # requests for the model that there is no room for
HASTY_SHARE = 0.05
FORMS = ("json", "base64", "form", "raw", "predict")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a model says of each picture alone: vectors (N, D), probabilities (N, K)."""

    vectors: NDArray[np.float64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Order:
    """One request; `pictures` are indices, None for a bad image."""

    path: str
    model: str
    arguments: dict[str, Any]
    pictures: list[int | None]
    as_base64: bool = False


def an_order(chance: random.Random, *, alias: str, rare: str) -> Order:
    """A request of one to four images, some of them bad, now and then for the rare model."""
    model = rare if chance.random() < RARE_SHARE else alias
    form = chance.choice(FORMS)
    count = 1 if form == "raw" else chance.randint(1, 4)
    pictures = [
        None if chance.random() < BAD_SHARE else chance.randrange(len(PICTURES))
        for _ in range(count)
    ]
    files = [chance.choice(BAD) if one is None else PICTURES[one] for one in pictures]
    headers = {"X-Timeout-Ms": "150"} if chance.random() < HASTY_SHARE else {}
    return made(form, model, files, pictures, headers)


def made(
    form: str,
    model: str,
    files: Sequence[bytes],
    pictures: list[int | None],
    headers: dict[str, str],
) -> Order:
    """The request in one of the forms."""
    if form == "form":
        sent = [("files", ("x.jpg", data)) for data in files]
        arguments: dict[str, Any] = {"data": {"model": model}, "files": sent, "headers": headers}
        return Order("/predict", model, arguments, pictures)
    if form == "raw":
        arguments = {"content": files[0], "headers": {**headers, "content-type": "image/jpeg"}}
        return Order(f"/embed?model={model}", model, arguments, pictures)
    body: dict[str, Any] = {"model": model}
    body["images"] = [base64.b64encode(data).decode() for data in files]
    if form == "base64":
        body["encoding_format"] = "base64"
    path = "/predict" if form == "predict" else "/embed"
    arguments = {"json": body, "headers": headers}
    return Order(path, model, arguments, pictures, form == "base64")


def fault_of(order: Order, answer: httpx2.Response, expected: dict[str, Expected]) -> str | None:
    """What is wrong with an answer; None when it is one that may be given."""
    if answer.status_code == 429:
        return None if "retry-after" in answer.headers else "429 without Retry-After"
    if answer.status_code == 504:
        return None
    if answer.status_code == 422 and all(one is None for one in order.pictures):
        return None
    if answer.status_code != 200:
        return f"{order.path}: {answer.status_code} {answer.text[:300]}"
    body = answer.json()
    if body["model_id"] != answer.headers["x-fewlabels-model"]:
        return "body and header name different models"
    if len(body["items"]) != len(order.pictures):
        return f"{len(body['items'])} answers for {len(order.pictures)} images"
    model = expected[body["model_id"]]
    for one, item in zip(order.pictures, body["items"], strict=True):
        if (one is None) != (item["error"] is not None):
            return f"picture {one}: {item}"[:300]
        if one is not None and not _agrees(order, item, model, one):
            return f"{order.path}: picture {one} has not the answer it has alone"
    return None


def _agrees(order: Order, item: dict[str, Any], model: Expected, one: int) -> bool:
    if order.path == "/predict":
        found = {scored["label"]: scored["probability"] for scored in item["predictions"]}
        values = [found[name] for name in sorted(found)]
        return bool(np.abs(np.array(values) - model.probabilities[one]).max() < TOLERANCE)
    vector = item["embedding"]
    if order.as_base64:
        vector = np.frombuffer(base64.b64decode(vector), "<f4")
    return bool(np.abs(np.asarray(vector) - model.vectors[one]).max() < TOLERANCE)
