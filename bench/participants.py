"""Those who are measured, each in a process of its own: `python -m bench.participants NAME JSON` prints one number."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from bench import dbos_peer
from bench.installation import PERSON, SERVICE, SLOTS, ask, ask_and_wait, bench_installation
from bench.server import BenchDatabase

CLIENTS = 16
WARM_UP = 60
PARTICIPANT_SECONDS = 300

BARE_SCHEMA = """
create table if not exists job (
    id bigint generated always as identity primary key,
    state text not null default 'queued',
    payload jsonb not null,
    created_at timestamptz not null default now(),
    closed_at timestamptz
);
create index if not exists job_queued on job (id) where state = 'queued';
"""
BARE_INSERT = "insert into job (payload) values (%s) returning id"
BARE_CLAIM = """update job set state = 'running' where id = (
    select id from job where state = 'queued' order by id limit 1 for update skip locked) returning id"""
BARE_DONE = "update job set state = 'done', closed_at = now() where id = %s"


@dataclass(frozen=True)
class Order:
    """What a participant is asked for: which database, how many, where it may write."""

    owner: str
    app: str
    folder: str
    count: int

    @property
    def database(self) -> BenchDatabase:
        """The database as a value."""
        return BenchDatabase(self.owner, self.app)


def participate(name: str, database: BenchDatabase, folder: Path, count: int) -> float:
    """Start the participant in a process of its own, and return the number it prints."""
    order = Order(database.owner, database.app, str(folder), count)
    done = subprocess.run(
        [sys.executable, "-m", "bench.participants", name, json.dumps(asdict(order))],
        capture_output=True,
        text=True,
        timeout=PARTICIPANT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        msg = f"{name} failed: {done.stderr[-4000:]}"
        raise RuntimeError(msg)
    return float(done.stdout.split()[-1])


def bare(order: Order) -> float:
    """p50 ms of insert, claim, done: three transactions on one connection."""
    with psycopg.connect(order.owner, autocommit=True) as connection:
        connection.execute(BARE_SCHEMA)

        def once() -> None:
            connection.execute(BARE_INSERT, ('{"target": "a"}',))
            claimed = connection.execute(BARE_CLAIM).fetchone()
            assert claimed is not None
            connection.execute(BARE_DONE, claimed)

        return _p50_ms(once, order.count)


def dbos_direct(order: Order) -> float:
    """p50 ms of a workflow called directly."""
    with dbos_peer.launched(order.database, concurrency=SLOTS):
        return _p50_ms(dbos_peer.workflow, order.count)


def dbos_queue(order: Order) -> float:
    """p50 ms of a workflow from the enqueue to its result."""
    with dbos_peer.launched(order.database, concurrency=SLOTS):
        return _p50_ms(lambda: dbos_peer.enqueue().get_result(), order.count)


def door_fast(order: Order) -> float:
    """p50 ms from the ask to the end, claimed at submit."""
    return asyncio.run(_door_p50(order, fast_path=True, person=False))


def door_queue(order: Order) -> float:
    """p50 ms from the ask to the end, through the queue."""
    return asyncio.run(_door_p50(order, fast_path=False, person=False))


def door_person(order: Order) -> float:
    """p50 ms of a person's confirmed change, claimed at submit."""
    return asyncio.run(_door_p50(order, fast_path=True, person=True))


def dbos_drain(order: Order) -> float:
    """Workflows per second of one worker that takes on 16 at once, from a backlog that was there when it began."""
    return _dbos_drain(order, SLOTS)


def dbos_drain_unbounded(order: Order) -> float:
    """The same where the worker takes on the whole backlog at once."""
    return _dbos_drain(order, None)


def dbos_clients(order: Order) -> float:
    """Workflows per second of 16 clients that each wait for their result, and one worker."""
    with dbos_peer.launched(order.database, concurrency=SLOTS), ThreadPoolExecutor(CLIENTS) as clients:

        def once(_: int) -> None:
            dbos_peer.enqueue().get_result()

        list(clients.map(once, range(CLIENTS)))
        began = time.perf_counter()
        list(clients.map(once, range(order.count)))
        return order.count / (time.perf_counter() - began)


def door_drain(order: Order) -> float:
    """Runs per second of one worker, from a backlog that was there when it began."""
    return asyncio.run(_door_drain(order))


def door_clients(order: Order) -> float:
    """Runs per second of 16 clients that each wait for the end, and one worker, through the queue."""
    return asyncio.run(_door_clients(order, fast_path=False))


def door_clients_fast(order: Order) -> float:
    """The same where Runs are claimed at submit as long as slots are free."""
    return asyncio.run(_door_clients(order, fast_path=True))


def _dbos_drain(order: Order, concurrency: int | None) -> float:
    with dbos_peer.launched(order.database, concurrency=concurrency):
        """Makes the tables and the queue; then nobody listens."""
    backlog = dbos_peer.Backlog(order.database)
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(backlog.add, range(order.count)))
    backlog.close()
    with dbos_peer.launched(order.database, concurrency=concurrency):
        return backlog.rate(order.count)


async def _door_p50(order: Order, *, fast_path: bool, person: bool) -> float:
    actor = PERSON if person else SERVICE
    async with bench_installation(order.database, Path(order.folder), fast_path=fast_path) as installation:
        times = []
        for number in range(WARM_UP + order.count):
            began = time.perf_counter()
            await ask_and_wait(installation, actor, f"{began}-{number}")
            times.append(time.perf_counter() - began)
        return statistics.median(times[WARM_UP:]) * 1000


async def _door_drain(order: Order) -> float:
    async with bench_installation(order.database, Path(order.folder), fast_path=False, work=False) as installation:
        runner = installation.runner
        stamp = time.perf_counter()

        async def record(number: int) -> int:
            return (await ask(installation, SERVICE, f"{stamp}-{number}")).number

        numbers = await _by_clients(record, order.count)
        began = time.perf_counter()
        await runner.start()
        await asyncio.gather(*(installation.door.wait(number, 60) for number in numbers[-SLOTS:]))
        ended = time.perf_counter()
        left = [number for number in numbers if not (await installation.store.by_number(number)).state.is_final]
        assert not left, f"{len(left)} of {order.count} are not done"
        await runner.stop()
        return order.count / (ended - began)


async def _door_clients(order: Order, *, fast_path: bool) -> float:
    async with bench_installation(order.database, Path(order.folder), fast_path=fast_path) as installation:
        stamp = time.perf_counter()

        async def once(number: int) -> int:
            await ask_and_wait(installation, SERVICE, f"{stamp}-{number}")
            return number

        await _by_clients(once, CLIENTS * 4)
        stamp = began = time.perf_counter()
        await _by_clients(once, order.count)
        return order.count / (time.perf_counter() - began)


async def _by_clients(once: Callable[[int], Awaitable[int]], count: int) -> list[int]:
    """Let 16 clients do `count` things together; returns what they returned, in order."""
    numbers = iter(range(count))
    found: list[int] = []

    async def client() -> None:
        for number in numbers:
            found.append(await once(number))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sorted(found)


def _p50_ms(once: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(WARM_UP + count):
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:]) * 1000


PARTICIPANTS: dict[str, Callable[[Order], float]] = {
    each.__name__: each
    for each in (
        bare,
        dbos_direct,
        dbos_queue,
        dbos_drain,
        dbos_drain_unbounded,
        dbos_clients,
        door_fast,
        door_queue,
        door_person,
        door_drain,
        door_clients,
        door_clients_fast,
    )
}

if __name__ == "__main__":
    print(PARTICIPANTS[sys.argv[1]](Order(**json.loads(sys.argv[2]))))
