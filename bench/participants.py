"""Those who are measured, each in a process of its own that measures when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psycopg

from bench import dbos_peer
from bench.dbos_peer import POLL_SECONDS, RESULT_POLL_SECONDS
from bench.http_client import served
from bench.installation import AGENT, PERSON, SERVICE, SLOTS, NoOperation, ask, ask_and_wait, bench_installation
from bench.mcp_client import agent_client, plain_client
from bench.server import BenchDatabase, BenchServer
from interlock.core.actor import Actor
from interlock.engine.loop import run_loop
from interlock.interfaces.local.client import Connection
from interlock.interfaces.local.server import local_server

CLIENTS = 16
END_SECONDS = 60

BARE_SCHEMA = """
create table job (
    id bigint generated always as identity primary key,
    state text not null default 'queued',
    payload jsonb not null,
    created_at timestamptz not null default now(),
    closed_at timestamptz
);
create index job_queued on job (id) where state = 'queued';
"""
BARE_INSERT = "insert into job (payload) values (%s) returning id"
BARE_CLAIM = """update job set state = 'running' where id = (
    select id from job where state = 'queued' order by id limit 1 for update skip locked) returning id"""
BARE_DONE = "update job set state = 'done', closed_at = now() where id = %s"

# A worker that lives and is warm must leave the backlog alone until it is complete.
HOLD_BACK = """
create function hold_back() returns trigger language plpgsql as
    $$ begin new.due_at := now() + interval '1 day'; return new; end $$;
create trigger hold_back before insert on run for each row execute function hold_back();
"""
LET_GO = "update run set due_at = now() where state = 'queued'"

Turn = Callable[[int], list[float]]
"""Does something so many times; returns what was measured: seconds for each, or one rate."""
DoorTurn = Callable[[int], Awaitable[list[float]]]
"""The same on an event loop."""


@dataclass(frozen=True)
class Place:
    """Where a participant works."""

    owner: str
    app: str
    folder: str

    @property
    def database(self) -> BenchDatabase:
        """The database as a value."""
        return BenchDatabase(self.owner, self.app)


class Participant:
    """A running participant; between its turns it is stopped, so that its timers do not disturb the others."""

    def __init__(self, name: str, server: BenchServer) -> None:
        database = server.database()
        place = Place(database.owner, database.app, str(server.folder / name))
        self.name = name
        self._log = server.folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.participants", name, json.dumps(asdict(place))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def turn(self, count: int) -> list[float]:
        """Let it do something so many times; returns what it measured."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            msg = f"{self.name} ended: {self._log.read_text(encoding='utf-8')[-4000:]}"
            raise RuntimeError(msg)
        self._process.send_signal(signal.SIGSTOP)
        return [float(each) for each in json.loads(answer)]


@contextmanager
def bare(place: Place) -> Iterator[Turn]:
    """Insert, claim, done: three transactions on one connection."""
    with psycopg.connect(place.owner, autocommit=True) as connection:
        connection.execute(BARE_SCHEMA)

        def once() -> None:
            connection.execute(BARE_INSERT, ('{"target": "a"}',))
            claimed = connection.execute(BARE_CLAIM).fetchone()
            assert claimed is not None
            connection.execute(BARE_DONE, claimed)

        yield _one_after_another(once)


@contextmanager
def dbos_direct(place: Place) -> Iterator[Turn]:
    """A workflow called directly."""
    with dbos_peer.launched(place.database, concurrency=SLOTS):
        yield _one_after_another(dbos_peer.workflow)


@contextmanager
def dbos_queue(place: Place) -> Iterator[Turn]:
    """A workflow from the enqueue to its result."""
    with dbos_peer.launched(place.database, concurrency=SLOTS):
        yield _one_after_another(lambda: dbos_peer.enqueue().get_result(polling_interval_sec=RESULT_POLL_SECONDS))


@asynccontextmanager
async def door_fast(place: Place) -> AsyncIterator[DoorTurn]:
    """From the ask to the end, claimed at submit."""
    async with _door(place, SERVICE, fast_path=True) as turn:
        yield turn


@asynccontextmanager
async def door_queue(place: Place) -> AsyncIterator[DoorTurn]:
    """From the ask to the end, through the queue."""
    async with _door(place, SERVICE, fast_path=False) as turn:
        yield turn


