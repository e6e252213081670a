"""What a check has found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from core.config import Settings

Level = Literal["ok", "warning", "failure", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the installation; `remedy` says what to do where it is not as it must be."""

    name: str
    level: Level
    said: str
    remedy: str = ""


Check = Callable[[Settings], Iterator[Finding]]
