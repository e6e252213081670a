"""GET /images/{id}/thumbnail: small, cached, with ETag, the same for everybody who may look."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from core.images import thumbnails
from core.images.formats import FORMATS
from core.images.recording import image_key
from tests.integration.api.problems import assert_problem, picture
from tests.unit.images.image_samples import encode, exif, gradient

Add = Callable[..., str]


def only_image(client: TestClient, add_dataset: Add, data: bytes) -> dict[str, str]:
    dataset_id = add_dataset({"x": data})
    (item,) = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    return dict(item)


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "WEBP"
    return image.convert("RGB")


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_image_in_a_square(client: TestClient, add_dataset: Add, kind: str) -> None:
    image = Image.new("RGB", (900, 300), "red")
    image.paste("blue", (450, 0, 900, 300))
    item = only_image(client, add_dataset, encode(image, kind))
    for query, size in (("", 256), ("?size=64", 64), ("?size=512", 512)):
        answer = client.get(f"/images/{item['id']}/thumbnail{query}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/webp"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"].startswith("private")
        small = opened(answer.content)
        assert small.size == (size, round(size / 3))
        pixels = np.asarray(small).astype(int)
        for column, colour in ((size // 4, (255, 0, 0)), (3 * size // 4, (0, 0, 255))):
            np.testing.assert_allclose(pixels[size // 6, column], colour, atol=8)


def test_small_images_stay_as_they_are(client: TestClient, add_dataset: Add) -> None:
    item = only_image(client, add_dataset, encode(gradient()))
    small = opened(client.get(f"/images/{item['id']}/thumbnail?size=512").content)
    np.testing.assert_array_equal(np.asarray(small), np.asarray(gradient()))


def test_orientation_is_applied(client: TestClient, add_dataset: Add) -> None:
    item = only_image(client, add_dataset, encode(gradient(90, 30), "JPEG", exif=exif(6)))
    assert opened(client.get(f"/images/{item['id']}/thumbnail").content).size == (30, 90)


def test_etag_spares_the_work(client: TestClient, add_dataset: Add, app: FastAPI) -> None:
    item = only_image(client, add_dataset, picture(41))
    url = f"/images/{item['id']}/thumbnail"
    first = client.get(url)
    tags = {client.get(f"{url}?size={size}").headers["etag"] for size in thumbnails.SIZES}
    assert len(tags) == len(thumbnails.SIZES)
    assert first.headers["etag"] in tags
    assert client.get(f"/images/{item['id']}/content").headers["etag"] not in tags
    # Neither the image nor the thumbnail is read for somebody who has it.
    app.state.store.delete(image_key(item["sha256"]))
    for key in thumbnails.thumbnail_keys(item["sha256"]):
        app.state.store.delete(key)
    known = client.get(url, headers={"if-none-match": first.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == first.headers["etag"]


def test_made_once(client: TestClient, add_dataset: Add, app: FastAPI) -> None:
    item = only_image(client, add_dataset, picture(42))
    keys = thumbnails.thumbnail_keys(item["sha256"])
    assert not any(map(app.state.store.exists, keys))
    url = f"/images/{item['id']}/thumbnail"
    first = client.get(url).content
    assert sum(map(app.state.store.exists, keys)) == 1
    # It is not made again: the image itself is not needed any more.
    app.state.store.delete(image_key(item["sha256"]))
    assert client.get(url).content == first


def test_many_at_once(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset({f"{n}.png": picture(500 + n) for n in range(30)})
    items = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    with ThreadPoolExecutor(10) as threads:
        urls = [f"/images/{item['id']}/thumbnail" for item in items]
        answers = list(threads.map(client.get, urls))
    assert {answer.status_code for answer in answers} == {200}


def test_too_many_at_once_are_told_to_come_again(
    client: TestClient, add_dataset: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = only_image(client, add_dataset, picture(43))
    monkeypatch.setattr(thumbnails, "PATIENCE_SECONDS", 0.05)
    for _ in range(thumbnails.AT_ONCE):
        assert thumbnails._PLACES.acquire(blocking=False)
    try:
        answer = client.get(f"/images/{item['id']}/thumbnail")
        assert_problem(answer, 429, "try again")
        assert answer.headers["retry-after"]
    finally:
        for _ in range(thumbnails.AT_ONCE):
            thumbnails._PLACES.release()
    assert client.get(f"/images/{item['id']}/thumbnail").status_code == 200
