"""The engine sees what training saw, and says in batches what it says alone."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.datasets.cache import open_cache
from core.errors import (
    ImageInvalid,
)
from core.images.decoding import decode
from core.images.recording import image_key
from core.inference.engine import Engine
from core.inference.model import Answer
from core.learning.preprocessing import Preprocessing
from core.registry.artifact import ModelSource, sha256_of
from core.storage.folder import FolderStore
from tests.tiny_models import CLASSES, SIDE, tiny_source
from tests.unit.images.image_samples import encode, exif, gradient
from tests.unit.images.profile_samples import P3, screen, srgb_curve
from tests.unit.inference.engine_runs import Pixels, ask, pictures, run


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_batched_answers_equal_single_ones(source: ModelSource, batch: int) -> None:
    images = pictures(8)

    async def work(engine: Engine) -> None:
        together = await ask(engine, source, images)
        for image, answer in zip(images, together, strict=True):
            (alone,) = await ask(engine, source, [image])
            # Convolutions of another batch size may sum in another order.
            np.testing.assert_allclose(answer.embedding_D, alone.embedding_D, atol=1e-6)
            assert answer.probabilities_K is not None
            assert alone.probabilities_K is not None
            np.testing.assert_allclose(answer.probabilities_K, alone.probabilities_K, atol=1e-6)
            assert answer.probabilities_K.argmax() == alone.probabilities_K.argmax()

    run(work, inference_batch=batch)


def test_encoder_and_classifier(store: FolderStore, tmp_path: Path) -> None:
    async def work(engine: Engine) -> None:
        encoder = tiny_source(store, tmp_path / "c", classes=())
        (answer,) = await ask(engine, encoder, pictures(1))
        assert answer.probabilities_K is None
        assert np.linalg.norm(answer.embedding_D) == pytest.approx(1, abs=1e-6)
        assert (await engine.model(encoder)).dimension == len(answer.embedding_D)
        classifier = tiny_source(store, tmp_path / "c")
        (answer,) = await ask(engine, classifier, pictures(1))
        assert answer.probabilities_K is not None
        assert answer.probabilities_K.shape == (len(CLASSES),)
        assert answer.probabilities_K.sum() == pytest.approx(1, abs=1e-6)

    run(work)


KINDS = {
    "png": encode(gradient()),
    "jpeg on its side": encode(gradient(), "JPEG", exif=exif(6)),
    "webp": encode(gradient(50, 90), "WEBP"),
    "grey": encode(gradient().convert("L")),
    "alpha": encode(gradient().convert("RGBA")),
    "palette": encode(gradient().convert("P")),
    "cmyk": encode(gradient().convert("CMYK"), "JPEG"),
    "tiff of sixteen bits": encode(
        Image.fromarray(np.arange(0, 65_000, 13, dtype=np.uint16).reshape(50, 100)), "TIFF"
    ),
    "gif": encode(gradient(), "GIF"),
    "bmp": encode(gradient(), "BMP"),
    "display p3": encode(gradient(), "JPEG", icc_profile=screen(P3, srgb_curve())),
    "the very size": encode(gradient(SIDE, SIDE)),
    "one row": encode(Image.new("RGB", (300, 1), (9, 99, 199))),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
def test_serving_sees_what_training_saw(
    store: FolderStore,
    tmp_path: Path,
    data: bytes,
    channels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit for bit: file → store → cache → input in training, file → request → input in serving."""
    seen: list[torch.Tensor] = []
    original = Preprocessing.normalise

    def noting(self: Preprocessing, images_BHWC: torch.Tensor) -> torch.Tensor:
        seen.append(original(self, images_BHWC))
        return seen[-1]

    monkeypatch.setattr(Preprocessing, "normalise", noting)
    source = tiny_source(store, tmp_path / "c", channels=channels)
    preprocessing = Preprocessing.from_dict(source.manifest["preprocessing"])

    async def serve(engine: Engine) -> None:
        decoded = decode(data, max_bytes=10**6, max_pixels=10**6)
        await ask(engine, source, [decoded.pixels_HWC])

    run(serve)
    served_BCHW = seen[-1]

    path = tmp_path / "file"
    path.write_bytes(data)
    sha256 = sha256_of(path)
    store.put(image_key(sha256), data)
    cached_NHWC = open_cache(
        tmp_path / "decoded",
        store,
        [sha256],
        canvas=preprocessing.canvas,
        shape=(SIDE, SIDE, channels),
        on_image=lambda done, of: None,
    )
    trained_BCHW = preprocessing.normalise(torch.from_numpy(np.array(cached_NHWC[:1])))
    assert served_BCHW.shape == (1, channels, SIDE, SIDE)
    assert torch.equal(served_BCHW, trained_BCHW)


def test_few_large_images_are_in_memory_at_once(source: ModelSource) -> None:
    live = most = 0
    lock = threading.Lock()

    def load() -> Pixels:
        nonlocal live, most
        with lock:
            live += 1
            most = max(most, live)
        time.sleep(0.01)
        with lock:
            live -= 1
        return np.zeros((9, 9, 3), dtype=np.uint8) + 128

    async def work(engine: Engine) -> None:
        assert len((await engine.answer(source, [load] * 12)).results) == 12
        assert most <= 2

    run(work, inference_threads=2)


def test_a_bad_image_fails_alone(source: ModelSource) -> None:
    def broken() -> Pixels:
        raise ImageInvalid("no image")

    async def work(engine: Engine) -> None:
        good = partial(np.asarray, pictures(1)[0])
        first, second = (await engine.answer(source, [broken, good])).results
        assert isinstance(first, ImageInvalid)
        assert isinstance(second, Answer)

    run(work)
