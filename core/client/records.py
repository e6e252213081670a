"""What the service tells, as the client hands it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ENDED = frozenset({"succeeded", "failed", "crashed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one file."""

    file: str
    outcome: str
    code: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """What became of an archive; `lines` are the files that were not added."""

    added: int
    duplicates: int
    lines: Sequence[Line]

    @property
    def refused(self) -> Mapping[str, str]:
        """The reasons by the names."""
        return {line.file: str(line.detail) for line in self.lines if line.outcome == "rejected"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """How many labels were set, and the lines that were wrong."""

    labelled: int
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the service tells it."""

    id: str
    stage: str
    state: str
    model_id: str | None
    plan: Mapping[str, Any]
    progress: Mapping[str, Any]
    reason: str | None
    seconds: float | None

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Model:
    """A model; its size is that of the files of its artefact."""

    id: str
    encoder: str
    parameters: int
    byte_count: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest class and its probability, or why there is none."""

    label: str | None
    probability: float
    reason: str | None = None
