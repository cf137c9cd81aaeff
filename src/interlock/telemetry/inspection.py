"""What `check` finds about telemetry."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.engine.inspection import finding


def inspect_telemetry(project: Project) -> Iterator[JsonObject]:
    """Whether traces that are wanted can be sent."""
    if project.telemetry.otlp_endpoint is None:
        return
    if importlib.util.find_spec("opentelemetry") is None:
        message = "telemetry.otlp_endpoint is set, and the packages that send traces are not installed"
        yield finding("error", "telemetry", message, "pip install 'interlock[telemetry]'")
    else:
        yield finding("ok", "telemetry", f"traces go to {project.telemetry.otlp_endpoint}")
