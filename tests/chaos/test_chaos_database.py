"""PostgreSQL that is killed and started again, and disks that are full."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.actions import write_line
from harness.engine import BOB, random_of
from harness.world import World, open_world
from interlock.adapters.postgres import EmbeddedPostgres
from interlock.core.ask import Ask
from interlock.core.errors import Transient
from interlock.core.evidence import EvidenceKind
from interlock.core.run import Run, RunState
from interlock.engine.blobs import FileBlobs
from interlock.lib.clock import SystemClock

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200)]

SEED = 20261122
SERVER_MEGABYTES = 160

OwnWorld = tuple[EmbeddedPostgres, World]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system that is soon full; only root can make one."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        mount = ["/bin/mount", "-t", "tmpfs", "-o", f"size={SERVER_MEGABYTES}m,mode=0755", "tmpfs", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("this machine lets nobody mount a file system")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["/bin/umount", "-l", folder], check=True)


@asynccontextmanager
async def own_world(folder: Path, short_folder: Path, system_folder: Path) -> AsyncIterator[OwnWorld]:
    """A world on a server of its own, below `folder`."""
    server = EmbeddedPostgres(
        folder / "pg-state", folder / "pg-run", clock=SystemClock(), fsync=False, system_folder=system_folder
    )
    endpoint = server.start()
    try:
        async with open_world(endpoint.app_conninfo, endpoint.owner_conninfo, short_folder) as world:
            yield server, world
    finally:
        server.remove()


async def test_a_database_that_is_killed_and_comes_back_loses_and_repeats_nothing(
    short_folder: Path, system_folder: Path
) -> None:
    random = random_of(SEED)
    async with own_world(short_folder, short_folder, system_folder) as (server, world):
        before = await world.latency()
        await world.submit()
        workers = [world.nursery.worker(), world.nursery.worker()]
        for share in (30, 80, 130):
            await world.until(share)
            await asyncio.sleep(random.uniform(0.0, 0.1))
            pid = server.postmaster_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(random.uniform(0.0, 1.0))
            await asyncio.to_thread(server.start)
        await world.settle()
        assert world.nursery.alive() == workers, "a worker does not die with its database"
        await world.account(before=before)


async def test_a_full_disk_under_the_database_loses_and_repeats_nothing(small_disk: Path, short_folder: Path) -> None:
    async with own_world(small_disk, short_folder, small_disk) as (server, world):
        before = await world.latency()
        await world.submit()
        world.nursery.worker()
        world.nursery.worker()
        await world.until(40)
        ballast = small_disk / "ballast"
        fill(ballast)
        log = short_folder / "workers.log"
        async with asyncio.timeout(30):
            while not re.search(  # noqa: ASYNC110 - a log tells nobody
                r"No space left|could not extend|could not write", log.read_text(encoding="utf-8")
            ):
                await asyncio.sleep(0.1)
        ballast.unlink()
        await asyncio.to_thread(server.start)  # a server that could not write its journal has stopped itself
        await world.settle()
        await world.account(before=before)


async def test_a_full_disk_under_the_bodies_is_told_and_over_when_there_is_room(world: World, small_disk: Path) -> None:
    before = await world.latency()
    bodies = world.locations.state_folder / "blobs"
    bodies.mkdir(mode=0o700, exist_ok=True)
    await asyncio.to_thread(subprocess.run, ["/bin/mount", "--bind", small_disk, bodies], check=True)
    try:
        bodies.chmod(0o700)
        fill(bodies / "ballast")
        with pytest.raises(Transient) as refused:
            FileBlobs(bodies, b"k" * 32).put(b"x" * 100_000)
        assert refused.value.code == "blob.disk_full"
        run = await world.engine.door.submit(BOB, Ask(action="test.keep", args={"seed": "a"}, confirmed=True))
        assert isinstance(run, Run)
        world.nursery.worker()
        async with asyncio.timeout(20):
            while not await world.engine.data(run.number, EvidenceKind.STARTED):  # noqa: ASYNC110 - a table tells nobody
                await asyncio.sleep(0.05)
        (bodies / "ballast").unlink()
        assert (await world.engine.rest(run.number)).state is RunState.SUCCEEDED
    finally:
        await asyncio.to_thread(subprocess.run, ["/bin/umount", "-l", bodies], check=True)
    assert (await world.engine.verify()).findings == ()
    await world.as_quick_as(before)


def fill(path: Path) -> None:
    """Write until there is no room."""
    for size in (1024 * 1024, 4096, 1):
        while True:
            try:
                write_line(str(path), "x" * (size - 1))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - any other error is one of the test's own
                break
