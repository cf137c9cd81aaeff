"""Replays recorded Runs under another policy set: read by the resident process, decided by processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from interlock.core.errors import Conflict, Invalid, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.engine.cancellation import cancel_all
from interlock.engine.policy.load import PolicySet
from interlock.engine.policy.replay import Known, ReplayReport, known_of
from interlock.engine.replay_store import DecisionPage, ReplayStore

PROCESSES_MAX = 8
PAGE_SECONDS_MAX = 120.0
"""How long one page may take; at thousands of policies a Run takes some milliseconds."""

ANSWER_BYTES_MAX = 64 * 1024 * 1024
TELL_SECONDS = 0.5
DAYS_MAX = 36_500

_PROGRAM = "interlock.bootstrap.replay_process"
_AGO = re.compile(r"([0-9]{1,6})([dh])")

Tell = Callable[[int, int], Awaitable[None]]
"""Called with how many Runs were looked at, of how many."""


class Period(NamedTuple):
    """[since, until), both with their zone."""

    since: datetime
    until: datetime


def period_of(since: str, until: str | None, now: datetime) -> Period:
    """What `--since` and `--until` mean: `30d`, `12h`, a date, or a moment; what names no zone is UTC.

    Raises:
        Invalid: it is none of these, or nothing lies between the two.
    """
    begin, end = _moment(since, now), now if until is None else _moment(until, now)
    if begin >= end:
        msg = f"nothing lies between {begin.isoformat()} and {end.isoformat()}"
        raise Invalid(msg, code="replay.period", fix="give an earlier --since or a later --until")
    return Period(begin, end)


def _moment(text: str, now: datetime) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        hours = int(ago[1]) * (24 if ago[2] == "d" else 1)
        return now - timedelta(hours=min(hours, DAYS_MAX * 24))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{text[:40]!r} is neither a time ago nor a date"
        raise Invalid(msg, code="replay.period", fix="write 30d, 12h, 2026-03-01 or 2026-03-01T08:00Z") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Replays:
    """One replay at a time, in processes that have neither database nor keys.

    Args:
        store: Where the recorded decisions are.
        action_names: The catalogue's names, which the policies may name.
    """

    def __init__(self, store: ReplayStore, action_names: Callable[[], tuple[str, ...]]) -> None:
        self._store = store
        self._action_names = action_names
        self._busy = False

    async def replay(self, proposed: PolicySet, in_force: PolicySet, period: Period, tell: Tell) -> JsonObject:
        """Decide all Runs of the period by `proposed`: what `ReplayReport.to_json` gives, with the period.

        Raises:
            Conflict: another replay is under way.
            Transient, Permanent: a process ended before it had answered.
        """
        if self._busy:
            msg = "another replay is under way, and takes the processors"
            raise Conflict(msg, code="replay.busy", fix="wait until it has ended")
        self._busy = True
        try:
            report = await self._replay(proposed, known_of(in_force), period, tell)
        finally:
            self._busy = False
        told: JsonObject = {"since": period.since.isoformat(), "until": period.until.isoformat()}
        return {**told, "policy_set": proposed.digest, "in_force": in_force.digest, **report.to_json()}

    async def _replay(self, proposed: PolicySet, known: Known, period: Period, tell: Tell) -> ReplayReport:
        report = ReplayReport()
        total, first, last = await self._store.count(period.since, period.until)
        if not total:
            return report
        header = _header(self._action_names(), proposed, known)
        workers = min(PROCESSES_MAX, os.cpu_count() or 1)
        pages: asyncio.Queue[DecisionPage | None] = asyncio.Queue(maxsize=workers)
        seen = [0]

        async def read() -> None:
            after = first - 1
            while (page := await self._store.page(period.since, period.until, after=after, upto=last)) is not None:
                after = page.last
                await pages.put(page)
            for _ in range(workers):
                await pages.put(None)

        async def decide() -> None:
            async with _process(header) as process:
                while (page := await pages.get()) is not None:
                    report.add(await _answer(process, page))
                    seen[0] += page.size

        async def watch() -> None:
            while True:
                await asyncio.sleep(TELL_SECONDS)
                await tell(seen[0], total)

        await _all_of([read(), *(decide() for _ in range(workers))], watch())
        return report


async def _all_of(work: list[Coroutine[None, None, None]], watch: Coroutine[None, None, None]) -> None:
    """Until all work has ended. The first failure, of the watch as well, ends the rest and is raised."""
    left, watching = {asyncio.create_task(each) for each in work}, asyncio.create_task(watch)
    every = [*left, watching]
    try:
        while left:
            # Whoever asked may hang up, which shows when he is told something: then the work ends as well.
            ended, _ = await asyncio.wait({*left, watching}, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            left -= ended
    finally:
        await cancel_all(every)


def _header(actions: tuple[str, ...], proposed: PolicySet, known: Known) -> bytes:
    """What a process needs before its first page."""
    return _line(
        {
            "actions": list(actions),
            "sources": [[source.layer, source.name, source.text] for source in proposed.sources],
            "known": {
                "policy_set": known.policy_set,
                "requirements": [each.model_dump(mode="json") for each in known.requirements.values()],
            },
        }
    )


@asynccontextmanager
async def _process(header: bytes) -> AsyncIterator[Process]:
    """A process that has read the policies, or will have; killed at the end. It gets no environment."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", _PROGRAM), stdin=PIPE, stdout=PIPE, env={}, limit=ANSWER_BYTES_MAX
    )
    try:
        _write(process, header)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answer(process: Process, page: DecisionPage) -> JsonObject:
    """What the process says of a page. Raises Transient when it ended or is silent."""
    stdin, stdout = _pipes(process)
    try:
        async with asyncio.timeout(PAGE_SECONDS_MAX):
            _write(process, page.text.encode() + b"\n")
            await stdin.drain()
            line = await stdout.readline()
    except TimeoutError as error:
        msg = f"a page of {page.size} Runs was not decided in {PAGE_SECONDS_MAX:g} s"
        raise Transient(msg, code="replay.slow", fix="ask for a shorter time", effect_sent=False) from error
    except ConnectionError as error:
        raise _ended(process) from error
    if not line.endswith(b"\n"):
        raise _ended(process)
    answer: JsonObject = json.loads(line)
    return answer


def _write(process: Process, line: bytes) -> None:
    """Raises Transient when the process has closed its end, which not every event loop says in the same way."""
    stdin, _ = _pipes(process)
    if stdin.is_closing():
        raise _ended(process)
    stdin.write(line)


def _ended(process: Process) -> Transient:
    msg = f"a process that decided Runs ended before it had answered ({process.returncode})"
    return Transient(msg, code="replay.ended", fix="see serve.log in the state folder", effect_sent=False)


def _pipes(process: Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    if process.stdin is None or process.stdout is None:
        msg = "a process without pipes"
        raise Permanent(msg, code="bug")
    return process.stdin, process.stdout


def _line(value: JsonObject) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
