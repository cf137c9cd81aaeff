"""Which version answers which users: what is in force at the proxies, and how many requests each version has now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from pydantic import Field, JsonValue

from interlock.core.actor import Actor
from interlock.core.errors import NotFound, Transient
from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import Outside
from interlock.core.project import Project
from interlock.core.traffic import DataPlane, Routing
from interlock.core.view import View
from interlock.core.workload import ServiceWorkload
from interlock.traffic.planes import planes


class TrafficArgs(Frozen):
    """All services, or one."""

    workload: str | None = Field(default=None, max_length=63)


class TrafficView(View):
    """What is in force."""

    name: ClassVar[str] = "traffic"
    summary: ClassVar[str] = "Services: where users come, which share of them each version has, what it answers now."
    Args: ClassVar[type[Frozen]] = TrafficArgs

    def __init__(self, outside: Outside, project: Callable[[], Project]) -> None:
        self._outside = outside
        self._project = project

    async def read(self, actor: Actor, args: TrafficArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound for a workload that is neither declared nor routed."""
        declared = {name for name, each in self._project().workloads.items() if isinstance(each, ServiceWorkload)}
        found = await asyncio.to_thread(self._look, declared if args.workload is None else {args.workload})
        if args.workload is not None and not found:
            msg = f"{args.workload} is neither declared nor routed"
            raise NotFound(msg, code="workload.unknown", fix="interlock traffic")
        shown: list[JsonValue] = [*found]
        return {"traffic": shown}

    def _look(self, names: set[str]) -> list[JsonObject]:
        return [found for name in sorted(names) if (found := self._of(name)) is not None]

    def _of(self, name: str) -> JsonObject | None:
        for proxy, plane in planes(self._outside):
            if (routing := plane.current(name)) is not None:
                return _shown(proxy, plane, routing)
        declared = self._project().workloads.get(name)
        if not isinstance(declared, ServiceWorkload):
            return None
        return {"workload": name, "proxy": declared.traffic.proxy, "listen": declared.traffic.listen, "arms": []}


def _shown(proxy: str, plane: DataPlane, routing: Routing) -> JsonObject:
    arms: list[JsonValue] = [
        {
            "version": arm.name,
            "address": arm.address,
            "share_percent": arm.share / 100,
            "in_flight": _in_flight(plane, routing.workload, arm.name),
        }
        for arm in routing.arms
    ]
    return {
        "workload": routing.workload,
        "proxy": proxy,
        "listen": routing.listen,
        "arms": arms,
        "mirror": routing.mirror.model_dump(mode="json") if routing.mirror is not None else None,
        "salt": routing.salt,
        "sticky": routing.sticky.model_dump(mode="json", exclude_defaults=True),
        "testers": routing.testers,
        "fallback": routing.fallback,
    }


def _in_flight(plane: DataPlane, workload: str, arm: str) -> int | None:
    """None where the proxy does not answer: `status` says why."""
    try:
        return plane.in_flight(workload, arm)
    except Transient:
        return None
