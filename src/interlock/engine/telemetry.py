"""Measures what the engine does: its metrics, the parts of its traces, and what each line of the log carries."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType
from typing import Self

from structlog.contextvars import bind_contextvars, clear_contextvars

from interlock.core.errors import InterlockError
from interlock.core.meter import Meter, Metric, Unmetered
from interlock.core.run import Run
from interlock.core.trace import TRACE, Attribute, Span, Trace, Tracer, Untraced, begin_trace, parse_traceparent
from interlock.lib.clock import Clock


class Telemetry:
    """What the parts of the engine tell of themselves, in one place."""

    def __init__(self, clock: Clock, meter: Meter | None = None, tracer: Tracer | None = None) -> None:
        self.clock = clock
        self.meter: Meter = meter if meter is not None else Unmetered()
        self.tracer: Tracer = tracer if tracer is not None else Untraced()

    def nanoseconds(self) -> int:
        """Since 1970."""
        return int(self.clock.now().timestamp() * 1e9)

    def part(self, name: str, metric: Metric | None = None, *labels: str, **attributes: Attribute) -> Part:
        """A `with` around something that takes time; `metric` is a histogram for its seconds."""
        return Part(self, name, metric, labels, attributes)

    def passed(self, name: str, seconds: float, **attributes: Attribute) -> None:
        """Something that took time and is over, without code around it: a wait."""
        trace = TRACE.get()
        if self.tracer.enabled and trace is not None and trace.sampled:
            ended_at = self.nanoseconds()
            self.tracer.finished(Span(name, trace.child(), ended_at - int(seconds * 1e9), ended_at, attributes, None))


class Part:
    """Something that takes time: a value of a histogram and, where somebody wants them, a span.

    Attributes:
        trace: Where it stands, once it was entered with `root`, or while spans are wanted.
        attributes: May be added to until it ends; `labels` may be exchanged.
        error: A code; set by itself where an error leaves it.
    """

    __slots__ = (
        "_began",
        "_began_at",
        "_metric",
        "_name",
        "_telemetry",
        "_token",
        "attributes",
        "error",
        "labels",
        "trace",
    )

    def __init__(
        self,
        telemetry: Telemetry,
        name: str,
        metric: Metric | None,
        labels: tuple[str, ...],
        attributes: dict[str, Attribute],
    ) -> None:
        self._telemetry = telemetry
        self._name = name
        self._metric = metric
        self._began = 0.0
        self._began_at = 0
        self._token: Token[Trace | None] | None = None
        self.labels = labels
        self.attributes = attributes
        self.error: str | None = None
        self.trace: Trace | None = None

    def begin(self) -> Trace:
        """Give it a place in the trace, though nobody may want its span: what it starts belongs to it."""
        if self.trace is None:
            above = TRACE.get()
            self.trace = begin_trace() if above is None else above.child()
            self._token = TRACE.set(self.trace)
        return self.trace

    def __enter__(self) -> Self:
        if self._telemetry.tracer.enabled:
            self._began_at = self._telemetry.nanoseconds()
            self.begin()
        self._began = self._telemetry.clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        telemetry = self._telemetry
        if self._metric is not None:
            telemetry.meter.observe(self._metric, telemetry.clock.monotonic() - self._began, *self.labels)
        if self._token is None or self.trace is None:
            return
        TRACE.reset(self._token)
        if telemetry.tracer.enabled and self.trace.sampled:
            if error is not None:
                self.error = error.code if isinstance(error, InterlockError) else type(error).__name__
            telemetry.tracer.finished(
                Span(self._name, self.trace, self._began_at, telemetry.nanoseconds(), self.attributes, self.error)
            )


def follow(run: Run) -> Trace | None:
    """From here on this task works on a Run: its trace, and what every line of the log carries of it."""
    trace = parse_traceparent(run.traceparent)
    TRACE.set(trace)
    clear_contextvars()
    bind_contextvars(
        trace_id=trace.trace_id if trace is not None else None,
        run_id=run.number,
        actor=run.actor.id,
        action=run.action,
    )
    return trace
