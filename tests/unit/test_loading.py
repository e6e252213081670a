"""The garbage collector rests while libraries are loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from core.loading import loading


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_it_rests_and_what_was_loaded_is_not_looked_through_again() -> None:
    gc.unfreeze()
    with loading():
        assert not gc.isenabled()
        loaded: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(loaded)


def test_it_comes_back_after_a_library_that_cannot_be_loaded() -> None:
    with pytest.raises(ModuleNotFoundError), loading():
        raise ModuleNotFoundError
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off() -> None:
    gc.disable()
    with loading():
        pass
    assert not gc.isenabled()
