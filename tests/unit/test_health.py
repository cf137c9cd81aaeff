"""Health is looked at seldom, by one at a time, all components at once, and none of them for long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from interlock.core.errors import Transient
from interlock.core.meter import Unmetered
from interlock.interfaces.http import health as http_health
from interlock.interfaces.http.health import Component, Readiness
from interlock.telemetry import health as telemetry_health
from interlock.telemetry.health import KEPT_SECONDS, KEPT_SECONDS_UNSOUND, Check, Health, Seen


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


def counting(grade: telemetry_health.Grade, looks: list[str], name: str) -> Check:
    async def check() -> Seen:
        looks.append(name)
        return Seen(grade, name)

    return check


async def test_all_who_ask_within_half_a_minute_get_one_look() -> None:
    clock, looks = HandClock(), list[str]()
    health = Health({"a": counting("ok", looks, "a"), "b": counting("ok", looks, "b")}, Unmetered(), clock)
    told = await asyncio.gather(*(health.look() for _ in range(20)))
    assert {str(each["status"]) for each in told} == {"ok"}
    clock.seconds += KEPT_SECONDS - 1
    await health.look()
    assert sorted(looks) == ["a", "b"]
    clock.seconds += 2
    await health.look()
    assert len(looks) == 4


async def test_what_is_broken_is_looked_at_again_soon_and_the_worst_is_told() -> None:
    clock, looks = HandClock(), list[str]()
    checks = {"a": counting("warn", looks, "a"), "b": counting("fail", looks, "b"), "c": counting("ok", looks, "c")}
    health = Health(checks, Unmetered(), clock)
    assert (await health.look())["status"] == "fail"
    clock.seconds += KEPT_SECONDS_UNSOUND
    await health.look()
    assert len(looks) == 6
    del checks["b"]
    clock.seconds += KEPT_SECONDS_UNSOUND
    assert (await health.look())["status"] == "warn"


async def test_who_does_not_answer_holds_up_nobody() -> None:
    async def hang() -> Seen:
        await asyncio.Event().wait()
        return Seen("ok", "never")

    async def broken() -> Seen:
        msg = "away"
        raise Transient(msg, code="database.unreachable", fix="start it")

    looks = list[str]()
    health = Health(
        {"hangs": hang, "also": hang, "a": counting("ok", looks, "a"), "b": broken}, Unmetered(), HandClock()
    )
    begun = asyncio.get_running_loop().time()
    told = await health.look()
    assert asyncio.get_running_loop().time() - begun < 1.9 * telemetry_health.CHECK_SECONDS_MAX
    assert told["components"]["hangs"]["status"] == "fail"  # type: ignore[index, call-overload]
    assert told["components"]["a"]["status"] == "ok"  # type: ignore[index, call-overload]
    assert told["components"]["b"] == {"status": "fail", "message": "away", "fix": "start it"}  # type: ignore[index, call-overload]


async def test_a_resident_process_that_is_not_sound_makes_the_front_unready() -> None:
    sound = {"ready": False, "status": "fail"}

    async def check() -> dict[str, object]:
        return dict(sound)

    readiness = Readiness((Component("resident", check),))
    assert (await readiness.look())["resident"]["ready"] is False
    assert http_health.KEPT_SECONDS == KEPT_SECONDS == 30
    sound.update(ready=True, status="warn")
    await asyncio.sleep(http_health.KEPT_SECONDS_UNREADY)
    assert (await readiness.look())["resident"]["ready"] is True
