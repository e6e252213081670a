"""Spans in one process, with a collector and without one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from core import tracing
from core.config import Settings
from core.stages.phases import PhaseSpans
from core.tracing.otlp import OtlpTracing
from tests.otlp_collector import Collector, collecting

TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")
CALLER = f"00-{'a' * 32}-{'b' * 16}-"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def traced(collector: Collector) -> Iterator[None]:
    """This process sends spans to the collector."""
    tracing.start(Settings(otlp_endpoint=collector.endpoint, _env_file=None), "unit")
    yield
    tracing.provider().shutdown()
    tracing.start(Settings(_env_file=None), "unit")


def is_sampled(traceparent: str | None) -> bool:
    """The lowest bit of the flags; the next one says that the id is random."""
    return bool(int((traceparent or "0").rpartition("-")[2], 16) & 1)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_share_decides_for_traces_that_begin_here(collector: Collector, ratio: float) -> None:
    settings = Settings(otlp_endpoint=collector.endpoint, otlp_ratio=ratio, _env_file=None)
    made = OtlpTracing(settings, "unit")
    with made.span("begun here", parent=None, since=None, facts={}):
        assert is_sampled(made.traceparent()) == (ratio == 1)
    for asked in ("00", "01"):
        with made.span("from a caller", parent=CALLER + asked, since=None, facts={}):
            assert (made.traceparent() or "").startswith(f"00-{'a' * 32}-")
            assert is_sampled(made.traceparent()) == (asked == "01"), "he has decided"
    made.provider.shutdown()
    wanted = ["begun here"] * (ratio == 1) + ["from a caller"]
    assert sorted(span.name for span in collector.spans) == sorted(wanted)


@pytest.mark.usefixtures("traced")
def test_phases_follow_each_other_inside_the_span_around_them(collector: Collector) -> None:
    phases = PhaseSpans()
    with tracing.span("stage") as stage:
        around = tracing.traceparent()
        with phases:
            for name in ("preparing", "training", "training", "preparing"):
                phases.enter(name)
                assert tracing.traceparent() != around
        assert tracing.traceparent() == around, "none is left open"
        stage.note(steps=3)
    tracing.provider().force_flush()
    named = [span.name for span in collector.spans]
    assert named == ["preparing", "training", "preparing", "stage"]
    *parts, whole = collector.spans
    assert {part.parent_id for part in parts} == {whole.span_id}
    assert whole.facts == {"fewlabels.steps": 3}


@pytest.mark.usefixtures("traced")
def test_what_raises_and_what_is_said_to_have_failed_are_errors(collector: Collector) -> None:
    def stage() -> None:
        with tracing.span("raises"), PhaseSpans() as phases:
            phases.enter("phase")
            raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        stage()
    with tracing.span("said") as span:
        span.fail("the process died")
    tracing.provider().force_flush()
    errors = {span.name: span.error for span in collector.spans}
    assert errors["said"] == "the process died"
    assert "odd" in (errors["raises"] or "")
    assert "odd" in (errors["phase"] or "")


def test_without_a_collector_nothing_is_recorded() -> None:
    tracing.start(Settings(_env_file=None), "unit")
    with tracing.span("nobody sees this", parent=CALLER + "01") as span:
        span.note(fact=1)
        span.fail("nobody hears this")
        assert tracing.traceparent() is None
    assert tracing.provider() is None
    assert tracing.trace_ids(None) == {}


def test_the_id_of_a_trace_is_read_from_its_context() -> None:
    assert TRACEPARENT.fullmatch(CALLER + "01")
    assert tracing.trace_ids(CALLER + "01") == {"trace_id": "a" * 32}
