"""Sends the parts of traces to a collector by OTLP over HTTP, from a thread of its own that holds nobody up."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from interlock.core.trace import Span

log = structlog.get_logger()

QUEUE_MAX = 2048
BATCH_MAX = 256
EVERY_SECONDS = 1.0
SEND_SECONDS_MAX = 5.0
CLOSE_SECONDS_MAX = 3.0

Told = Callable[[str, int], None]
"""Called with `sent`, `dropped` or `failed` and of how many spans that is true; from any thread."""


class OtlpTracer:
    """A queue of bounded length; what does not fit is dropped and counted, what cannot be sent is given up.

    Args:
        endpoint: The collector's base address.
        service_name: What it calls us.
        version: Of this program.
        told: Hears of what became of spans.
    """

    enabled = True

    def __init__(self, endpoint: str, service_name: str, version: str, told: Told) -> None:
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_SECONDS_MAX)
        # Not `Resource.create`, which reads the environment.
        self._resource = Resource({"service.name": service_name, "service.version": version})
        self._scope = InstrumentationScope("interlock", version)
        self._told = told
        self._sends = True
        # It writes a line of its own about each attempt that failed; here one tells of it, and a counter.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._queue: deque[Span] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._send_forever, name="otlp", daemon=True)
        self._thread.start()

    def finished(self, span: Span) -> None:
        """As `Tracer.finished`."""
        with self._lock:
            full = len(self._queue) >= QUEUE_MAX
            if not full:
                self._queue.append(span)
            enough = len(self._queue) >= BATCH_MAX
        if full:
            self._told("dropped", 1)
        if enough:
            self._wake.set()

    def close(self) -> None:
        """Send what is left, as far as `CLOSE_SECONDS_MAX` reaches."""
        self._closed.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS_MAX)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _send_forever(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()
            while batch := self._taken():
                self._send(batch)

    def _taken(self) -> list[Span]:
        with self._lock:
            return [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]

    def _send(self, batch: list[Span]) -> None:
        try:
            sent = self._exporter.export([self._readable(span) for span in batch]) is SpanExportResult.SUCCESS
        except Exception:
            # Whatever a foreign exporter raises is no business of a Run.
            log.exception("trace.export_bug")
            sent = False
        self._told("sent" if sent else "failed", len(batch))
        if sent is not self._sends:
            self._sends = sent
            log.warning("trace.sent_again" if sent else "trace.not_sent", spans=len(batch))

    def _readable(self, span: Span) -> ReadableSpan:
        def context(span_id: str) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(int(span.trace.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)

        return ReadableSpan(
            name=span.name,
            context=context(span.trace.span_id),
            parent=context(span.trace.parent_id) if span.trace.parent_id is not None else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.OK) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.started_at,
            end_time=span.ended_at,
            instrumentation_scope=self._scope,
        )