@asynccontextmanager
async def door_person(place: Place) -> AsyncIterator[DoorTurn]:
    """A person's confirmed change, claimed at submit."""
    async with _door(place, PERSON, fast_path=True) as turn:
        yield turn


@asynccontextmanager
async def door_socket(place: Place) -> AsyncIterator[DoorTurn]:
    """The same asked by another thread over the local socket, as clients of the resident process do."""
    async with (
        bench_installation(place.database, Path(place.folder), fast_path=True) as installation,
        local_server(installation, os.geteuid()),
    ):
        door = installation.locations.door_socket
        with await asyncio.to_thread(Connection, door, trusted_uids=frozenset({os.geteuid()})) as client:

            def once() -> None:
                ask = {"action": NoOperation.name, "args": {"target": str(time.perf_counter())}, "confirmed": True}
                answer = client.call("submit", {"ask": ask, "wait_seconds": END_SECONDS})
                assert answer["run"]["state"] == "succeeded"

            turn = _one_after_another(once)
            yield lambda count: asyncio.to_thread(turn, count)


@asynccontextmanager
async def door_http(place: Place) -> AsyncIterator[DoorTurn]:
    """The same asked over HTTP: the front is a process of its own, the client another thread."""
    async with (
        bench_installation(place.database, Path(place.folder), fast_path=True) as installation,
        local_server(installation, os.geteuid()),
        served(installation, place.owner) as client,
    ):
        turn = _one_after_another(client.ask)
        yield lambda count: asyncio.to_thread(turn, count)


@asynccontextmanager
async def door_agent(place: Place) -> AsyncIterator[DoorTurn]:
    """An agent's look in process."""
    async with _door(place, AGENT, fast_path=True) as turn:
        yield turn


@asynccontextmanager
async def door_mcp(place: Place) -> AsyncIterator[DoorTurn]:
    """The same over MCP: the front is a process of its own, the client another thread."""
    async with (
        bench_installation(place.database, Path(place.folder), fast_path=True) as installation,
        local_server(installation, os.geteuid()),
        agent_client(installation, place.owner) as client,
    ):
        turn = _one_after_another(client.run)
        yield lambda count: asyncio.to_thread(turn, count)


@contextmanager
def plain_mcp(place: Place) -> Iterator[Turn]:  # noqa: ARG001 - the shape of them all
    """A tool of the SDK's own server that does nothing."""
    with plain_client() as client:
        yield _one_after_another(client.nothing)


@contextmanager
def dbos_drain(place: Place) -> Iterator[Turn]:
    """Workflows per second of one worker that takes on 16 at once, from a backlog that was there when it began."""
    yield _draining(place, SLOTS)


@contextmanager
def dbos_drain_unbounded(place: Place) -> Iterator[Turn]:
    """The same where the worker takes on the whole backlog at once."""
    yield _draining(place, None)


@contextmanager
def dbos_clients(place: Place) -> Iterator[Turn]:
    """Workflows per second of 16 clients that each wait for their result, and one worker."""
    with dbos_peer.launched(place.database, concurrency=SLOTS), ThreadPoolExecutor(CLIENTS) as clients:

        def turn(count: int) -> list[float]:
            began = time.perf_counter()
            list(clients.map(lambda _: dbos_peer.enqueue().get_result(polling_interval_sec=POLL_SECONDS), range(count)))
            return [count / (time.perf_counter() - began)]

        yield turn


@asynccontextmanager
async def door_drain(place: Place) -> AsyncIterator[DoorTurn]:
    """Runs per second of one worker, from a backlog that was there when it began."""
    async with bench_installation(place.database, Path(place.folder), fast_path=False) as installation:
        with psycopg.connect(place.owner, autocommit=True) as owner:
            owner.execute(HOLD_BACK)

            async def turn(count: int) -> list[float]:
                stamp = time.perf_counter()

                async def record(number: int) -> int:
                    return (await ask(installation, SERVICE, f"{stamp}-{number}")).number

                numbers = await _by_clients(record, count)
                owner.execute(LET_GO)
                began = time.perf_counter()
                installation.runner.poke()
                # The last ones first: when they are done nearly all are, and nobody has looked at each of them.
                for number in reversed(numbers):
                    run = await installation.door.wait(number, END_SECONDS)
                    assert run.state == "succeeded"
                    if number == numbers[-SLOTS]:
                        seconds = time.perf_counter() - began
                return [count / seconds]

            yield turn


