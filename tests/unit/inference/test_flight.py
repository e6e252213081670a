"""A request's images are decoded in parts, and every future ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from core.errors import BatchFailed, ImageInvalid, Overloaded
from core.inference.batcher import Batcher
from core.inference.flight import Decoding, Flight, depart
from core.inference.model import Answer, LoadedModel
from core.inference.runtimes import Placement
from core.learning.runtimes import Pixels
from core.registry.artifact import ModelSource
from tests.unit.inference.engine_runs import LIMIT, pictures


class Counted(ThreadPoolExecutor):
    """A pool that knows how often it was handed something."""

    handed = 0

    def submit(self, *arguments: Any, **wishes: Any) -> Future[Any]:
        self.handed += 1
        return super().submit(*arguments, **wishes)


@pytest.fixture
def pool() -> Iterator[Counted]:
    with Counted(2) as pool:
        yield pool


@pytest.fixture
def aside() -> Iterator[Counted]:
    with Counted(1) as pool:
        yield pool


@pytest.fixture
def model(source: ModelSource) -> LoadedModel:
    return LoadedModel(source, Placement())


@pytest.fixture
def batcher(model: LoadedModel) -> Iterator[Batcher[Pixels, Answer]]:
    batcher = Batcher(model.forward, max_batch=8)
    yield batcher
    batcher.close()


@pytest.mark.parametrize(("count", "handed"), [(1, 1), (2, 2), (3, 2), (16, 2)])
def test_a_request_is_split_among_the_threads(
    pool: Counted,
    aside: Counted,
    model: LoadedModel,
    batcher: Batcher[Pixels, Answer],
    count: int,
    handed: int,
) -> None:
    images = pictures(count)
    flights = [Flight(partial(np.asarray, image)) for image in images]
    depart(flights, Decoding(pool, aside), model, batcher, groups=2)
    got = np.stack([flight.future.result(LIMIT).result.embedding_D for flight in flights])
    alone = [model.forward([model.preprocessing.canvas(image)])[0] for image in images]
    np.testing.assert_allclose(got, np.stack([one.embedding_D for one in alone]), atol=1e-5)
    assert (pool.handed, aside.handed) == (handed, 0)
    assert all(flight.decode_seconds > 0 for flight in flights)


def test_a_bad_image_fails_alone_wherever_it_stands(
    pool: Counted, aside: Counted, model: LoadedModel, batcher: Batcher[Pixels, Answer]
) -> None:
    def bad() -> Pixels:
        raise ImageInvalid("torn")

    def broken() -> Pixels:
        raise ZeroDivisionError

    good = partial(np.asarray, pictures(1)[0])
    flights = [Flight(load) for load in (bad, good, good, broken, good)]
    depart(flights, Decoding(pool, aside), model, batcher, groups=2)
    kinds = [type(flight.future.exception(LIMIT)) for flight in flights]
    assert kinds == [ImageInvalid, type(None), type(None), BatchFailed, type(None)]


def test_a_pool_that_is_shut_down_leaves_nobody_waiting(
    aside: Counted, model: LoadedModel, batcher: Batcher[Pixels, Answer]
) -> None:
    pool = Counted(2)
    pool.shutdown()
    flights = [Flight(partial(np.asarray, image)) for image in pictures(5)]
    depart(flights, Decoding(pool, aside), model, batcher, groups=2)
    assert {type(flight.future.exception(LIMIT)) for flight in flights} == {Overloaded}


def test_an_image_that_takes_long_keeps_no_other_waiting(
    pool: Counted, aside: Counted, model: LoadedModel, batcher: Batcher[Pixels, Answer]
) -> None:
    gate = threading.Event()
    image = pictures(1)[0]

    def later() -> Pixels:
        assert gate.wait(LIMIT)
        return image

    long = [Flight(lambda: later) for _ in range(3)]
    depart(long, Decoding(pool, aside), model, batcher, groups=2)
    quick = [Flight(partial(np.asarray, image)) for _ in range(3)]
    depart(quick, Decoding(pool, aside), model, batcher, groups=2)
    vectors = [flight.future.result(LIMIT).result.embedding_D for flight in quick]
    assert not any(flight.future.done() for flight in long)
    gate.set()
    vectors += [flight.future.result(LIMIT).result.embedding_D for flight in long]
    np.testing.assert_allclose(vectors, np.stack([vectors[0]] * 6), atol=1e-5)
    assert aside.handed == 3


def test_who_waits_for_an_image_aside_is_told_when_that_is_shut_down(
    pool: Counted, aside: Counted, model: LoadedModel, batcher: Batcher[Pixels, Answer]
) -> None:
    aside.shutdown()
    flight = Flight(lambda: partial(np.asarray, pictures(1)[0]))
    depart([flight], Decoding(pool, aside), model, batcher, groups=2)
    assert isinstance(flight.future.exception(LIMIT), Overloaded)
