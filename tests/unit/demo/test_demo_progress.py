"""Progress of jobs in words."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from core.client import Job
from core.demo.progress import Bars, Lines, clock, job_display, time_text

QUEUED = Job("1", "pretrain", "queued", None, {}, {}, None, None)
STEP = {"phase": "training", "step": 400, "steps": 1500, "loss": 4.21, "seconds_left": 61.0}
RUNNING = replace(QUEUED, state="running", progress=STEP)
DONE = replace(RUNNING, state="succeeded", seconds=72.4)


def lines(pause: float) -> tuple[Lines, io.StringIO]:
    text = io.StringIO()
    return Lines(Console(file=text, width=200), pause_seconds=pause), text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_time_is_told_by_state() -> None:
    assert time_text(QUEUED) == "waits for the worker"
    assert time_text(replace(QUEUED, state="running")) == "starting"
    assert time_text(RUNNING) == "1:01 left"
    assert time_text(replace(RUNNING, progress={**STEP, "step": 1500})) == "measuring and storing"
    assert time_text(DONE) == "done in 1:12"


def test_lines_are_few() -> None:
    display, text = lines(pause=1000)
    display.show({"pretrain": RUNNING, "scratch": QUEUED})
    for _ in range(5):
        display.show({"pretrain": DONE, "scratch": RUNNING})
    assert text.getvalue() == "  pretrain: 400/1,500, loss 4.210, 1:01 left\n"
    for _ in range(2):
        display.show({"pretrain": DONE, "scratch": DONE})
    assert text.getvalue().splitlines()[1:] == [
        "  pretrain: done in 1:12; scratch: done in 1:12",
    ]


def test_a_line_that_says_nothing_new_is_not_printed() -> None:
    display, text = lines(pause=0)
    for _ in range(3):
        display.show({"pretrain": RUNNING})
    assert len(text.getvalue().splitlines()) == 1


def test_bars_on_a_terminal_only() -> None:
    text = io.StringIO()
    terminal = Console(file=text, width=100, force_terminal=True)
    assert isinstance(job_display(Console(file=io.StringIO())), Lines)
    display = job_display(terminal)
    assert isinstance(display, Bars)
    with display:
        display.show({"pretrain": RUNNING, "scratch": QUEUED})
    assert "400/1,500" in text.getvalue()
    assert "loss 4.210" in text.getvalue()
    assert "waits for the worker" in text.getvalue()
