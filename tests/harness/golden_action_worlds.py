"""Small worlds for the Actions of golden samples: a service that runs, and answers what a person holds to be right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from harness.action_worlds import Stage, World, stop_version
from interlock.core.model import JsonObject

NAME = "price-of-7"


async def _accept(stage: Stage) -> World:
    """The version that is asked becomes another one."""
    world = await stop_version(stage)
    return World({**_args(stage), "path": "/items/7", "reason": "as told", "version": "v1"}, world.disturb)


async def _accepted(stage: Stage) -> JsonObject:
    args = (await _accept(stage)).args
    await stage.succeed("golden.accept", args)
    return args


async def _check(stage: Stage) -> World:
    await _accepted(stage)
    return World({"workload": stage.word, "version": "v1"}, _accepted_by_other_hands(stage))


async def _remove(stage: Stage) -> World:
    await _accepted(stage)
    return World(_args(stage), _accepted_by_other_hands(stage))


def _accepted_by_other_hands(stage: Stage) -> Callable[[], None]:
    path = stage.golden_folder / f"{NAME}.json"

    def accept() -> None:
        path.write_text(path.read_text().replace("as told", "as told by others"))

    return accept


def _args(stage: Stage) -> JsonObject:
    return {"workload": stage.word, "name": NAME}


GOLDEN_WORLDS: dict[str, tuple[Callable[[Stage], Awaitable[World]], ...]] = {
    "golden.accept": (_accept,),
    "golden.check": (_check,),
    "golden.remove": (_remove,),
}
