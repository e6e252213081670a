"""GET /datasets/{id}/augmentations: a PNG of what training would see, refusals in words."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from io import BytesIO
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from PIL import Image
from sqlalchemy.orm import Session

from core.config import Settings
from core.datasets.snapshot import split_of
from core.db.models import Dataset
from core.inference.previews import sheet_shape
from core.jobs.previews import LARGEST_IMAGES, _facts, _least, _spread
from tests.integration.api.problems import assert_problem, pictures

Add = Callable[..., str]
NOWHERE = "00000000-0000-4000-8000-000000000000"


def grey_pictures(count: int, side: int) -> dict[str, bytes]:
    files = {}
    for number in range(count):
        file = BytesIO()
        levels = np.random.default_rng(number).integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(levels).save(file, "PNG")
        files[f"g{number}.png"] = file.getvalue()
    return files


def ask(client: TestClient, dataset_id: str, **query: Any) -> Response:
    return client.get(f"/datasets/{dataset_id}/augmentations", params=query)


def shape_of(answer: Response) -> tuple[int, ...]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(BytesIO(answer.content))).shape


def plan_in(answer: Response) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(answer.headers["x-fewlabels-plan"])
    return plan


@pytest.mark.parametrize("kind", ["colour", "grey small", "grey large"])
def test_auto_is_what_a_job_would_take(client: TestClient, add_dataset: Add, kind: str) -> None:
    files = {
        "colour": pictures(3),
        "grey small": grey_pictures(3, 28),
        "grey large": grey_pictures(3, 60),
    }[kind]
    dataset_id = add_dataset(files)
    answer = ask(client, dataset_id)
    job = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
    plan = client.post("/jobs", json=job).json()["plan"]
    assert plan_in(answer) == {name: plan[name] for name in plan_in(answer)}
    assert plan_in(answer).keys() == {
        "image_size",
        "channels",
        "augmentation",
        "augmentation_strength",
    }
    colours = (3,) if plan["channels"] == 3 else ()
    assert shape_of(answer) == (*sheet_shape(3, 4, plan["image_size"]), *colours)
    assert answer.headers["cache-control"].startswith("private")


@pytest.mark.usefixtures("unchanged")
def test_the_same_question_has_the_same_answer(client: TestClient, dataset_id: str) -> None:
    first, again = ask(client, dataset_id, seed=3), ask(client, dataset_id, seed=3)
    assert first.content == again.content
    assert ask(client, dataset_id, seed=4).content != first.content
    assert ask(client, dataset_id, seed=3, strength=0.2).content != first.content


def test_what_is_asked_for_is_shown(client: TestClient, dataset_id: str) -> None:
    asked = {"n": 2, "views": 5, "image_size": 16, "augmentation": "microscopy", "strength": 1.5}
    answer = ask(client, dataset_id, **asked)
    assert shape_of(answer) == (*sheet_shape(2, 5, 16), 3)
    assert plan_in(answer) == {
        "image_size": 16,
        "channels": 3,
        "augmentation": "microscopy",
        "augmentation_strength": 1.5,
    }


def test_test_images_are_not_shown(client: TestClient, add_dataset: Add) -> None:
    fractions = {"test_fraction": 0.3, "validation_fraction": 0.2}
    dataset_id = add_dataset(pictures(20), **fractions)
    listed = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    splits = [split_of(item["sha256"], **fractions) for item in listed]
    assert 0 < splits.count("train") < 20
    answer = ask(client, dataset_id, n=32, views=1, image_size=8)
    assert shape_of(answer) == (*sheet_shape(splits.count("train"), 1, 8), 3)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("augmentation=cartoon", "augmentation: .*'photo'.*'satellite'.*found 'cartoon'"),
        ("n=0", "n: .*greater"),
        ("n=33", "n: .*32"),
        ("views=17", "views: .*16"),
        ("views=x", "views: .*integer"),
        ("strength=2.1", "strength: .*2"),
        ("strength=nan", "strength: .*finite"),
        ("image_size=7", "image_size: .*8"),
        ("image_size=513", "image_size: .*512"),
        ("image_size=large", "image_size"),
        ("seed=-1", "seed"),
        ("colour=red", "colour"),
        ("n=3&views=16&image_size=512", "n, views, image_size: found 3 x 16 .*8,388,608"),
    ],
)
def test_impossible_questions(client: TestClient, dataset_id: str, query: str, said: str) -> None:
    answer = client.get(f"/datasets/{dataset_id}/augmentations?{query}")
    assert_problem(answer, 422, said)


def test_without_images_there_is_nothing_to_see(client: TestClient, add_dataset: Add) -> None:
    body = assert_problem(ask(client, add_dataset()), 422, "found no images; upload")
    assert body["type"].endswith("NotEnoughImages")
    assert_problem(ask(client, NOWHERE), 404, NOWHERE)


@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.3), (0.0, 0.0), (0.1, 0.0), (0.3, 0.5)])
def test_the_database_counts_and_chooses_as_a_loop_does(
    add_dataset: Add,
    client: TestClient,
    session: Callable[[], Session],
    *,
    validation: float,
    test: float,
) -> None:
    fractions = {"test_fraction": test, "validation_fraction": validation}
    files: dict[str, bytes] = {}
    for side in (9, 14, 21):
        files |= {f"{side}{name}": data for name, data in grey_pictures(13, side).items()}
    dataset_id = add_dataset(files, **fractions)
    url = f"/datasets/{dataset_id}/images?limit=100"
    images = {item["sha256"]: item for item in client.get(url).json()["items"]}
    split = {sha256: split_of(sha256, **fractions) for sha256 in images}
    known = [image for sha256, image in images.items() if split[sha256] != "test"]
    training = sorted(sha256 for sha256 in images if split[sha256] == "train")
    with session() as opened:
        dataset = opened.get_one(Dataset, UUID(dataset_id))
        facts, count = _facts(opened, dataset)
        chosen = [image.sha256 for image in _spread(opened, dataset, count, 3)]
    assert (len(images), count, facts.images) == (39, len(training), len(known))
    median = statistics.median(min(image["width"], image["height"]) for image in known)
    assert facts.median_short_side == int(median)
    assert facts.greyscale
    assert chosen == [training[i * count // 3] for i in range(3)]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.1 + 0.2, 1 / 3, 0.5, 0.9, 1e-19])
def test_the_first_number_of_a_split_is_exact(fraction: float) -> None:
    least = _least(fraction)
    assert least / 2**64 >= fraction
    assert least == 0 or (least - 1) / 2**64 < fraction


@pytest.mark.usefixtures("unchanged")
def test_images_that_take_long_to_read(
    client: TestClient, dataset_id: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    pixels = {item["sha256"]: item["width"] * item["height"] for item in listed}
    total, largest = sum(pixels.values()), max(pixels.values())
    monkeypatch.setattr(settings, "max_image_pixels", -(-total // LARGEST_IMAGES))
    assert ask(client, dataset_id, image_size=8).status_code == 200
    monkeypatch.setattr(settings, "max_image_pixels", (total - 1) // LARGEST_IMAGES)
    refused = ask(client, dataset_id, image_size=8)
    body = assert_problem(refused, 422, f"n: found {len(pixels)} images of {total:,} pixels")
    assert f"({largest:,})" in body["detail"]
    assert any(sha256 in body["detail"] for sha256 in pixels)
    assert ask(client, dataset_id, image_size=8, n=1).status_code == 200
