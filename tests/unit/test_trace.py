"""Trace ids as W3C Trace Context writes them, and the spans that the engine tells of."""

from __future__ import annotations

import asyncio
import re

import pytest

from interlock.core.errors import Denied
from interlock.core.meter import Unmetered
from interlock.core.trace import TRACE, Span, Trace, begin_trace, join_trace, parse_traceparent
from interlock.engine.telemetry import Telemetry
from interlock.lib.clock import SystemClock

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Recorder:
    """A tracer that keeps what it is told."""

    enabled = True

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def finished(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        """Nothing."""


def telemetry(recorder: Recorder | None = None) -> Telemetry:
    return Telemetry(SystemClock(), Unmetered(), recorder)


def test_a_traceparent_is_read_and_written_alike() -> None:
    text = f"00-{TRACE_ID}-{SPAN_ID}-01"
    assert parse_traceparent(text) == Trace(TRACE_ID, SPAN_ID)
    assert Trace(TRACE_ID, SPAN_ID).traceparent == text
    unsampled = parse_traceparent(f"00-{TRACE_ID}-{SPAN_ID}-00")
    assert unsampled is not None
    assert not unsampled.sampled
    assert unsampled.child().traceparent.endswith("-00")


@pytest.mark.parametrize("rest", ["", "-what-the-future-brings"])
def test_a_later_version_is_read_as_far_as_it_is_known(rest: str) -> None:
    assert parse_traceparent(f"cc-{TRACE_ID}-{SPAN_ID}-01{rest}") == Trace(TRACE_ID, SPAN_ID)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.more",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID}-{SPAN_ID}-01\n",
        "x" * 100_000,
    ],
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(text: str | None) -> None:
    assert parse_traceparent(text) is None
    found = asyncio.run(_joined(text))
    assert re.fullmatch("[0-9a-f]{32}", found.trace_id)
    assert found.trace_id != TRACE_ID


async def _joined(text: str | None) -> Trace:
    return join_trace(text)


def test_a_trace_begun_here_is_unlike_any_other() -> None:
    assert len({begin_trace().trace_id for _ in range(1000)}) == 1000


def test_parts_lie_within_one_another() -> None:
    recorder = Recorder()
    telemetry_ = telemetry(recorder)
    with telemetry_.part("ask", action="a.b") as ask:
        with telemetry_.part("plan"):
            pass
        telemetry_.passed("queue", 2.0, run=7)
        ask.attributes["run"] = 7
    assert TRACE.get() is None
    plan, queue, whole = recorder.spans
    assert plan.trace.parent_id == queue.trace.parent_id == whole.trace.span_id
    assert {each.trace.trace_id for each in recorder.spans} == {whole.trace.trace_id}
    assert whole.attributes == {"action": "a.b", "run": 7}
    assert whole.started_at <= plan.started_at <= plan.ended_at <= whole.ended_at
    assert queue.ended_at - queue.started_at == 2_000_000_000


def test_a_part_that_an_error_leaves_names_its_code() -> None:
    recorder = Recorder()
    msg = "no"
    with pytest.raises(Denied), telemetry(recorder).part("ask"):
        raise Denied(msg, code="denied.policy")
    assert recorder.spans[0].error == "denied.policy"


def test_what_its_sender_does_not_record_is_not_recorded_here() -> None:
    recorder = Recorder()
    token = TRACE.set(Trace(TRACE_ID, SPAN_ID, sampled=False))
    with telemetry(recorder).part("ask") as ask:
        assert ask.begin().trace_id == TRACE_ID
    TRACE.reset(token)
    assert recorder.spans == []


def test_a_place_in_the_trace_is_there_though_nobody_wants_spans() -> None:
    with telemetry().part("ask") as ask:
        trace = ask.begin()
        assert TRACE.get() == trace
    assert TRACE.get() is None
