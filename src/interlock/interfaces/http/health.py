"""Whether this process lives, and whether it can serve: for whoever restarts it, and for whoever sends it work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from interlock.core.errors import InterlockError
from interlock.interfaces.http.asking import Resident
from interlock.interfaces.http.routing import answer

CHECK_SECONDS_MAX = 5.0
KEPT_SECONDS = 30.0
KEPT_SECONDS_UNREADY = 1.0
"""What is broken is looked at again soon: nobody waits half a minute for what works again."""

Check = Callable[[], Awaitable[Mapping[str, object]]]

router = APIRouter(tags=["Health"])


@dataclass(frozen=True)
class Component:
    """One thing that serving needs; `check` returns what to tell of it, or raises."""

    name: str
    check: Check


class Readiness:
    """Looks at all components at once, no more often than it must, and never twice at the same time."""

    def __init__(self, components: tuple[Component, ...]) -> None:
        self._components = components
        self._looking = asyncio.Lock()
        self._found: dict[str, dict[str, object]] = {}
        self._until = 0.0

    async def look(self) -> dict[str, dict[str, object]]:
        """Name -> `{ready, ...}`."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if now >= self._until:
                told = await asyncio.gather(*(self._checked(each) for each in self._components))
                self._found = {each.name: seen for each, seen in zip(self._components, told, strict=True)}
                ready = all(seen["ready"] for seen in told)
                self._until = now + (KEPT_SECONDS if ready else KEPT_SECONDS_UNREADY)
            return self._found

    async def _checked(self, component: Component) -> dict[str, object]:
        try:
            async with asyncio.timeout(CHECK_SECONDS_MAX):
                return {"ready": True, **await component.check()}
        except InterlockError as error:
            return {"ready": False, "code": error.code, "message": error.message, "fix": error.fix}
        except TimeoutError:
            return {"ready": False, "code": "health.slow", "message": f"no answer in {CHECK_SECONDS_MAX:g} s"}


def components_of(resident: Resident) -> tuple[Component, ...]:
    """What serving HTTP needs: the resident process. It looks after database, keys and workers itself."""

    async def hello() -> Mapping[str, object]:
        told: Mapping[str, Any] = await resident.probe.call("hello", timeout_seconds=CHECK_SECONDS_MAX)
        return {"version": told["version"], "started_at": told["started_at"], "warnings": len(told["warnings"])}

    return (Component("resident", hello),)


@router.get("/livez", operation_id="livez", summary="Whether this process lives", include_in_schema=True)
async def livez() -> Response:
    """Depends on nothing but this process."""
    return answer({"alive": True})


@router.get("/readyz", operation_id="readyz", summary="Whether requests can be served")
async def readyz(request: Request) -> Response:
    """200 or 503. Who presents a token that may read `status` is told why."""
    readiness: Readiness = request.app.state.readiness
    found = await readiness.look()
    ready = all(bool(seen["ready"]) for seen in found.values())
    told: dict[str, object] = {"ready": ready}
    if await _may_know(request):
        told["components"] = found
    headers = {"Cache-Control": f"private, max-age={KEPT_SECONDS if ready else 0:.0f}"}
    return answer(told, headers, status=200 if ready else 503)


async def _may_know(request: Request) -> bool:
    token = request.scope.get("interlock.token")
    if token is None:
        return False
    resident: Resident = request.app.state.resident
    try:
        await resident.client.call("view", {"name": "status", "args": {}}, token=token)
    except InterlockError:
        return False
    return True
