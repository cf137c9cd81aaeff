"""Metrics and health, as anybody with the right may read them."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from interlock.core.actor import Actor
from interlock.core.meter import Meter
from interlock.core.model import Frozen, JsonObject
from interlock.core.view import View
from interlock.engine.views import Nothing
from interlock.telemetry.gauges import Gauges
from interlock.telemetry.health import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsView(View):
    """The metrics of this process."""

    name: ClassVar[str] = "metrics"
    summary: ClassVar[str] = "Every metric of the resident process, in the text format of Prometheus."
    Args: ClassVar[type[Frozen]] = Nothing

    def __init__(self, gauges: Gauges, meter: Meter) -> None:
        self._gauges = gauges
        self._meter = meter

    async def read(self, actor: Actor, args: Nothing) -> JsonObject:  # noqa: ARG002
        """`content_type` and `text`."""
        await self._gauges.refresh()
        return {"content_type": CONTENT_TYPE, "text": await asyncio.to_thread(self._meter.exposition)}


class HealthView(View):
    """The components of this process."""

    name: ClassVar[str] = "health"
    summary: ClassVar[str] = "Whether each component is sound, what is wrong with it, and what mends it."
    Args: ClassVar[type[Frozen]] = Nothing

    def __init__(self, health: Health) -> None:
        self.health = health

    async def read(self, actor: Actor, args: Nothing) -> JsonObject:  # noqa: ARG002
        """`status`, and `components` by name; at most 30 s old."""
        return await self.health.look()
