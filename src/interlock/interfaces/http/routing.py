"""How a route reads JSON strictly and writes it plainly."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from interlock.core.errors import Invalid


class StrictRequest(Request):
    """Reads JSON in UTF-8 without NaN, infinities and deep nesting; anything else that calls itself a body is none."""

    async def body(self) -> bytes:
        """The whole body. Raises Invalid where it says to be something else than JSON."""
        body = await super().body()
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and media_type != "application/json":
            msg = f"the body is {media_type[:60] or 'of no type'}, and application/json is taken"
            raise Invalid(msg, code="api.media_type", fix="Content-Type: application/json")
        return body

    async def json(self) -> Any:
        """The value. Raises Invalid."""
        try:
            return from_json(await self.body(), allow_inf_nan=False, cache_strings="keys")
        except ValueError as error:
            msg = f"the body is not JSON in UTF-8: {str(error)[:200]}"
            raise Invalid(msg, code="args.json", details={"place": "body"}) from error


class JsonRoute(APIRoute):
    """A route whose requests are read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, with our own reader of bodies."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def answer(data: Mapping[str, object], headers: Mapping[str, str] | None = None, *, status: int = 200) -> Response:
    """JSON."""
    body = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
    return Response(body, status, dict(headers or {}), "application/json")
