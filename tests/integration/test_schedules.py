"""Schedules on a real database, with a clock that the test turns: each instant is asked for once, none in silence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from harness.engine import ALICE, Engine
from interlock.core.ask import Ask
from interlock.core.run import Run
from interlock.schedules.arrangements import ScheduleArrangements
from interlock.schedules.scheduler import Scheduler
from interlock.schedules.store import ScheduleStore
from interlock.schedules.views import ScheduleDesk, SchedulesView

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
HOURLY = {"cron": "0 * * * *", "as": "nightly", "action": "test.steps"}


class TurnedClock:
    """A wall clock that stands still until it is turned."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def turn(self, **by: float) -> None:
        self.moment += timedelta(**by)


class Stage:
    """An engine whose schedules follow the turned clock. The engine's own timers are off."""

    def __init__(self, engine: Engine, clock: TurnedClock | None = None) -> None:
        self.engine, self.clock = engine, clock or TurnedClock(MIDNIGHT)
        self.store = ScheduleStore(engine.database)
        self.scheduler = Scheduler(
            self.store,
            engine.store,
            engine.door,
            engine.parts.project,
            self.clock,
        )

    def declare(self, **schedules: dict[str, Any]) -> None:
        """Put schedules in force; each writes its name into the journal unless it says otherwise."""
        file = self.engine.parts.locations.project_file
        body = yaml.safe_load(file.read_text())
        body["services"] = {"nightly": {"roles": ["operator"]}, "guest": {"roles": ["viewer"]}}
        args = {"journal": str(self.engine.journal)}
        body["schedules"] = {name: {**HOURLY, "args": args, **schedule} for name, schedule in schedules.items()}
        file.write_text(yaml.safe_dump(body))
        parts = self.engine.parts
        parts.project.reload(parts.catalog, parts.book)

    async def look(self, **turned: float) -> None:
        """Turn the clock, look twice (the second time sees what became of the Runs of the first), and let Runs end."""
        self.clock.turn(**turned)
        await self.scheduler.tick()
        await self.settle()
        await self.scheduler.tick()

    async def settle(self) -> None:
        for row in await self.engine.query("select number from run where state in ('queued', 'running')"):
            await self.engine.rest(row["number"])

    async def instants(self, name: str = "hourly") -> list[tuple[str, str, int]]:
        rows = await self.engine.query(
            "select instant, state, count from schedule_instant where schedule = %s order by instant", name
        )
        return [(f"{row['instant'].astimezone(UTC):%d %H:%M}", row["state"], row["count"]) for row in rows]

    async def events(self) -> list[str]:
        rows = await self.engine.query("select kind from event where kind like 'schedule.%%' order by id")
        return [row["kind"] for row in rows]

    async def runs(self) -> list[dict[str, Any]]:
        return await self.engine.query("select number, state, key, actor_id from run where key is not null order by 1")

    def troubles(self) -> list[str]:
        return [error.code for error in self.scheduler.troubles]

    async def do(self, action: str, **args: Any) -> Run:
        """An action as alice, on the turned clock's side: arrangements write its time."""
        run = await self.engine.door.submit(ALICE, Ask(action=action, args=args, confirmed=True))
        assert isinstance(run, Run)
        return await self.engine.rest(run.number)

    def arrange(self) -> ScheduleArrangements:
        return ScheduleArrangements(self.store, self.clock)

    async def view(self, name: str | None = None) -> dict[str, Any]:
        desk = ScheduleDesk(self.store, self.engine.parts.project, self.clock)
        return await SchedulesView(desk).read(ALICE, SchedulesView.Args(name=name))


@pytest.fixture
def stage(engine: Engine) -> Stage:
    return Stage(engine)


async def test_each_instant_is_asked_for_once_as_its_service(stage: Stage) -> None:
    stage.declare(hourly={})
    await stage.look()
    assert await stage.runs() == []
    await stage.look(minutes=59, seconds=59)
    assert await stage.runs() == []
    for _ in range(3):
        await stage.look(seconds=1)
    await stage.look(hours=1)
    runs = await stage.runs()
    assert [(run["key"], run["actor_id"], run["state"]) for run in runs] == [
        ("schedule:hourly:2026-11-20T01:00:00.000000Z", "service:nightly", "succeeded"),
        ("schedule:hourly:2026-11-20T02:00:00.000000Z", "service:nightly", "succeeded"),
    ]
    assert await stage.instants() == [("20 01:00", "succeeded", 1), ("20 02:00", "succeeded", 1)]
    assert stage.troubles() == []
    assert await stage.events() == []
