"""The engine: loads once, forgets the oldest, and sees what training saw."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from core.config import Settings
from core.datasets.cache import open_cache
from core.errors import ArtifactCorrupt, DeadlineExceeded, ImageInvalid, Overloaded
from core.images.decoding import decode
from core.images.recording import image_key
from core.inference import engine as engine_module
from core.inference.engine import Answer, Engine, LoadedModel
from core.learning.preprocessing import Preprocessing
from core.registry.artifact import WEIGHTS, ModelSource, sha256_of, stored_files
from core.storage.folder import FolderStore
from tests.tiny_models import CLASSES, SIDE, tiny_source
from tests.unit.images.image_samples import encode, exif, gradient
from tests.unit.images.profile_samples import P3, screen, srgb_curve

Pixels = NDArray[np.uint8]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "blobs")
    store.prepare()
    return store


@pytest.fixture
def source(store: FolderStore, tmp_path: Path) -> ModelSource:
    return tiny_source(store, tmp_path / "cache")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Ids of the models as they are loaded."""
    seen: list[UUID] = []
    original = LoadedModel.__init__

    def noting(self: LoadedModel, source: ModelSource, device: str) -> None:
        seen.append(source.model_id)
        original(self, source, device)

    monkeypatch.setattr(engine_module.LoadedModel, "__init__", noting)
    return seen


def run(work: Callable[[Engine], Awaitable[None]], **wishes: object) -> None:
    """Do the work with an engine on a loop of its own."""
    settings = Settings(_env_file=None, device="cpu", **wishes)  # type: ignore[arg-type]

    async def main() -> None:
        engine = Engine(settings)
        try:
            await work(engine)
        finally:
            await engine.close()

    asyncio.run(main())


async def ask(engine: Engine, source: ModelSource, images: list[Pixels]) -> list[Answer]:
    """The answers for decoded images, all of which are good."""
    results = await engine.answer(source, [partial(np.asarray, image) for image in images])
    answers = [result for result in results if isinstance(result, Answer)]
    assert len(answers) == len(results)
    return answers


def pictures(count: int, seed: int = 0) -> list[Pixels]:
    generator = np.random.default_rng(seed)
    return [
        generator.integers(0, 256, (20 + n, 30 - n % 9, 3), dtype=np.uint8) for n in range(count)
    ]


def test_many_wait_for_one_load(source: ModelSource, loads: list[UUID]) -> None:
    async def work(engine: Engine) -> None:
        answers = await asyncio.gather(*(ask(engine, source, pictures(1)) for _ in range(20)))
        assert len(answers) == 20
        assert loads == [source.model_id]

    run(work)


def test_the_oldest_is_forgotten(store: FolderStore, tmp_path: Path, loads: list[UUID]) -> None:
    first, second, third = (tiny_source(store, tmp_path / "c", seed=seed) for seed in range(3))

    async def work(engine: Engine) -> None:
        for source in (first, second, first, third, first, second):
            await ask(engine, source, pictures(1))

    run(work, max_loaded_models=2)
    wanted = [first, second, third, second]
    assert loads == [source.model_id for source in wanted]


def test_requests_under_way_survive_forgetting(store: FolderStore, tmp_path: Path) -> None:
    sources = [tiny_source(store, tmp_path / "c", seed=seed) for seed in range(4)]

    async def work(engine: Engine) -> None:
        answers = await asyncio.gather(
            *(ask(engine, source, pictures(3)) for source in sources * 5)
        )
        assert [len(answer) for answer in answers] == [3] * 20

    run(work, max_loaded_models=1)


def test_failed_load_is_tried_again(
    store: FolderStore, source: ModelSource, tmp_path: Path, loads: list[UUID]
) -> None:
    sha256 = stored_files(source.manifest)[WEIGHTS].sha256
    (blob,) = (tmp_path / "blobs").rglob(sha256)
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole[:-4] + b"oops")

    async def work(engine: Engine) -> None:
        outcomes = await asyncio.gather(
            *(ask(engine, source, pictures(1)) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(outcome, ArtifactCorrupt) for outcome in outcomes)
        assert len(loads) == 1
        blob.write_bytes(whole)
        assert len(await ask(engine, source, pictures(2))) == 2

    run(work)


def test_caller_that_leaves_does_not_stop_the_load(source: ModelSource, loads: list[UUID]) -> None:
    async def work(engine: Engine) -> None:
        impatient = asyncio.create_task(ask(engine, source, pictures(1)))
        patient = asyncio.create_task(ask(engine, source, pictures(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        impatient.cancel()
        assert len(await patient) == 1
        assert len(loads) == 1

    run(work)


def test_deadline_and_overload_are_told(source: ModelSource) -> None:
    async def late(engine: Engine) -> None:
        with pytest.raises(DeadlineExceeded, match="1e-05 seconds"):
            await ask(engine, source, pictures(1))

    async def full(engine: Engine) -> None:
        with pytest.raises(Overloaded):
            await ask(engine, source, pictures(3))
        assert len(await ask(engine, source, pictures(2))) == 2

    run(late, inference_seconds=1e-5)
    run(full, inference_queue=2)


def test_closed_engine_is_not_ready() -> None:
    async def work(engine: Engine) -> None:
        engine.check()
        await engine.close()
        with pytest.raises(RuntimeError):
            engine.check()

    run(work)


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
        assert len(await engine.answer(source, [load] * 12)) == 12
        assert most <= 2

    run(work, inference_threads=2)


def test_a_bad_image_fails_alone(source: ModelSource) -> None:
    def broken() -> Pixels:
        raise ImageInvalid("no image")

    async def work(engine: Engine) -> None:
        good = partial(np.asarray, pictures(1)[0])
        first, second = await engine.answer(source, [broken, good])
        assert isinstance(first, ImageInvalid)
        assert isinstance(second, Answer)

    run(work)
