"""The settings of each server, and which of them answer most: each is compared at its best."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.serving.servers import CORES, Server, other, ours
from core.config import Settings

Options = dict[str, Any]
Ways = Sequence[tuple[Options, Callable[[], Server]]]
OURS: tuple[Options, ...] = ({"processes": 1}, {"processes": CORES})
FASTAPI: tuple[Options, ...] = ({"workers": 1}, {"workers": CORES})
LITSERVE: tuple[Options, ...] = tuple(
    {"batch": batch, "timeout": 0.0, "workers": workers, "api_servers": servers}
    for batch, workers, servers in ((1, 1, 1), (32, 1, 1), (32, 1, CORES), (32, CORES, CORES))
)


def servers_of(
    settings: Settings, folder: Path, encoder: str, *, model_id: str, each: int
) -> dict[str, Ways]:
    """By name, the settings to try, each with what starts the server so."""
    own = [(one, partial(ours, settings, model_id, each=each, **one)) for one in OURS]
    # LitServe's batches are of requests.
    batches = ({**one, "batch": max(1, int(one["batch"]) // each)} for one in LITSERVE)
    lit = [{**one, "each": each} for one in _once(batches)]
    plain = [{**one, "each": each} for one in FASTAPI]
    return {
        "ours": own,
        "litserve": [(one, partial(other, "litserve", folder, encoder, one)) for one in lit],
        "fastapi": [(one, partial(other, "fastapi", folder, encoder, one)) for one in plain],
    }


def _once(options: Iterable[Options]) -> list[Options]:
    return [json.loads(words) for words in dict.fromkeys(json.dumps(one) for one in options)]


def best(
    name: str,
    tried: Ways,
    images: list[Path],
    *,
    clients: int,
    seconds: float,
    each: int,
) -> tuple[Server, Options]:
    """The server with the settings with which it answers most, started, and these."""
    found: list[tuple[float, int]] = []
    for number, (options, start) in enumerate(tried):
        server = start()
        try:
            server.ready(images, each)
            asked = server.ask(images, clients=clients, seconds=seconds, each=each)
        finally:
            server.end()
        found.append((asked["per_second"], -number))
        print(f"  {name} {options}: {asked['per_second']} images/s", flush=True)
    options, start = tried[-max(found)[1]]
    return start(), options
