"""Models in memory: loaded once, warmed up, least recently used first out."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 — the field's usual name

from core.config import Settings
from core.errors import BatchFailed, DeadlineExceeded, FewlabelsError
from core.inference.batcher import Batcher
from core.learning.architecture import Architecture
from core.learning.checkpoint import load_weights
from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.preprocessing import Preprocessing
from core.registry.artifact import WEIGHTS, ModelSource
from core.telemetry import logger

log = logger(__name__)
Pixels = NDArray[np.uint8]
Load = Callable[[], Pixels]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one image: unit vector, and class probabilities if it has classes."""

    embedding_D: NDArray[np.float32]
    probabilities_K: NDArray[np.float32] | None


class LoadedModel:
    """A module in eval mode with its preprocessing and class names."""

    def __init__(self, source: ModelSource, device: str) -> None:
        manifest = source.manifest
        self.model_id = source.model_id
        self.classes: list[str] = list(manifest.get("classes") or [])
        self.preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
        self._device = device
        module = Architecture.from_dict(manifest["architecture"]).build()
        load_weights(module, source.fetch(WEIGHTS))
        self._module: Encoder | Classifier = module.eval().to(device)
        side, channels = self.preprocessing.image_size, self.preprocessing.channels
        warm_up = self.forward([np.zeros((side, side, channels), dtype=np.uint8)])
        self.dimension = len(warm_up[0].embedding_D)

    @torch.inference_mode()
    def forward(self, canvases: list[Pixels]) -> list[Answer]:
        """Answers for canvases (S, S, C) uint8, in their order."""
        images_BHWC = torch.from_numpy(np.stack(canvases)).to(self._device)
        inputs_BCHW = self.preprocessing.normalise(images_BHWC)
        module = self._module
        if isinstance(module, Classifier):
            features_BD = module.forward_features(inputs_BCHW)
            probabilities = module.head(features_BD).softmax(dim=-1).float().cpu().numpy()
        else:
            features_BD, probabilities = module(inputs_BCHW), None
        embeddings = F.normalize(features_BD.float(), dim=-1).cpu().numpy()
        return [
            Answer(embedding, None if probabilities is None else probabilities[row])
            for row, embedding in enumerate(embeddings)
        ]


@dataclass(slots=True)
class _Served:
    model: LoadedModel
    batcher: Batcher[Pixels, Answer]


class Engine:
    """Answers from models in memory; lives on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._served: OrderedDict[UUID, asyncio.Task[_Served]] = OrderedDict()
        # One forward pass at a time: each uses all cores, two would fight for them.
        self._forward_pool = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._pool = ThreadPoolExecutor(settings.inference_threads, thread_name_prefix="preprocess")
        # Serving goes on without a GPU where only the workers have one.
        on_gpu = settings.device != "cpu" and torch.cuda.is_available()
        self._device = "cuda" if on_gpu else "cpu"

    async def model(self, source: ModelSource) -> LoadedModel:
        """The model in memory; loaded once, however many ask for it.

        Raises:
            ArtifactCorrupt: Its weights do not have the checksum of the manifest.
        """
        return (await self._serve(source)).model

    async def answer(
        self, source: ModelSource, images: Sequence[Load]
    ) -> list[Answer | FewlabelsError]:
        """What the model says of images, in their order; an error of ours for a bad one.

        Args:
            source: The model.
            images: Each gives the decoded pixels (H, W, 3) when it is called. They are called on
                the engine's few threads, so that only as many large images are in memory at once.

        Raises:
            Overloaded: Too many images are waiting for this model.
            DeadlineExceeded: The answer did not come in time.
            BatchFailed: The model fails on one of the images.
        """
        try:
            async with asyncio.timeout(self._settings.inference_seconds):
                return await self._answer(source, images)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the model did not answer within {self._settings.inference_seconds:g} seconds"
            ) from None

    async def _answer(
        self, source: ModelSource, images: Sequence[Load]
    ) -> list[Answer | FewlabelsError]:
        loop = asyncio.get_running_loop()
        served = await self._serve(source)

        def prepare(load: Load) -> Pixels | FewlabelsError:
            try:
                return served.model.preprocessing.canvas(load())
            except FewlabelsError as error:
                return error

        prepared = await asyncio.gather(
            *(loop.run_in_executor(self._pool, prepare, load) for load in images)
        )
        good = [item for item in prepared if not isinstance(item, FewlabelsError)]
        answers = iter(await asyncio.gather(*served.batcher.submit(good)))
        return [
            item if isinstance(item, FewlabelsError) else _usable(next(answers))
            for item in prepared
        ]

    def check(self) -> None:
        """Raise RuntimeError when the engine can no longer answer."""
        self._forward_pool.submit(int).result(timeout=self._settings.inference_seconds)

    async def close(self) -> None:
        """Stop answering."""
        for task in self._served.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                await task.result().batcher.close()
            task.cancel()
        self._forward_pool.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, source: ModelSource) -> _Served:
        task = self._served.get(source.model_id)
        if task is None:
            task = asyncio.create_task(self._load(source))
            self._served[source.model_id] = task
            self._evict()
        self._served.move_to_end(source.model_id)
        try:
            # A caller that goes away does not stop a load that others wait for.
            return await asyncio.shield(task)
        except Exception:
            if self._served.get(source.model_id) is task and task.done():
                del self._served[source.model_id]
            raise

    async def _load(self, source: ModelSource) -> _Served:
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._pool, LoadedModel, source, self._device)
        batcher = Batcher(
            model.forward,
            max_batch=self._settings.inference_batch,
            max_waiting=self._settings.inference_queue,
            executor=self._forward_pool,
        )
        log.info("model loaded", model_id=str(source.model_id), dimension=model.dimension)
        return _Served(model, batcher)

    def _evict(self) -> None:
        while len(self._served) > self._settings.max_loaded_models:
            model_id, _ = self._served.popitem(last=False)
            # Requests under way keep their batcher until they are answered.
            log.info("model unloaded", model_id=str(model_id))


def _usable(answer: Answer) -> Answer | FewlabelsError:
    # Weights may overflow on an image unlike all others; nobody is served a vector of nothing.
    if np.isfinite(answer.embedding_D).all() and answer.embedding_D.any():
        return answer
    return BatchFailed("the model gives no usable vector for this image")
