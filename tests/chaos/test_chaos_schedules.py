"""Processes that work on schedules are killed at every boundary of a write: no instant is lost, and none is doubled."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.databases import database
from harness.engine import open_engine, write_project
from harness.timelapse import MIDNIGHT, TimeLapse
from interlock.engine.db import DatabaseAddress, migrate
from interlock.lib.clock import rfc3339

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

BOUNDARIES = [
    f"{name}:{phase}" for name in ("advance", "begin_attempt", "insert", "change") for phase in ("before", "after")
]
PATIENCE_SECONDS = 40.0


async def test_kill_9_at_any_boundary_loses_and_doubles_no_instant(postgres_endpoint: Any, tmp_path: Path) -> None:
    minutely = {
        "action": "test.unchecked",
        "args": {"journal": str(tmp_path / "journal"), "steps": [{"repeatable": True}]},
        "cron": "* * * * *",
        "as": "nightly",
        "overlap": "allow",
        "grace_seconds": 24 * 3600,
        "jitter_seconds": 30,
    }
    limits = {"runs_at_once_per_actor_max": 64}
    with database(postgres_endpoint) as (_, owner, app):
        await migrate(DatabaseAddress(app=app, owner=owner))
        services = {"nightly": {"roles": ["operator"]}}
        locations = write_project(tmp_path, services=services, schedules={"minutely": minutely}, limits=limits)
        config = {"app": app, "owner": owner, "began": time.time()}
        config |= {name: str(getattr(locations, name)) for name in ("project_file", "state_folder", "runtime_folder")}
        async with open_engine(app, owner, locations, work=False, fast=False) as engine:
            clock = TimeLapse(config["began"])
            first = _start(config, "", tmp_path)
            await _until(lambda: engine.query("select 1 from schedule"))
            begun = await engine.query("select cursor_at from schedule")
            first.kill()
            for left, right in zip(BOUNDARIES[::2], BOUNDARIES[1::2], strict=True):
                pair = [_start(config, boundary, tmp_path) for boundary in (left, right)]
                for process in pair:
                    assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == -9, "it came to its boundary"
            last = _start(config, "", tmp_path)
            end = max(clock.now(), begun[0]["cursor_at"] + timedelta(minutes=25))
            try:
                await _until(lambda: _done(engine, end))
            finally:
                last.kill()
                last.wait()
            first.wait()
            rows = await engine.query("select instant, state, run from schedule_instant where instant <= %s", end)
            runs = await engine.query("select number, key from run where key like 'schedule:%%'")
            expected = [MIDNIGHT + timedelta(minutes=n) for n in range(24 * 60 * 10)]
            expected = [each for each in expected if begun[0]["cursor_at"] < each <= end]
            assert sorted(row["instant"] for row in rows) == expected
            assert len(expected) > 20
            assert {row["state"] for row in rows} == {"succeeded"}
            keys = [run["key"] for run in runs]
            assert len(keys) == len(set(keys))
            assert {f"schedule:minutely:{rfc3339(each)}" for each in expected} <= set(keys)
            assert (await engine.verify()).intact


def _start(config: dict[str, Any], failpoint: str, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "workers.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.timelapse", json.dumps({**config, "failpoint": failpoint})],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )


async def _done(engine: Any, end: Any) -> bool:
    rows = await engine.query(
        "select count(*) filter (where state <> 'succeeded') as open from schedule_instant where instant <= %s", end
    )
    cursor = await engine.query("select cursor_at from schedule")
    return rows[0]["open"] == 0 and cursor[0]["cursor_at"] >= end - timedelta(minutes=1)


async def _until(condition: Any) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
