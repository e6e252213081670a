"""Attempts are counted by how they ended; a job that ends by itself has lost no lease."""

from __future__ import annotations

import pytest

from worker.child import CANCELLED, LOST
from worker.metrics import REGISTRY, note_end


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("code", "reason", "outcome", "lost"),
    [
        (0, "", "completed", 0),
        (0, LOST, "completed", 0),  # the keeper was quicker than the watch
        (3, LOST, LOST, 1),
        (-9, LOST, LOST, 1),
        (3, CANCELLED, CANCELLED, 0),
        (-11, "", "died", 0),
    ],
)
def test_how_attempts_end(code: int, reason: str, outcome: str, lost: int) -> None:
    attempts, leases = "fewlabels_worker_attempts_total", "fewlabels_worker_leases_lost_total"
    before = value(attempts, outcome=outcome), value(leases)
    note_end(code, reason, lost=reason == LOST)
    assert value(attempts, outcome=outcome) == before[0] + 1
    assert value(leases) == before[1] + lost
