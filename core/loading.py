"""Loading large libraries without looking for garbage in them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """While libraries are imported: they leave half a million objects and hardly any garbage.

    Full collections of them take a quarter to a third of the time of the import, and would go on
    taking theirs while the process works: what is there at the end is not looked through again.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
