"""What can be read about services: which versions run, since when, from which files, and how they fare."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Literal

from pydantic import Field

from interlock.core.actor import Actor
from interlock.core.errors import InterlockError, NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import Outside
from interlock.core.plan import Discloses
from interlock.core.service_instance import STANDING, ServiceInstance
from interlock.core.service_runtime import SERVICE_RUNTIMES, InstanceState
from interlock.core.view import View
from interlock.lib.clock import rfc3339
from interlock.lib.redact import Redactor
from interlock.services.last_words import LINES_MAX, last_lines
from interlock.services.store import InstanceStore


class ServicesArgs(Frozen):
    """All services, or one `workload`; `state`: the versions that stand, or all that are known."""

    workload: str | None = Field(default=None, max_length=100, pattern=r"^[^\x00]*$")
    state: Literal["standing", "all"] = "standing"


class ServicesView(View):
    """Versions and how they fare."""

    name: ClassVar[str] = "services"
    summary: ClassVar[str] = "Versions of services: which run, from which files, on which port, and how they fare."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = ServicesArgs

    def __init__(self, store: InstanceStore, outside: Outside) -> None:
        self._store = store
        self._outside = outside

    async def read(self, actor: Actor, args: ServicesArgs) -> JsonObject:  # noqa: ARG002
        """From the table, and for those that stand from what runs them."""
        found = await (self._store.all() if args.workload is None else self._store.of(args.workload))
        shown = [each for each in found if args.state == "all" or each.stage in STANDING]
        states = await asyncio.to_thread(lambda: [self._state(each) for each in shown])
        return {"services": [_shown(each, state) for each, state in zip(shown, states, strict=True)]}

    def _state(self, instance: ServiceInstance) -> InstanceState | str | None:
        """What its runtime says, or in words why that says nothing."""
        if instance.stage not in STANDING:
            return None
        try:
            return self._outside[SERVICE_RUNTIMES[instance.spec.runtime]].state(instance.spec)
        except InterlockError as error:
            return error.message


class ServiceLogArgs(Frozen):
    """One version, and how many `lines` of the end of its log."""

    workload: str = Field(max_length=100, pattern=r"^[^\x00]*$")
    version: str = Field(max_length=100, pattern=r"^[^\x00]*$")
    lines: int = Field(default=100, ge=1, le=LINES_MAX)


class ServiceLogView(View):
    """What a version says."""

    name: ClassVar[str] = "service_log"
    summary: ClassVar[str] = "The end of what a version of a service wrote to its log, without secrets."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = ServiceLogArgs

    def __init__(self, store: InstanceStore, outside: Outside, redactor: Redactor) -> None:
        self._store = store
        self._outside = outside
        self._redactor = redactor

    async def read(self, actor: Actor, args: ServiceLogArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound for a version that was never started, and what its runtime raises."""
        found = await self._store.find(args.workload, args.version)
        if found is None:
            msg = f"{args.workload} {args.version} was never started here, or that was long ago"
            raise NotFound(msg, code="service.unknown", fix="interlock service list --all")
        runtime = self._outside[SERVICE_RUNTIMES[found.spec.runtime]]
        text = await asyncio.to_thread(runtime.said, found.spec, LINES_MAX)
        lines = last_lines(text, self._redactor, args.lines)
        return {"workload": args.workload, "version": args.version, "stage": found.stage, "lines": [*lines]}


def _shown(instance: ServiceInstance, state: InstanceState | str | None) -> JsonObject:
    spec = instance.spec
    live: JsonObject = {"phase": None, "pid": None, "restarts": None, "last_exit": None, "log": None, "trouble": None}
    if isinstance(state, InstanceState):
        live |= {name: getattr(state, name) for name in ("phase", "pid", "restarts", "last_exit", "log")}
    elif state is not None:
        live["trouble"] = state
    return {
        "workload": spec.workload,
        "version": spec.version,
        "identity": spec.identity,
        "runtime": spec.runtime,
        "stage": instance.stage,
        "address": instance.address,
        "source": spec.source,
        "run": instance.run,
        "release": instance.release,
        "reason": instance.reason,
        "started_at": rfc3339(instance.started_at),
        "healthy_at": rfc3339(instance.healthy_at) if instance.healthy_at is not None else None,
        "stopped_at": rfc3339(instance.stopped_at) if instance.stopped_at is not None else None,
        **live,
    }
