"""The kernel as machine code: kept by an earlier process, or compiled now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np

from core.learning.augmentations.kernel import compiled, make_views


@cache
def kernel() -> Callable[..., None]:
    """`make_views`, ready to run.

    Loading the compiler takes 0.4 s; compiling 3.5 s more, once a machine where the result can be
    kept. What is kept is bound to the kernel's source and to the CPU. Where it cannot be kept (no
    folder may be written to, the disk is full), or not be read, this process compiles for itself.
    """
    try:
        return _ready(keep=True)
    except Exception as error:  # noqa: BLE001 — whatever reading a damaged file leads to
        logging.getLogger(__name__).warning(
            "the kernel that makes views cannot be kept, or not be read, in %s: each process "
            "compiles it for itself (%r)",
            getattr(numba.config, "CACHE_DIR", "") or "the folder of the code",
            error,
        )
        return _ready(keep=False)


def _ready(*, keep: bool) -> Callable[..., None]:
    made = compiled(make_views, keep=keep)
    made(*_nothing())
    return made


def _nothing() -> tuple[Any, ...]:
    """Arguments for no views, of the types that all views have."""

    def none(*shape: int) -> Any:
        return np.empty((0, *shape), np.float32)

    indices = np.empty(0, np.int64)
    orders = (
        indices, none(4), indices, none(2, 3), none(3, 3), none(), none(1), np.empty(0, np.bool_),
    )  # fmt: skip
    images = np.empty((0, 1, 1, 3), np.uint8)
    return images, orders, none(), np.float32(0), none(3), none(3, 1, 1)
