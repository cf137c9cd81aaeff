"""Workers that are killed around the commit of a guarded database: each write happens once, each undo too."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.databases import database
from harness.engine import SERVICE, Engine, open_engine, write_project
from harness.guarded_database import GuardedServer, Shop, shop
from harness.nursery import Nursery, is_alive
from interlock.core.ask import Ask
from interlock.core.run import Run, RunState

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

WRITES = ("write:before", "intend:before", "intend:after", "write:after", "leave:before")
UNDOS = ("put_back:before", "intend:after", "put_back:after")
COUNTERS = """
create table counters (id int primary key, n int not null);
insert into counters select n, 0 from generate_series(1, 10) n;
grant select, update on counters to writer;
"""


@pytest.fixture
def counters(guarded_postgres: GuardedServer) -> Iterator[Shop]:
    with shop(guarded_postgres, COUNTERS) as found:
        yield found


async def test_a_write_happens_once_and_is_taken_back_once_wherever_its_worker_dies(
    postgres_endpoint: Any, short_folder: Path, counters: Shop
) -> None:
    with database(postgres_endpoint) as (_, owner, app):
        locations = write_project(short_folder, databases={"shop": counters.declaration()})
        places = ("project_file", "state_folder", "runtime_folder")
        config = {name: str(getattr(locations, name)) for name in places}
        async with open_engine(app, owner, locations, work=False, fast=False) as engine:
            nursery = Nursery({**config, "app": app, "owner": owner, "asks": []}, short_folder / "workers.log")
            try:
                await _each_once(engine, nursery, counters)
            finally:
                nursery.close()


async def _each_once(engine: Engine, nursery: Nursery, counters: Shop) -> None:
    for number, boundary in enumerate(WRITES, 1):
        args = {"database": "shop", "sql": "update counters set n = n + 1 where id = $1", "parameters": [number]}
        await _killed_at(boundary, Ask(action="sql.write", args=args, confirmed=True), engine, nursery)
    nursery.worker()
    runs = [await _rest(engine, number) for number in range(1, len(WRITES) + 1)]
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * len(WRITES), [run.state_reason for run in runs]
    counts = [row[0] for row in counters.execute("select n from counters order by id")]
    assert counts == [1] * len(WRITES) + [0] * (10 - len(WRITES))
    for pid in nursery.alive():
        os.kill(pid, signal.SIGKILL)
    for number, boundary in enumerate(UNDOS, 1):
        await _killed_at(boundary, Ask(action="interlock.undo", args={"run": number}, confirmed=True), engine, nursery)
    nursery.worker()
    undone = [await _rest(engine, len(WRITES) + number) for number in range(1, len(UNDOS) + 1)]
    assert [run.state for run in undone] == [RunState.SUCCEEDED] * len(UNDOS), [run.state_reason for run in undone]
    counts = [row[0] for row in counters.execute("select n from counters order by id limit 5")]
    assert counts == [0, 0, 0, 1, 1]
    assert (await engine.verify()).intact


async def _killed_at(boundary: str, ask: Ask, engine: Engine, nursery: Nursery) -> None:
    """A Run whose worker dies there."""
    pid = nursery.worker(f"{boundary}:1:SIGKILL")
    run = await engine.door.submit(SERVICE, ask)
    assert isinstance(run, Run)
    end = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < end, f"nobody came to {boundary}"
        await asyncio.sleep(0.02)


async def _rest(engine: Engine, number: int) -> Run:
    return await engine.rest(number, 40)
