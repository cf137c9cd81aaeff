"""Claim: what `sql.read` takes beyond the bare query is at most 1.5 times what the door takes for nothing at all."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import yaml
from psycopg.conninfo import conninfo_to_dict

from bench.installation import AGENT, ask_and_wait, bench_installation
from bench.measure import Result, Rounds, figure
from bench.report import run
from bench.server import BenchDatabase, bench_server
from interlock.bootstrap import Installation
from interlock.core.ask import Ask
from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.loop import run_loop

OVERHEAD_MAX = 1.5
COUNT = 30
WARM_UP_TURNS = 4
QUERY = "select id, state, total from orders where customer = $1 order by id limit 20"
SCHEMA = """
create table orders (id int primary key, customer int, state text, total numeric(12,2));
insert into orders select n, n % 500, 'open', n * 1.25 from generate_series(1, 20000) n;
create index orders_customer on orders (customer);
analyze orders;
"""


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """p50 of a query by itself, of the same through the door, and of an agent's look at nothing, in one process."""
    with bench_server() as server:
        records, guarded = server.database(), server.database()
        _fill(guarded)
        seen = run_loop(_turns(server.folder, records, guarded, 6 if quick else 24))
    overhead = tuple((each["sql_read"] - each["bare_query"]) / each["door_agent"] for each in seen)
    medians = {name: statistics.median(each[name] for each in seen) for name in seen[0]}
    claim = "(sql.read - bare query) / door that does nothing, p50"
    return [
        Result(claim, "x", overhead, OVERHEAD_MAX, "at most", medians),
        *(figure(f"p50 of {name}", "ms", [each[name] for each in seen]) for name in seen[0]),
    ]


async def _turns(folder: Path, records: BenchDatabase, guarded: BenchDatabase, rounds: int) -> Rounds:
    further = _declared(guarded)
    async with bench_installation(records, folder / "sql", fast_path=True, further_project=further) as installation:
        with psycopg.connect(guarded.app, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:

            async def bare(number: int) -> None:
                connection.execute(QUERY.encode(), (number,)).fetchall()

            async def read(number: int) -> None:
                args: JsonObject = {"database": "shop", "sql": QUERY, "parameters": [number]}
                await _ask(installation, Ask(action="sql.read", args=args))

            async def nothing(number: int) -> None:
                await ask_and_wait(installation, AGENT, f"t{number}-{next(fresh)}")  # its key: each is a Run of its own

            fresh = count()
            turns = {"bare_query": bare, "sql_read": read, "door_agent": nothing}
            for work in turns.values():
                for _ in range(WARM_UP_TURNS):
                    await _p50_ms(work)
            return [{name: await _p50_ms(work) for name, work in turns.items()} for _ in range(rounds)]


async def _p50_ms(work: Callable[[int], Awaitable[None]]) -> float:
    taken = []
    for number in range(COUNT):
        begun = time.perf_counter()
        await work(number)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


async def _ask(installation: Installation, ask: Ask) -> None:
    run = await installation.door.submit(AGENT, ask)
    assert isinstance(run, Run)
    ended = await installation.door.wait(run.number, 60)
    assert ended.state == "succeeded", ended.state_reason


def _declared(guarded: BenchDatabase) -> str:
    """The part of interlock.yaml that declares the database."""
    place = conninfo_to_dict(guarded.app)
    url = f"postgresql:///{place['dbname']}?host={quote(str(place['host']), safe='/')}&port={place['port']}"
    return yaml.safe_dump({"databases": {"shop": {"url": url, "read_user": place["user"]}}})


def _fill(guarded: BenchDatabase) -> None:
    user = str(conninfo_to_dict(guarded.app)["user"])
    with psycopg.connect(guarded.owner) as connection:
        connection.execute(SCHEMA.encode())
        connection.execute(f"grant select on orders to {user}".encode())


if __name__ == "__main__":
    sys.exit(run((measure,)))
