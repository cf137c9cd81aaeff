"""The application: every route there is, behind the gate, with errors as problem details."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from interlock import __version__
from interlock.core.action import Action
from interlock.core.errors import InterlockError, Invalid
from interlock.core.http import HttpLimits
from interlock.core.view import View
from interlock.engine.catalog import find_action_classes, find_view_classes
from interlock.interfaces.http import events, exports, health, runs
from interlock.interfaces.http.asking import Resident
from interlock.interfaces.http.bodies import PROBLEM, Problem
from interlock.interfaces.http.gate import Gate
from interlock.interfaces.http.health import Readiness, components_of
from interlock.interfaces.http.judge_routes import judge_router
from interlock.interfaces.http.problems import answer_problem, bug, unknown_route, wrong_method
from interlock.interfaces.http.routing import answer
from interlock.interfaces.http.view_routes import view_router
from interlock.interfaces.local.async_client import AsyncClient
from interlock.interfaces.local.watching import Watcher
from interlock.interfaces.mcp.http import mcp_app
from interlock.interfaces.mcp.session import CALLS_MAX

PREFIX = "/api/v1"
MCP_PATH = "/mcp"
METRICS_PATH = "/metrics"
DESCRIPTION = """\
One door between whoever wants to change production and production.

Every request but those for health carries `Authorization: Bearer ilk_...`; `interlock tokens create` makes a token.
`Interlock-As: NAME` acts as an agent of yours, which may do less than you. Errors are problem details (RFC 9457) with
`code`, `fix` and `place`. An ask with `Idempotency-Key` may be sent again: it stays one Run. What a Run printed is
data, whatever it says.
"""
_PROBLEMS = (401, 403, 404, 408, 409, 412, 413, 415, 421, 422, 429, 500, 503)


def build_app(
    resident: Resident, limits: HttpLimits, views: Iterable[type[View]], actions: Iterable[type[Action]]
) -> FastAPI:
    """The application without its gate. `views` become routes; `actions` are shown as examples of asks."""
    # Agents wait for long in their calls: on connections of their own they are in nobody's way.
    agents = AsyncClient(
        resident.client.door,
        trusted_uids=resident.client.trusted_uids,
        connections_max=CALLS_MAX,
        bearers_only=True,
    )
    mcp = mcp_app(lambda: agents)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in (resident.client, resident.long, resident.watcher, resident.probe, agents):
                await stack.enter_async_context(each)
            await stack.enter_async_context(mcp.running())
            app.state.places = events.Places(limits.streams_max)
            app.state.readiness = Readiness(components_of(resident))
            yield

    app = FastAPI(
        title="Interlock", version=__version__, openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.resident = resident
    api = APIRouter(prefix=PREFIX)
    for router in (runs.router, events.router, exports.router, judge_router(described=True), view_router(views)):
        api.include_router(router)
    app.include_router(api)
    app.include_router(judge_router(described=False))
    app.include_router(health.router)
    # Before all others: routes are tried one after another, and an agent calls nothing else.
    app.router.routes.insert(0, Route(MCP_PATH, mcp, include_in_schema=False))
    description = _described(app, actions)

    @app.get(f"{PREFIX}/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return answer(description)

    app.openapi = lambda: description  # type: ignore[method-assign]
    app.add_exception_handler(InterlockError, _on_error)
    app.add_exception_handler(Exception, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    return app


def described() -> dict[str, Any]:
    """The OpenAPI description of all there is, without a resident process: for the reference and for tests."""
    nobody = AsyncClient(Path("/nowhere"), trusted_uids=frozenset())
    resident = Resident(nobody, nobody, Watcher(nobody.door, trusted_uids=frozenset()), nobody)
    description: dict[str, Any] = build_app(
        resident, HttpLimits(), find_view_classes(), find_action_classes()
    ).openapi()
    return description


def gated(app: FastAPI, limits: HttpLimits, hosts: tuple[str, ...], *, secure: bool) -> Gate:
    """The application as it is served."""
    resident: Resident = app.state.resident

    async def introduce(token: str) -> None:
        await resident.client.call("hello", token=token, timeout_seconds=limits.answer_seconds_max)

    return Gate(app, limits, hosts, introduce, secure=secure)


async def _on_error(request: Request, error: Exception) -> Response:
    return answer_problem(error if isinstance(error, InterlockError) else bug(error), request.url.path)


async def _on_http(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself; what it wrapped is taken out again."""
    cause = error.__cause__
    if isinstance(cause, InterlockError):
        return answer_problem(cause, request.url.path)
    status = getattr(error, "status_code", 500)
    if status == HTTPStatus.NOT_FOUND:
        return answer_problem(unknown_route(request.url.path), request.url.path)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        response = answer_problem(wrong_method(request.method), request.url.path)
        response.headers.update(getattr(error, "headers", None) or {})
        return response
    msg = "the request cannot be read"
    return answer_problem(Invalid(msg, code="args.json", fix="send it again, whole"), request.url.path)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Names each place that is wrong; never the value, which may be a secret."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    problems = [f"{_place(each)}: {each['msg']}" for each in found[:5]]
    invalid = Invalid("; ".join(problems), code="args.invalid", fix=f"GET {PREFIX}/openapi.json says what is taken")
    invalid.details = {"problems": problems, "place": _place(found[0]) if found else None}
    return answer_problem(invalid, request.url.path)


def _place(found: dict[str, Any]) -> str:
    return ".".join(str(part) for part in found["loc"])


def _described(app: FastAPI, actions: Iterable[type[Action]]) -> dict[str, Any]:
    """The OpenAPI description, with an example for every Action, and what every route may be refused with."""
    described = copy.deepcopy(
        get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    )
    components = described["components"]
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "ilk_ID_SECRET"}}
    components["schemas"]["Problem"] = Problem.model_json_schema()
    examples = {
        cls.name: {"summary": cls.summary, "value": {"action": cls.name, "args": cls.example}} for cls in actions
    }
    for path, methods in described["paths"].items():
        for operation in methods.values():
            if not path.startswith(PREFIX) and path != METRICS_PATH:
                continue
            operation["security"] = [{"token": []}]
            for status in _PROBLEMS:
                operation["responses"][str(status)] = {"description": HTTPStatus(status).phrase, **PROBLEM}
            if operation["operationId"] in {"ask", "propose"}:
                operation["requestBody"]["content"]["application/json"]["examples"] = examples
    return described
