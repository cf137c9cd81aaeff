"""Claim: after 1,000,000 Runs an ask costs at most 1.3 times, and every list twice, what it did at first."""

from __future__ import annotations

import asyncio
import base64
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psycopg

from bench.finished_runs import fill
from bench.http_client import HttpClient, served
from bench.installation import PERSON, SERVICE, SLOTS, ask_and_wait, bench_installation
from bench.measure import Result, Rounds, ratio
from bench.report import run
from bench.server import BenchDatabase, BenchServer, bench_server
from interlock.bootstrap import Installation
from interlock.core.model import Frozen, JsonObject
from interlock.engine.store import Caps
from interlock.interfaces.local.server import local_server

RUNS, RUNS_QUICK = 1_000_000, 100_000
RUNS_YOUNG = 1_000
"""Nearly empty: as many as fill one page of every list, so that both databases show the same number of rows."""
PAGE = 50
PAGE_MS = 50
TURN = 10
ASKS = 30
SEALED_AT_ONCE = 20
CAPS = Caps(per_actor=SLOTS, per_action={})
OWNER = "nobody:0:bench"
NICENESS = 10
"""Filling takes minutes, and others may use the machine."""

Once = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Aged:
    """An installation with its finished Runs, numbered up to `last`."""

    installation: Installation
    client: HttpClient
    last: int

    def lists(self) -> Iterator[tuple[str, Once]]:
        """Every View there is that can be read without a name, and the list of Runs with each of its filters."""
        for name, view in sorted(self.installation.views.views.items()):
            arguments = _arguments(view.Args, self.last // 2)
            if arguments is not None and name != "runs":
                yield name, self._read(name, arguments)
        for title, filters in _filters(self.last).items():
            yield f"runs, {title}", self._read("runs", filters)

    def statements(self) -> Iterator[tuple[str, Once]]:
        """What the queue, the sealer and the timers do without anybody asking."""
        store, reconcilers = self.installation.store, self.installation.reconcilers
        look = {"open_max": 10_000, "denied_minutes": 60, "take_number": False}
        yield "look before an ask", lambda: store.look(SERVICE.id, "no-such-key", "0" * 64, **look)
        yield "claim of an empty queue", lambda: store.claim(OWNER, CAPS)
        yield "look for lost leases", lambda: store.take_over(OWNER, [], held=[], abandoned=[])
        yield "owners", store.owners
        yield "expire", reconcilers.expire
        yield "retain", reconcilers.retain

    async def seal(self) -> float:
        """Milliseconds to seal what some Runs left, when the timer did not come before."""
        for _ in range(TURN):
            await self.installation.reconcilers.seal()
            for number in range(SEALED_AT_ONCE):
                await ask_and_wait(self.installation, SERVICE, f"{time.perf_counter()}-{number}")
            began = time.perf_counter()
            rows = await self.installation.reconcilers.seal()
            if rows > SEALED_AT_ONCE:
                return (time.perf_counter() - began) * 1000
        msg = "others sealed each time"
        raise RuntimeError(msg)

    async def ask(self) -> float:
        """Milliseconds from the ask to the end of a Run that does nothing."""
        return await _milliseconds(lambda: ask_and_wait(self.installation, PERSON, str(time.perf_counter())), ASKS)

    async def page(self, query: str) -> float:
        """Milliseconds of a page over HTTP."""
        found = []
        milliseconds = await _milliseconds(
            lambda: asyncio.to_thread(lambda: found.append(self.client.page(f"/api/v1/runs?limit={PAGE}{query}"))), TURN
        )
        assert set(found) == {PAGE}, found
        return milliseconds

    def _read(self, name: str, arguments: JsonObject) -> Once:
        views = self.installation.views
        parsed = views.views[name].Args.model_validate(arguments, strict=False)
        return lambda: views.read(PERSON, name, parsed)


def _filters(last: int) -> dict[str, JsonObject]:
    """Rare kinds lie spread over all that happened; the last two never meet."""
    middle = last // 2
    return {
        "newest": {},
        "before the middle": {"before": middle},
        "nearly the oldest": {"before": PAGE + 2},
        "open": {"state": "open"},
        "succeeded": {"state": "succeeded"},
        "succeeded before the middle": {"state": "succeeded", "before": middle},
        "rare state": {"state": "undone"},
        "action": {"action": "bench.action3"},
        "rare action": {"action": "bench.rare"},
        "unknown action": {"action": "no.such"},
        "actor": {"actor": "service:ci"},
        "rare actor": {"actor": "person:rare"},
        "rare actor before the middle": {"actor": "person:rare", "before": middle},
        "actor and state": {"actor": "agent:claude", "state": "failed"},
        "action and state": {"action": "bench.action3", "state": "expired"},
        "actor and action": {"actor": "service:ci", "action": "bench.action3"},
        "all three": {"actor": "service:ci", "action": "bench.action2", "state": "denied"},
        "actor and action that never meet": {"actor": "service:ci", "action": "bench.action8"},
        "actor and state that never meet": {"actor": "agent:claude", "state": "cancelled"},
    }


def _arguments(shape: type[Frozen], number: int) -> JsonObject | None:
    """What a View is read with; None for one that wants a name."""
    if "run" in shape.model_fields:
        return {"run": number}
    return None if any(field.is_required() for field in shape.model_fields.values()) else {}


async def _milliseconds(once: Once, count: int) -> float:
    """The median of so many."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await once()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


@asynccontextmanager
async def _aged(server: BenchServer, name: str, runs: int) -> AsyncIterator[Aged]:
    """A database with so many finished Runs, and the product on it as it ships."""
    database, folder = server.database(), server.folder / name
    async with bench_installation(database, folder, fast_path=True) as installation:
        await ask_and_wait(installation, PERSON, "copied")
        key = installation.key
    began = time.perf_counter()
    last = await asyncio.to_thread(fill, database.owner, runs, key, niceness=NICENESS)
    print(f"{runs:,} finished Runs in {_size(database)} took {time.perf_counter() - began:.0f} s", flush=True)
    async with (
        bench_installation(database, folder, fast_path=True) as installation,
        local_server(installation, os.geteuid()),
        served(installation, database.owner) as client,
    ):
        yield Aged(installation, client, last)


def _size(database: BenchDatabase) -> str:
    with psycopg.connect(database.owner) as connection:
        row = connection.execute("select pg_size_pretty(pg_database_size(current_database()))").fetchone()
    assert row is not None
    return str(row[0])


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """p50 of everything that reads a list, beside a database that holds one page of each, on one server."""
    with bench_server() as server:
        return asyncio.run(_measure(server, quick))


async def _measure(server: BenchServer, quick: bool) -> list[Result]:  # noqa: FBT001
    async with AsyncExitStack() as stack:
        young = await stack.enter_async_context(_aged(server, "young", RUNS_YOUNG))
        old = await stack.enter_async_context(_aged(server, "old", RUNS_QUICK if quick else RUNS))
        rounds = 6 if quick else 15

        async def beside(measured: Callable[[Aged], Awaitable[float]]) -> Rounds:
            pair = {"young": young, "old": old}
            for each in pair.values():
                await measured(each)
            seen: Rounds = []
            for number in range(rounds):
                names = list(pair) if number % 2 else list(reversed(pair))
                seen.append({name: await measured(pair[name]) for name in names})
            return seen

        results = [
            ratio("an ask to its end, with history / without", await beside(Aged.ask), "old", "young", limit=1.3)
        ]
        results.append(ratio("sealing the same few Runs", await beside(Aged.seal), "old", "young", limit=2))
        for title in [title for title, _ in old.lists()]:
            seen = await beside(lambda aged, t=title: _milliseconds(dict(aged.lists())[t], TURN))
            results.append(ratio(f"view {title}", seen, "old", "young", limit=2))
        for title in [title for title, _ in old.statements()]:
            seen = await beside(lambda aged, t=title: _milliseconds(dict(aged.statements())[t], TURN))
            results.append(ratio(title, seen, "old", "young", limit=2))
        for title, query in _pages(old.last).items():
            values = tuple([await old.page(query) for _ in range(rounds)])
            results.append(Result(f"API page of {PAGE}, {title}", "ms", values, PAGE_MS))
        return results


def _pages(last: int) -> dict[str, str]:
    cursor = base64.urlsafe_b64encode(f"before:{last // 2}".encode()).decode().rstrip("=")
    return {"newest": "", "from the middle": f"&cursor={cursor}", "of a rare actor": "&actor=person:rare"}


if __name__ == "__main__":
    sys.exit(run((measure,)))
