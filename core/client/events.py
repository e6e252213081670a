"""Server-Sent Events as the service sends them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a job: `state`, `progress` or `end`; the id is what to go on behind."""

    kind: str
    id: str
    data: Mapping[str, Any]


def told_in(lines: Iterable[str]) -> Iterator[Told]:
    """The events in the lines of a stream; comments and half an event at the end are none."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "event" in fields and "data" in fields:
            yield Told(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
        fields = {}
