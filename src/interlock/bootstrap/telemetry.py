"""Opens what counts and what traces, as interlock.yaml has it."""

from __future__ import annotations

from interlock import __version__
from interlock.adapters.prometheus import PrometheusMeter
from interlock.core.errors import Invalid
from interlock.core.meter import Meter
from interlock.core.project import Project
from interlock.core.trace import Tracer, Untraced
from interlock.engine.catalog import Catalog
from interlock.engine.metrics import INFO, METRICS, SPANS
from interlock.engine.telemetry import Telemetry
from interlock.lib.clock import Clock


def open_telemetry(project: Project, catalog: Catalog, clock: Clock) -> Telemetry:
    """Every series that is known by now stands at zero. Raises Invalid when traces are wanted and cannot be sent."""
    meter = PrometheusMeter(METRICS)
    meter.know("action", catalog.names)
    meter.know("version", (__version__,))
    meter.set(INFO, 1, __version__)
    tracer: Tracer = Untraced()
    if project.telemetry.otlp_endpoint is not None:
        tracer = _tracer(project.telemetry.otlp_endpoint, project.telemetry.service_name, meter)
    return Telemetry(clock, meter, tracer)


def _tracer(endpoint: str, service_name: str, meter: Meter) -> Tracer:
    try:
        from interlock.adapters.otlp import OtlpTracer  # noqa: PLC0415 - its packages are an extra
    except ModuleNotFoundError as error:
        msg = f"telemetry.otlp_endpoint is set, and the packages that send traces are not installed: {error.name}"
        fix = "pip install 'interlock[telemetry]'; or take otlp_endpoint out of interlock.yaml"
        raise Invalid(msg, code="telemetry.extra", fix=fix) from error
    return OtlpTracer(endpoint, service_name, __version__, lambda end, count: meter.count(SPANS, end, by=count))
