"""The resident process is stopped, killed, started twice and robbed of its database: no Run is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.databases import database
from harness.engine import ALICE, open_engine, write_project
from harness.resident import Resident, resident
from interlock.bootstrap import embedded_server
from interlock.core.ask import Ask
from interlock.core.errors import InterlockError, Transient
from interlock.core.run import Run, RunState
from interlock.settings import Locations

CONFLICT = 5
REVIVED_SECONDS = 10.0


@pytest.fixture
def served(postgres_endpoint: Any) -> Iterator[Resident]:
    """A resident process that permits everything, on the server of the whole session."""
    with resident(postgres_endpoint, "permissive") as made:
        yield made.start()


@pytest.fixture(scope="module")
def embedded() -> Iterator[Resident]:
    """A resident process with a database server of its own."""
    with resident(None, "permissive") as made:
        locations = Locations(made.folder / "project" / "interlock.yaml", made.state_folder, made.folder / "run")
        try:
            yield made.start()
        finally:
            if made.process is not None:
                made.stop()
            embedded_server(locations, lambda _: None).remove()


def script(made: Resident, name: str, text: str) -> str:
    path = made.folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def adopt(made: Resident, name: str, text: str, **options: Any) -> None:
    run = made.submit("interlock.adopt", path=script(made, name, text), name=f"job.{name}", **options)
    assert run["state"] == "succeeded", run


def state(made: Resident, number: int) -> str:
    return str(made.view("run", run=number)["state"])


def stopped_and_started(made: Resident) -> Resident:
    done = made.run("stop")
    assert done.returncode == 0, done.stderr
    assert made.process is not None
    assert made.process.wait(30) == 0
    assert not made.door.exists()
    return made.start()


def test_stop_lets_a_step_end_and_whoever_asks_meanwhile_is_served_by_the_next_resident(served: Resident) -> None:
    gate, seen = served.folder / "gate", served.folder / "seen"
    adopt(served, "wait", f"echo x >> {seen}; while [ ! -e {gate} ]; do sleep 0.05; done")
    number = served.submit("command.exec", wait=0, argv=["job.wait"])["number"]
    queued = served.submit("command.exec", wait=0, argv=["job.wait"])["number"]  # the same target: it waits
    served.until(seen.exists)
    assert served.process is not None
    served.process.send_signal(signal.SIGTERM)
    served.until(lambda: not served.door.exists())
    impatient = subprocess.Popen(
        served.command("exec", "--", "uptime"), env=served.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with pytest.raises(subprocess.TimeoutExpired):
        impatient.wait(1.5)
    gate.touch()
    assert served.process.wait(60) == 0
    served.process = None
    try:
        try:
            said, complaint = impatient.communicate(timeout=30)
        finally:
            impatient.kill()
            impatient.communicate()
        assert impatient.returncode == 0, complaint
        assert b"load average" in said
        served.until(lambda: state(served, number) == "succeeded" and state(served, queued) == "succeeded")
        assert seen.read_text() == "x\nx\n"
        assert served.ask("audit_verify")["intact"] is True
    finally:
        assert served.run("stop").returncode == 0


async def test_a_step_that_outlasts_the_grace_is_cut_off_given_back_and_repeated(postgres_endpoint: Any) -> None:
    with (
        database(postgres_endpoint) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        locations, begun, gate = write_project(Path(folder)), Path(folder, "begun"), Path(folder, "gate")
        command = f"echo x >> {begun}; while [ ! -e {gate} ]; do sleep 0.05; done"
        args = {"fifo": str(Path(folder, "ledger")), "script": command, "repeatable": [True]}
        async with open_engine(app, owner, locations) as first:
            run = await first.door.submit(ALICE, Ask(action="test.ledger", args=args, confirmed=True))
            assert isinstance(run, Run)
            await asyncio.to_thread(Resident.until, begun.exists)
            await first.runner.stop(0.2)
            assert (await first.store.by_number(run.number)).state is RunState.QUEUED
        await asyncio.to_thread(gate.touch)
        async with open_engine(app, owner, locations) as second:
            assert (await second.rest(run.number)).state is RunState.SUCCEEDED
            assert (await second.verify()).intact
        assert await asyncio.to_thread(Path(folder, "ledger").read_text) == f"{run.number}:0 content-0\n"


def test_what_waits_for_approval_still_waits_after_an_upgrade(postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint) as made:
        made.start()
        number = made.write("a.txt", "new\n", acting_as="claude")["number"]
        assert state(made, number) == "waiting"
        stopped_and_started(made)
        assert state(made, number) == "waiting"
        decided = made.ask("decide", run=number, verdict=True, wait_seconds=20)
        assert decided["run"]["state"] == "succeeded"
        assert (made.data / "a.txt").read_text() == "new\n"


def test_kill_9_of_the_resident_leaves_an_unrepeatable_step_to_a_person_and_nothing_running(served: Resident) -> None:
    seen = served.folder / "pid"
    adopt(served, "once", f"echo $$ > {seen}.new; mv {seen}.new {seen}; sleep 600")
    number = served.submit("command.exec", wait=0, argv=["job.once"])["number"]
    served.until(seen.exists)
    served.kill()
    served.until(lambda: not Path("/proc", seen.read_text().strip()).exists())
    served.start()
    served.until(lambda: state(served, number) == "unresolved")
    run = served.ask("resolve", run=number, resolution="skip", reason="looked", wait_seconds=20)["run"]
    assert run["state"] == "succeeded"
    assert served.ask("audit_verify")["intact"] is True


def test_a_stale_socket_file_does_not_keep_the_next_one_from_starting(served: Resident) -> None:
    served.kill()
    assert served.door.exists(), "kill -9 leaves it behind"
    with pytest.raises(Transient, match="no resident process"):
        served.ask("hello")
    served.start()
    served.stop()
    served.door.write_text("somebody put a file here")
    served.start()
    assert served.door.is_socket()


def test_of_two_started_at_once_one_serves_and_the_other_gives_way(postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint) as made:
        both = [made.spawn() for _ in range(2)]
        made.until(made.answers)
        made.until(lambda: any(process.poll() is not None for process in both))
        (loser,) = [process for process in both if process.poll() is not None]
        (made.process,) = [process for process in both if process.poll() is None]
        assert loser.returncode == CONFLICT
        assert made.ask("hello")["pid"] == made.pid
        assert made.write("a.txt", "one\n")["state"] == "succeeded"
        third = subprocess.run(
            made.command("serve", "--no-http"),
            env=made.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert third.returncode == CONFLICT
        assert "already" in third.stderr
        assert made.ask("hello")["pid"] == made.pid, "the door is still the first one's"


def _postmaster(made: Resident) -> int:
    locations = Locations(made.folder / "project" / "interlock.yaml", made.state_folder, made.folder / "run")
    pid = embedded_server(locations, lambda _: None).postmaster_pid
    assert pid is not None
    return pid


def _served_again(made: Resident) -> bool:
    try:
        return bool(made.write("again.txt", "again\n", wait=5)["state"] == "succeeded")
    except InterlockError:
        return False


def test_kill_9_of_the_database_server_is_mended_without_a_restart(embedded: Resident) -> None:
    resident_pid = embedded.pid
    before = embedded.write("a.txt", "one\n")
    assert before["state"] == "succeeded"
    for _ in range(2):
        postmaster = _postmaster(embedded)
        os.kill(postmaster, signal.SIGKILL)
        took = embedded.until(lambda: _served_again(embedded))
        assert took < REVIVED_SECONDS, f"{took:.1f} s"
        assert _postmaster(embedded) != postmaster
    assert (embedded.pid, embedded.ask("hello")["pid"]) == (resident_pid, resident_pid)
    assert state(embedded, before["number"]) == "succeeded"
    assert "database.revived" in embedded.log
    embedded.until(lambda: not embedded.view("status")["troubles"], 15)
    assert embedded.ask("audit_verify")["intact"] is True


def test_a_run_under_way_outlives_its_database_server(embedded: Resident) -> None:
    gate, seen = embedded.folder / "gate", embedded.folder / "seen"
    adopt(embedded, "slow", f"echo x >> {seen}; while [ ! -e {gate} ]; do sleep 0.05; done", repeatable=True)
    number = embedded.submit("command.exec", wait=0, argv=["job.slow"])["number"]
    embedded.until(seen.exists)
    os.kill(_postmaster(embedded), signal.SIGKILL)
    gate.touch()
    embedded.until(lambda: _state_if_served(embedded, number) == "succeeded", 30)
    assert embedded.ask("audit_verify")["intact"] is True


def _state_if_served(made: Resident, number: int) -> str | None:
    try:
        return state(made, number)
    except InterlockError:
        return None


def test_stop_ends_the_database_server_too_and_the_next_resident_starts_it_again(embedded: Resident) -> None:
    postmaster = _postmaster(embedded)
    done = embedded.run("stop")
    assert done.returncode == 0, done.stderr
    assert embedded.process is not None
    assert embedded.process.wait(30) == 0
    assert not Path(f"/proc/{postmaster}").exists()
    embedded.start()
    assert _postmaster(embedded) != postmaster
    assert embedded.write("after.txt", "x\n")["state"] == "succeeded"
