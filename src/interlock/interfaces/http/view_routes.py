"""A route for every View there is, with its arguments as typed query parameters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, get_args, get_origin

from fastapi import APIRouter, Query
from pydantic import BaseModel, Json
from starlette.responses import Response

from interlock.core.model import Frozen, JsonObject
from interlock.core.view import View
from interlock.interfaces.http.asking import Asker
from interlock.interfaces.http.bodies import DataAnswer
from interlock.interfaces.http.routing import JsonRoute, answer

SHORT = ("pending", "status", "actions", "freezes")
"""Views that are asked for so often that they have a short path as well."""


def view_router(views: Iterable[type[View]]) -> APIRouter:
    """`GET /views/NAME` for each."""
    router = APIRouter(route_class=JsonRoute, tags=["Views"])
    for cls in views:
        paths = [f"/views/{cls.name}", *([f"/{cls.name}"] if cls.name in SHORT else [])]
        for path in paths:
            word = cls.name.replace(".", "_")
            router.add_api_route(
                path,
                _reader(cls),
                operation_id=f"view_{word}" if path.startswith("/views/") else f"get_{word}",
                summary=cls.summary.rstrip("."),
                description=f"{cls.summary} Discloses at worst: {cls.discloses}.",
                responses={200: {"model": DataAnswer}},
            )
    return router


def _reader(cls: type[View]) -> Callable[..., Awaitable[Response]]:
    if all(_fits_query(field.annotation) for field in cls.Args.model_fields.values()):

        async def read(asking: Asker, args: Annotated[Any, Query()]) -> Response:
            return answer({"data": await asking.view(cls.name, _given(args))})

        read.__annotations__["args"] = Annotated[cls.Args, Query()]
        return read

    async def read_json(asking: Asker, args: Annotated[Json[JsonObject], Query()] = None) -> Response:  # type: ignore[assignment]
        return answer({"data": await asking.view(cls.name, dict(args or {}))})

    return read_json


def _given(args: Frozen) -> dict[str, object]:
    """What was given, as JSON; the resident process checks it again, strictly."""
    return args.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _fits_query(annotation: Any) -> bool:
    """Whether a query parameter can hold it: a scalar, or several of them."""
    if get_origin(annotation) in {list, tuple, set, frozenset}:
        return all(_fits_query(each) for each in get_args(annotation) if each is not ...)
    parts = get_args(annotation) or (annotation,)
    whole = (part for part in parts if isinstance(part, type))
    return not any(issubclass(part, BaseModel | dict) for part in whole) and not any(
        get_origin(part) is dict for part in parts
    )
