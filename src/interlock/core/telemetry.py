"""What a project declares about where its traces go."""

from __future__ import annotations

from pydantic import Field

from interlock.core.model import Frozen


class TelemetryDeclaration(Frozen):
    """Traces, sent by OTLP over HTTP. Without `otlp_endpoint` nothing is sent; trace ids are followed all the same.

    `otlp_endpoint` is the base address of a collector, for example `http://127.0.0.1:4318`; spans go to `/v1/traces`
    below it. It is read when `serve` starts and needs the extra `interlock[telemetry]`.
    """

    otlp_endpoint: str | None = Field(default=None, max_length=500, pattern=r"^https?://[^\s@]+$")
    service_name: str = Field(default="interlock", min_length=1, max_length=100)
