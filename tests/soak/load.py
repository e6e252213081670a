"""The load: twice what the service can do, with callers that leave and aliases that move."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray

from tests.soak.moves import FOLLOWED_SECONDS, Moves
from tests.soak.requests import PICTURES, Expected, Order, an_order, fault_of, made
from tests.soak.service import Service

ALIAS = "soaked"
HUNG_SECONDS = 60.0
CLIENTS = 16
OVERLOAD = 2.0
SWAP_SECONDS = 2.0
SAMPLE_SECONDS = 1.0
LEAVING_SHARE = 0.05
LONGEST_STAY = 0.3
SHOWN = 20
MB = 2**20


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def growth_mb(self) -> float:
        """By how much the last quarter of the samples is above the second, in MB."""
        quarter = max(1, len(self.resident) // 4)
        early = self.resident[quarter : 2 * quarter] or self.resident
        return (statistics.median(self.resident[-quarter:]) - statistics.median(early)) / MB


class Load:
    """Everything that is sent to one service."""

    def __init__(self, service: Service, client: httpx2.AsyncClient, seed: int) -> None:
        self._service = service
        self._client = client
        self._chance = random.Random(seed)
        self._expected: dict[str, Expected] = {}
        self._moves = Moves()
        self.tally = Tally()

    async def learn(self) -> None:
        """Ask every model for every picture alone, while nothing else is asked."""
        for model in self._service.models:
            vectors, probabilities = [], []
            for picture in PICTURES:
                embedded = await self._alone(made("json", model, [picture], [0], {}))
                vectors.append(embedded["embedding"])
                predicted = await self._alone(made("predict", model, [picture], [0], {}))
                scores = {one["label"]: one["probability"] for one in predicted["predictions"]}
                probabilities.append([scores[name] for name in sorted(scores)])
            self._expected[model] = Expected(np.array(vectors), np.array(probabilities))

    def followed_within(self) -> float:
        """Seconds after a move until no request was answered by the model before any more."""
        return self._moves.latest

    def told_apart(self) -> float:
        """How far the most similar two answers of all models and pictures lie apart."""
        answers = list(self._expected.values())
        vectors = np.concatenate([one.vectors for one in answers])
        classes = np.concatenate([one.probabilities for one in answers])
        return min(_least_distance(vectors), _least_distance(classes))

    async def capacity(self, seconds: float) -> float:
        """Requests a second with as many callers as keep it busy, after as long to warm up."""
        await self._point_to(self._service.models[0])
        begins = time.monotonic() + seconds  # every size of a batch has a first time
        ends = begins + seconds
        done = 0

        async def ask() -> None:
            nonlocal done
            while (now := time.monotonic()) < ends:
                await self._send(self._order())
                done += begins <= now

        await asyncio.gather(*(ask() for _ in range(CLIENTS)))
        return done / seconds

    async def run(self, *, rate: float, seconds: float, tell: Callable[[str], None]) -> None:
        """Send so many requests a second for so long, and wait for what is under way."""
        ends = time.monotonic() + seconds
        beside = [asyncio.create_task(self._swap()), asyncio.create_task(self._watch(tell))]
        under_way: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        # By the clock, too: a machine that cannot send so much would fall behind for ever.
        while max(due, time.monotonic()) < ends:
            due += self._chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            leaves = self._chance.random() < LEAVING_SHARE
            stay = self._chance.uniform(0, LONGEST_STAY) if leaves else None
            task = asyncio.create_task(self._one(self._order(), stay))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way:
            await asyncio.wait(under_way)
        for task in beside:
            task.cancel()
        for outcome in await asyncio.gather(*beside, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                self.tally.faults.append(f"a task beside the load ended: {outcome!r}")

    def _order(self) -> Order:
        return an_order(self._chance, alias=ALIAS, rare=self._service.models[-1])

    async def _alone(self, order: Order) -> dict[str, Any]:
        answer = (await self._send(order)).raise_for_status()
        return answer.json()["items"][0]  # type: ignore[no-any-return]

    async def _send(self, order: Order) -> httpx2.Response:
        return await self._client.post(order.path, **order.arguments)

    async def _one(self, order: Order, stay: float | None) -> None:
        outcomes, faults = self.tally.outcomes, self.tally.faults
        sent_at = time.monotonic()
        try:
            async with asyncio.timeout(HUNG_SECONDS if stay is None else stay):
                answer = await self._send(order)
        except TimeoutError:
            outcomes["hung" if stay is None else "left"] += 1
            return
        except httpx2.HTTPError as error:
            outcomes["broken"] += 1
            faults.append(f"{order.path}: {error!r}")
            return
        outcomes[str(answer.status_code)] += 1
        if (fault := fault_of(order, answer, self._expected)) is not None:
            faults.append(fault)
        elif answer.status_code == 200 and order.model == ALIAS:
            model = answer.headers["x-fewlabels-model"]
            if (late := self._moves.late(model, sent_at=sent_at)) > FOLLOWED_SECONDS:
                faults.append(f"{order.path}: the alias had moved {late:.2f} s before")

    async def _swap(self) -> None:
        while True:
            for model in self._service.models[:-1]:
                await self._point_to(model)
                await asyncio.sleep(SWAP_SECONDS)

    async def _point_to(self, model: str) -> None:
        path = f"/aliases/{ALIAS}"
        with self._moves.move(model):
            (await self._client.put(path, json={"model_id": model})).raise_for_status()

    async def _watch(self, tell: Callable[[str], None]) -> None:
        while True:
            self.tally.resident.append(self._service.resident())
            if len(self.tally.resident) % 10 == 0:
                counts = dict(sorted(self.tally.outcomes.items()))
                tell(f"{counts}, {self.tally.resident[-1] / MB:.0f} MB")
            await asyncio.sleep(SAMPLE_SECONDS)


def _least_distance(rows: NDArray[np.float64]) -> float:
    distances = np.abs(rows[:, None] - rows[None]).max(axis=-1)
    return float(distances[~np.eye(len(rows), dtype=bool)].min())
