"""Whether this process lives, and whether it can serve: for whoever restarts it, and for whoever sends it work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from interlock.core.errors import InterlockError
from interlock.interfaces.http.asking import Asker, Resident
from interlock.interfaces.http.routing import answer

CHECK_SECONDS_MAX = 2.0
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
    """What serving HTTP needs: the resident process, which looks after database, keys and workers itself."""

    async def health() -> Mapping[str, object]:
        told: Mapping[str, Any] = await resident.probe.call("health", timeout_seconds=CHECK_SECONDS_MAX)
        # What is merely to be looked at by somebody keeps nobody's requests away.
        return {"ready": told["status"] != "fail", "status": told["status"], "components": told["components"]}

    return (Component("resident", health),)


@router.get("/livez", operation_id="livez", summary="Whether this process lives", include_in_schema=True)
async def livez() -> Response:
    """Depends on nothing but this process."""
    return answer({"alive": True})


@router.get("/readyz", operation_id="readyz", summary="Whether requests can be served")
async def readyz(request: Request) -> Response:
    """200 or 503. Who presents a token that may read `health` is told why."""
    readiness: Readiness = request.app.state.readiness
    found = await readiness.look()
    ready = all(bool(seen["ready"]) for seen in found.values())
    told: dict[str, object] = {"ready": ready}
    if await _may_know(request):
        told["components"] = found
    headers = {"Cache-Control": f"private, max-age={KEPT_SECONDS if ready else 0:.0f}"}
    return answer(told, headers, status=200 if ready else 503)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="The metrics of the resident process",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(asking: Asker) -> Response:
    """For Prometheus, with a token that may read `metrics`: `interlock tokens create --scope view:metrics`."""
    data = await asking.view("metrics")
    return Response(str(data["text"]), media_type=str(data["content_type"]))


async def _may_know(request: Request) -> bool:
    token = request.scope.get("interlock.token")
    if token is None:
        return False
    resident: Resident = request.app.state.resident
    try:
        await resident.client.call("view", {"name": "health", "args": {}}, token=token)
    except InterlockError:
        return False
    return True
