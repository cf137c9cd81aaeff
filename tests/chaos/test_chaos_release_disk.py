"""The disk is full while a release goes back: it says so, is tried again, and ends once there is room."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.databases import database
from harness.engine import open_engine, write_project
from harness.kept import end_kept
from harness.release_world import ReleaseWorld, ask, begin, deployed, quick, stands, story, words
from interlock.core.run import RunState
from interlock.engine.db import DatabaseAddress, migrate

MEGABYTES = 48


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system that is soon full; only root can make one."""
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        mount = ["/bin/mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0755", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["/bin/umount", "-l", folder], check=True)


async def test_a_way_back_that_finds_no_room_is_taken_once_there_is_some(
    postgres_endpoint: Any, small_disk: Path
) -> None:
    with (
        database(postgres_endpoint) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        await migrate(DatabaseAddress(app=app, owner=owner))
        world = ReleaseWorld(Path(folder))
        for version in ("v1", "v2"):
            world.version(version)
        workload = world.declare(release=quick(50, hold=600.0))
        locations = write_project(small_disk, "permissive", workloads={"web": workload})
        async with open_engine(app, owner, locations, reconcile=True) as engine:
            try:
                await deployed(engine, "v1")
                number = await begin(engine, "v2")
                await stands(engine, number, "canary")
                filler = small_disk / "filler"
                with world.users(per_second=60) as users:
                    await asyncio.sleep(0.5)
                    _fill(filler)
                    run = await ask(engine, "release.rollback", workload="web", reason="it looks odd")
                    assert run.state is RunState.SUCCEEDED, run.state_reason
                    end = time.monotonic() + 30
                    while "stuck" not in await words(engine, number):
                        (row,) = await engine.query("select state from releases where number = %s", number)
                        assert row["state"] == "going_back", await story(engine, number)
                        assert time.monotonic() < end, await story(engine, number)
                        await asyncio.sleep(0.05)
                    filler.unlink()
                    await stands(engine, number, "rolled_back", seconds=40)
                assert users.failed == 0, users.answers
            finally:
                end_kept(locations.state_folder)


def _fill(path: Path) -> None:
    """All that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 65536):
                pass
        except OSError:
            return
