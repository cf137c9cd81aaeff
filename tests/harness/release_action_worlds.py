"""Small worlds for the Actions of releases: a release where each order makes sense, which nobody drives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg

from harness.action_worlds import Stage, World, start_version
from interlock.core.model import JsonObject


def _execute(stage: Stage, statement: str) -> None:
    with psycopg.connect(stage.engine.parts.address.owner, autocommit=True) as connection:
        connection.execute(statement.encode(), (stage.word,))


async def _begun(stage: Stage) -> Callable[[], None]:
    """A release that is being prepared; what is returned moves it elsewhere."""
    await stage.succeed("release.start", (await start_version(stage)).args)
    return lambda: _execute(stage, "update releases set state = 'shadow', step = 0, stable = 'v0' where name = %s")


async def _pause(stage: Stage) -> World:
    return World(_order(stage), await _begun(stage))


async def _resume(stage: Stage) -> World:
    moved = await _begun(stage)
    await stage.succeed("release.pause", _order(stage))
    return World(_order(stage), moved)


async def _promote(stage: Stage) -> World:
    (await _begun(stage))()
    elsewhere = "update releases set state = 'canary', step = 1 where name = %s"
    return World(_order(stage), lambda: _execute(stage, elsewhere))


async def _back(stage: Stage) -> World:
    return World(_order(stage), await _begun(stage))


def _order(stage: Stage) -> JsonObject:
    return {"workload": stage.word, "reason": "as told"}


RELEASE_WORLDS: dict[str, tuple[Callable[[Stage], Awaitable[World]], ...]] = {
    "release.abort": (_back,),
    "release.pause": (_pause,),
    "release.promote": (_promote,),
    "release.resume": (_resume,),
    "release.rollback": (_back,),
    "release.start": (start_version,),
}