@asynccontextmanager
async def door_clients(place: Place) -> AsyncIterator[DoorTurn]:
    """Runs per second of 16 clients that each wait for the end, and one worker, through the queue."""
    async with _door_clients(place, fast_path=False) as turn:
        yield turn


@asynccontextmanager
async def door_clients_fast(place: Place) -> AsyncIterator[DoorTurn]:
    """The same where Runs are claimed at submit as long as slots are free."""
    async with _door_clients(place, fast_path=True) as turn:
        yield turn


def _one_after_another(once: Callable[[], object]) -> Turn:
    def seconds(count: int) -> Iterator[float]:
        for _ in range(count):
            began = time.perf_counter()
            once()
            yield time.perf_counter() - began

    return lambda count: list(seconds(count))


@asynccontextmanager
async def _door(place: Place, actor: Actor, *, fast_path: bool) -> AsyncIterator[DoorTurn]:
    async with bench_installation(place.database, Path(place.folder), fast_path=fast_path) as installation:

        async def turn(count: int) -> list[float]:
            times = []
            for number in range(count):
                began = time.perf_counter()
                await ask_and_wait(installation, actor, f"{began}-{number}")
                times.append(time.perf_counter() - began)
            return times

        yield turn


@asynccontextmanager
async def _door_clients(place: Place, *, fast_path: bool) -> AsyncIterator[DoorTurn]:
    async with bench_installation(place.database, Path(place.folder), fast_path=fast_path) as installation:

        async def turn(count: int) -> list[float]:
            began = time.perf_counter()

            async def once(number: int) -> int:
                await ask_and_wait(installation, SERVICE, f"{began}-{number}")
                return number

            await _by_clients(once, count)
            return [count / (time.perf_counter() - began)]

        yield turn


def _draining(place: Place, concurrency: int | None) -> Turn:
    def rate(count: int) -> float:
        with _tables_and_queue(place, concurrency):
            backlog = dbos_peer.Backlog(place.database)
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(backlog.add, range(count)))
        backlog.close()
        with dbos_peer.launched(place.database, concurrency=concurrency):
            return backlog.rate(count)

    return lambda count: [rate(count)]


@contextmanager
def _tables_and_queue(place: Place, concurrency: int | None) -> Iterator[None]:
    """DBOS makes its tables and its queue at launch; then nobody listens while the backlog is made."""
    with dbos_peer.launched(place.database, concurrency=concurrency):
        yield


async def _by_clients(once: Callable[[int], Awaitable[int]], count: int) -> list[int]:
    """Let 16 clients do `count` things together; returns what they returned, in order."""
    numbers = iter(range(count))

    async def client() -> list[int]:
        return [await once(number) for number in numbers]

    found = await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sorted(number for each in found for number in each)


PLAIN = {
    each.__name__: each
    for each in (bare, dbos_direct, dbos_queue, dbos_drain, dbos_drain_unbounded, dbos_clients, plain_mcp)
}
DOORS = {
    each.__name__: each
    for each in (
        door_fast,
        door_queue,
        door_person,
        door_socket,
        door_http,
        door_agent,
        door_mcp,
        door_drain,
        door_clients,
        door_clients_fast,
    )
}


def _serve_plain(name: str, place: Place) -> None:
    """Take turns until nobody asks for one."""
    with PLAIN[name](place) as turn:
        while line := sys.stdin.readline():
            print(json.dumps(turn(int(line))), flush=True)


async def _serve_door(name: str, place: Place) -> None:
    """The same on an event loop, which lives on between the turns."""
    async with DOORS[name](place) as turn:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await turn(int(line))), flush=True)


if __name__ == "__main__":
    _name, _place = sys.argv[1], Place(**json.loads(sys.argv[2]))
    if _name in PLAIN:
        _serve_plain(_name, _place)
    else:
        run_loop(_serve_door(_name, _place))
