"""The learning rate rises, falls, and does not jump."""

from __future__ import annotations

import json

import pytest

from core.learning.optimizers import learning_rate_factor
from core.learning.schedule import Schedule


def test_a_known_length_is_warm_up_and_cosine() -> None:
    schedule = Schedule(warmup=10)
    for step in range(100):
        expected = learning_rate_factor(step, steps=100, warmup_steps=10)
        assert schedule.factor(step, 100) == pytest.approx(expected)


def test_before_the_length_is_known_nothing_decays() -> None:
    schedule = Schedule(warmup=4)
    assert [schedule.factor(step, None) for step in range(6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    )


@pytest.mark.parametrize(("step", "warmup"), [(5, 5), (20, 4), (5, 15)])
def test_a_warm_up_that_fits_stays(step: int, warmup: int) -> None:
    schedule = Schedule(warmup)
    schedule.length_known(step, 100)
    assert schedule == Schedule(warmup)


def test_a_short_run_rises_from_where_it_is_within_a_tenth() -> None:
    schedule = Schedule(warmup=500)
    before = [schedule.factor(step, None) for step in range(20)]
    schedule.length_known(20, 200)
    after = [schedule.factor(step, 200) for step in range(20, 200)]
    assert before[-1] == pytest.approx(20 / 501)
    rises = [later - earlier for earlier, later in zip([before[-1], *after], after, strict=False)]
    assert max(rises) < 0.05
    assert after.index(max(after)) == 20
    assert max(after) == pytest.approx(1.0)
    assert after[-1] < 1e-3


def test_it_goes_on_from_its_state() -> None:
    schedule = Schedule(warmup=500)
    schedule.length_known(20, 200)
    again = Schedule.of(json.loads(json.dumps(schedule.state())), warmup=500)
    assert again == schedule
    assert Schedule.of({}, warmup=7) == Schedule(warmup=7)
