"""What became of the files of an upload, as it is told to whoever sent them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

Outcome = Literal["added", "duplicate", "rejected", "unlabelled"]
# A report of a hundred thousand lines is read in pages, not in one answer.
SHOWN_LINES = 1_000


@dataclass(frozen=True, slots=True)
class ReportLine:
    """What became of one file; `code` and `detail` say why it was not added."""

    file: str
    outcome: Outcome
    code: str | None = None
    detail: str | None = None
    image_id: UUID | None = None


@dataclass(slots=True)
class IngestReport:
    """The counts of one upload, and the first of the files that were not added."""

    import_id: UUID
    added: int = 0
    duplicates: int = 0
    rejected: int = 0
    labelled: int = 0
    unlabelled: int = 0
    lines: list[ReportLine] = field(default_factory=list)

    @property
    def files(self) -> int:
        """How many files have come so far."""
        return self.added + self.duplicates + self.rejected

    @property
    def more_lines(self) -> int:
        """How many files that were not added, or not labelled, `lines` has no room for."""
        return self.duplicates + self.rejected + self.unlabelled - len(self.lines)

    def take(self, lines: Iterable[ReportLine]) -> None:
        """Count lines that are recorded."""
        for line in lines:
            self.added += line.outcome == "added"
            self.duplicates += line.outcome == "duplicate"
            self.rejected += line.outcome == "rejected"
            self.unlabelled += line.outcome == "unlabelled"
            if line.outcome != "added" and len(self.lines) < SHOWN_LINES:
                self.lines.append(line)
