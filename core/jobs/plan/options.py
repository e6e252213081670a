"""Reading what was asked for: a value, `auto`, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import SpecInvalid

Options = Mapping[str, Any]
# Options that have a fixed value instead of `auto` where nothing is asked.
FIXED: dict[str, object] = {"augmentation_strength": 1.0, "label_smoothing": 0.0, "views": 2}


def choose(options: Options, name: str, automatic: Any) -> Any:
    """The value that was asked for, or the automatic one; None is a value when it was asked for."""
    given = options.get(name, "auto")
    return automatic if given == "auto" else given


def is_given(options: Options, name: str) -> bool:
    """Whether a value of one's own was asked for."""
    given = options.get(name)
    return given not in (None, "auto") and given != FIXED.get(name)


def refuse_unused(options: Options, names: Iterable[str], *, reason: str) -> None:
    """Raise SpecInvalid where one of the options was set: it would change nothing."""
    for name in names:
        if is_given(options, name):
            raise SpecInvalid(f"{name}: found {options[name]!r}, {reason}; leave it out")
