"""What a real browser makes of the pages and pictures under the headers that they are sent with.

Needs Chromium (`apt install chromium-headless-shell`): `python -m pytest -m browser`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from tests.integration.api.listening import listening
from tests.unit.images.image_samples import encode

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, PROGRAMS)), None)
REFUSED = ("content security policy", "refused to", "failed to load")
RED = (200, 20, 30)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(PROGRAMS)} is installed"),
]


@pytest.fixture(scope="module")
def url(app: FastAPI, client: TestClient) -> Iterator[str]:
    with listening(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def dataset(add_dataset: Callable[..., str]) -> str:
    """Images that are red all over."""
    return add_dataset({f"{n}.png": encode(Image.new("RGB", (90 + n, 90), RED)) for n in range(2)})


def browse(*words: str, folder: Path) -> tuple[str, str]:
    """What the browser prints, and what it logs; it may take its time to run scripts."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [f"--user-data-dir={folder}", "--window-size=500,500", "--virtual-time-budget=20000"]
    done = subprocess.run([BROWSER, *options, *words], capture_output=True, timeout=120, check=True)
    return done.stdout.decode(), done.stderr.decode(errors="replace")


def complaints(log: str) -> list[str]:
    """Lines of the page's console in which the browser refuses something."""
    said = [line for line in log.splitlines() if "CONSOLE" in line]
    return [line for line in said if any(word in line.lower() for word in REFUSED)]


def seen(url: str, folder: Path) -> np.ndarray:
    """The window as it is shown, (H, W, 3)."""
    shot = folder / "shot.png"
    # The browser complains of the styles of its own frame around a picture, and shows it.
    browse(f"--screenshot={shot}", url, folder=folder)
    with Image.open(io.BytesIO(shot.read_bytes())) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("path", "shown", "outside"),
    [("/docs", "opblock-summary-path", []), ("/redoc", "Vectors of images", ["cdn.redoc.ly"])],
)
def test_the_documentation_works_under_its_policy(
    url: str, tmp_path: Path, path: str, shown: str, outside: list[str]
) -> None:
    """Nothing is fetched from elsewhere, which ReDoc tries for its logo."""
    page, log = browse("--dump-dom", url + path, folder=tmp_path)
    refused = complaints(log)
    assert len(refused) == len(outside)
    assert all(host in line for host, line in zip(outside, refused, strict=True))
    assert shown in page  # written by the page's script
    assert "/predict" in page


def test_a_policy_that_forbids_shows_in_the_log(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an empty list of complaints says something."""
    monkeypatch.setattr("api.headers.PAGES_POLICY", "default-src 'none'")
    page, log = browse("--dump-dom", url + "/docs", folder=tmp_path)
    assert complaints(log) != []
    assert "opblock-summary-path" not in page


def test_thumbnails_contents_and_augmentations_are_shown(
    url: str, client: TestClient, dataset: str, tmp_path: Path
) -> None:
    image_id = client.get(f"/datasets/{dataset}/images").json()["items"][0]["id"]
    for path in (f"/images/{image_id}/thumbnail", f"/images/{image_id}/content"):
        window = seen(url + path, tmp_path)
        red = (np.abs(window - RED).max(axis=-1) < 10).sum()
        assert red > 5000, path  # of the 90 by 90 pixels of the picture
    path = f"/datasets/{dataset}/augmentations?image_size=64&n=1&views=2"
    window = seen(url + path, tmp_path)
    assert (window.min(axis=-1) == 255).any()  # the paper
    assert (np.abs(window - RED).max(axis=-1) < 60).sum() > 3000
