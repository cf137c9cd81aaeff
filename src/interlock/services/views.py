"""What can be read about services: which versions run, since when, from which files, and how they fare."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Literal

from pydantic import Field

from interlock.core.actor import Actor
from interlock.core.errors import InterlockError
from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import Outside
from interlock.core.plan import Discloses
from interlock.core.service_instance import STANDING, ServiceInstance
from interlock.core.service_runtime import SERVICE_RUNTIMES, InstanceState
from interlock.core.view import View
from interlock.lib.clock import rfc3339
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
