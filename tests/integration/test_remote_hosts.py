"""Commands on another machine, through a real sshd: pinned, decided on twice, and in doubt when the line breaks."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import ALICE, Engine, open_engine, write_project
from harness.resident import Resident
from harness.ssh_server import SshServer, ssh_server, why_absent
from interlock.adapters.remote_hosts import SshHosts
from interlock.commands.library import load_library
from interlock.commands.remote import remote_facts, remote_step
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Denied, InterlockError, NotFound, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Plan
from interlock.core.remote_host import REMOTE_HOSTS, DoorRequest, RemoteHost
from interlock.core.run import Run, RunState
from interlock.engine.policy.protected import Patterns
from interlock.engine.proposal import Proposal
from interlock.hosts.actions import fingerprint

until = Resident.until
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
with_sshd = pytest.mark.skipif(why_absent() is not None, reason=str(why_absent()))
in_one_loop = pytest.mark.asyncio(loop_scope="module")


def a_host(name: str = "web1", **fields: Any) -> RemoteHost:
    given = {"user": "ops", "address": "192.0.2.7", "port": 22, "host_keys": (KEY,), **fields}
    return RemoteHost(name=name, **given)


# What is kept of a machine.


def test_a_key_is_made_for_each_machine_and_only_its_public_half_is_told(tmp_path: Path) -> None:
    hosts = SshHosts(tmp_path / "hosts")
    first, second = hosts.add(a_host()), hosts.add(a_host("web2"))
    assert first.public_key != second.public_key
    assert first.authorized_line.startswith('restrict,command="interlock door --stdio" ssh-ed25519 ')
    assert hosts.find("web1") == first
    assert "PRIVATE" not in repr(hosts.listed())
    places = [tmp_path / "hosts", tmp_path / "hosts/web1"]
    assert [stat.S_IMODE(place.stat().st_mode) for place in places] == [0o700, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "hosts/web1").iterdir()} == {0o600}
    private = tmp_path / "hosts/web1/key"
    told = subprocess.run(["/usr/bin/ssh-keygen", "-y", "-f", str(private)], capture_output=True, check=True, text=True)
    assert first.public_key.startswith(told.stdout.split(" interlock")[0].strip())


def test_the_same_machine_twice_is_one_and_another_of_its_name_is_none(tmp_path: Path) -> None:
    hosts = SshHosts(tmp_path / "hosts")
    assert hosts.add(a_host()) == hosts.add(a_host())
    with pytest.raises(Conflict):
        hosts.add(a_host(address="192.0.2.8"))
    assert hosts.remove("web1")
    assert not hosts.remove("web1")
    assert list((tmp_path / "hosts").iterdir()) == []
    with pytest.raises(NotFound):
        hosts.find("web1")


@pytest.mark.parametrize("name", ["..", ".web1", "a/b", "../hosts"])
def test_a_name_leads_to_no_other_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        SshHosts(tmp_path).find(name)


@pytest.mark.parametrize("address", ["-oProxyCommand=id", "a b", "a;b", "$(id)", "a\nb", "", "user@a"])
def test_an_address_is_never_an_option(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        a_host(address=address)


def test_a_fingerprint_is_the_one_that_ssh_shows(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(KEY + "\n")
    command = ["/usr/bin/ssh-keygen", "-lf", str(tmp_path / "key.pub")]
    assert fingerprint(KEY) in subprocess.run(command, capture_output=True, check=True, text=True).stdout


# What another machine says is believed only where it makes a command worse.


class Liar:
    """A machine whose door calls everything harmless."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def find(self, name: str) -> RemoteHost:
        return a_host(name)

    def plan(self, name: str, request: DoorRequest) -> JsonObject:
        return self._plan.model_dump(mode="json")


def there(**fields: Any) -> Plan:
    step = {"verb": "execute", "summary": "look", "changes": False, "repeatable": True, **fields}
    return Plan.model_validate({"action": "command.exec", "args": {}, "summary": "look", "steps": [step]})


@pytest.mark.parametrize(
    ("argv", "worse"),
    [
        (("systemctl", "restart", "nginx.service"), {"changes": True, "opaque": False}),
        (("whatever-it-is", "--now"), {"changes": True, "opaque": True, "risk": "high", "repeatable": False}),
        (("journalctl", "-n", "1"), {"changes": False, "discloses": "content"}),
    ],
)
def test_what_is_known_here_is_not_made_harmless_there(argv: tuple[str, ...], worse: dict[str, Any]) -> None:
    request = DoorRequest(id="1", do="plan", argv=argv)
    hosts: Any = Liar(there())
    step = remote_step(request, remote_facts(hosts, "web1", request, load_library(())))
    assert {name: getattr(step, name) for name in worse} == worse


def test_a_wrapper_is_not_even_asked_about() -> None:
    hosts: Any = Liar(there())
    request = DoorRequest(id="1", do="plan", argv=("sudo", "uptime"))
    with pytest.raises(Denied):
        remote_facts(hosts, "web1", request, load_library(()))


def test_targets_are_known_by_their_host_and_by_what_they_are() -> None:
    targets = [{"kind": "unit", "id": "postgresql.service", "names": ["pg"]}]
    hosts: Any = Liar(there(changes=True, risk="medium", targets=targets, operations=["unit.restart"]))
    request = DoorRequest(id="1", do="plan", argv=("systemctl", "restart", "postgresql"))
    (target,) = remote_step(request, remote_facts(hosts, "web1", request, load_library(()))).targets
    assert target.key == "host:web1/unit:postgresql.service"
    for pattern in ("host:web1/unit:postgresql*", "unit:postgresql*", "unit:pg"):
        assert Patterns([pattern]).match(target), pattern
    assert not Patterns(["host:web2/**"]).match(target)


# Through a real sshd.


@pytest.fixture(scope="module")
def sshd() -> Iterator[SshServer]:
    if why_absent() is not None:
        pytest.skip(str(why_absent()))
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder, ssh_server(Path(folder)) as server:
        yield server


class Far:
    """An engine, and a machine that it calls `far`."""

    def __init__(self, engine: Engine, server: SshServer) -> None:
        self.engine, self.server = engine, server
        self.place = Path(os.path.realpath(server.folder)) / "place"
        self.place.mkdir(exist_ok=True)

    def allow(self, text: str) -> None:
        self.server.policy.write_text(f"version: 1\n{text}\n")
        self.server.policy.chmod(0o600)

    async def submit(self, *argv: str) -> Run:
        ask = Ask(action="command.exec", args={"argv": [*argv], "host": "far"}, confirmed=True)
        run = await self.engine.door.submit(ALICE, ask)
        assert isinstance(run, Run)
        return run

    async def write(self, action: str, **args: Any) -> Run:
        ask = Ask(action=action, args={"host": "far", **args}, confirmed=True)
        run = await self.engine.door.submit(ALICE, ask)
        assert isinstance(run, Run)
        return await self.engine.rest(run.number, 60.0)

    async def undo(self, run: Run) -> Run:
        ask = Ask(action="interlock.undo", args={"run": run.number}, confirmed=True)
        taken_back = await self.engine.door.submit(ALICE, ask)
        assert isinstance(taken_back, Run)
        return await self.engine.rest(taken_back.number, 60.0)

    async def run(self, *argv: str) -> Run:
        return await self.engine.rest((await self.submit(*argv)).number, 60.0)

    async def output(self, run: Run) -> str:
        return "".join(piece.text for piece in await self.engine.parts.outputs.read(run.number))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(postgres_endpoint: Any, migrated: str, sshd: SshServer) -> AsyncIterator[Far]:
    """Added through the door, its key confirmed by what the server itself has on its disk."""
    with (
        database(postgres_endpoint, template=migrated) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        locations = write_project(Path(folder), limits={"step_attempts_max": 2})
        async with open_engine(app, owner, locations) as engine:
            args: JsonObject = {"name": "far", "user": sshd.user, "address": "127.0.0.1", "port": sshd.port}
            shown = await engine.door.propose(ALICE, Ask(action="host.add", args=args))
            assert isinstance(shown, Proposal)
            assert fingerprint(sshd.host_key) in str(shown.plan.preview)
            run = await engine.door.submit(ALICE, Ask(action="host.add", args=args, confirmed=True))
            assert isinstance(run, Run)
            run = await engine.rest(run.number)
            assert run.state is RunState.SUCCEEDED, run.state_reason
            host = engine.parts.catalog.action("host.add").ports.outside[REMOTE_HOSTS].find("far")
            sshd.let_in(host.public_key)
            yield Far(engine, sshd)


@with_sshd
@in_one_loop
async def test_a_read_runs_there_and_its_output_comes_back(far: Far) -> None:
    run = await far.run("uname", "-n")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert await far.output(run) == f"{os.uname().nodename}\n"
    assert [target.key for target in run.plan.targets] == ["host:far"]
    assert "on far" in run.plan.summary
    assert "PRIVATE" not in run.plan.model_dump_json()


@with_sshd
@in_one_loop
async def test_its_own_rules_count_whatever_was_approved_here(far: Far) -> None:
    far.server.policy.unlink(missing_ok=True)
    with pytest.raises(Denied, match="does not allow it"):
        await far.submit("mkdir", str(far.place / "new"))
    with pytest.raises(Denied, match="does not allow it"):
        await far.submit("cat", "/etc/hostname")


@with_sshd
@in_one_loop
async def test_a_change_that_both_allow_happens_once_and_is_known_by_its_host(far: Far) -> None:
    far.allow(f"changes: [mkdir]\nroots: {{write: [{far.place}]}}")
    run = await far.run("mkdir", str(far.place / "made"))
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert (far.place / "made").is_dir()
    (target,) = run.plan.targets
    assert target.key == f"host:far/file:{far.place}/made"
    assert f"file:{far.place}/made" in target.names


@with_sshd
@in_one_loop
async def test_a_file_is_written_there_and_undo_puts_it_back(far: Far) -> None:
    far.allow(f"discloses: content\nchanges: [file.write, file.remove]\nroots: {{write: [{far.place}]}}")
    path = far.place / "motd"
    path.write_text("old\n")
    run = await far.write("file.write", path=str(path), content="new\n")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert path.read_text() == "new\n"
    assert "-old\n+new" in str(run.plan.preview)
    (target,) = run.plan.targets
    assert target.key == f"host:far/file:{path}"
    taken_back = await far.undo(run)
    assert taken_back.state is RunState.SUCCEEDED, taken_back.state_reason
    assert path.read_text() == "old\n"


@with_sshd
@in_one_loop
async def test_a_file_is_made_and_removed_there_and_undo_takes_either_back(far: Far) -> None:
    far.allow(f"discloses: content\nchanges: [file.write, file.remove]\nroots: {{write: [{far.place}]}}")
    path = far.place / "fresh"
    made = await far.write("file.write", path=str(path), content="new\n")
    assert (made.state, path.read_text()) == (RunState.SUCCEEDED, "new\n"), made.state_reason
    removed = await far.write("file.remove", path=str(path))
    assert (removed.state, path.exists()) == (RunState.SUCCEEDED, False), removed.state_reason
    back = await far.undo(removed)
    assert (back.state, path.read_text()) == (RunState.SUCCEEDED, "new\n"), back.state_reason
    gone = await far.undo(made)
    assert (gone.state, path.exists()) == (RunState.SUCCEEDED, False), gone.state_reason


@with_sshd
@in_one_loop
async def test_a_file_there_that_somebody_changed_since_is_left_alone(far: Far) -> None:
    far.allow(f"discloses: content\nchanges: [file.write, file.remove]\nroots: {{write: [{far.place}]}}")
    path = far.place / "theirs"
    made = await far.write("file.write", path=str(path), content="new\n")
    path.write_text("somebody was here\n")
    left = await far.undo(made)
    assert (left.state, left.state_code) == (RunState.FAILED, "file.changed"), left.state_reason
    assert path.read_text() == "somebody was here\n"


@with_sshd
@in_one_loop
async def test_what_fails_there_fails_here(far: Far) -> None:
    run = await far.run("id", "no-such-user")
    assert run.state is RunState.FAILED
    assert str(run.state_reason).startswith("on far: exit 1: id: ")


@with_sshd
@in_one_loop
async def test_a_machine_without_a_door_is_told_with_its_own_words(far: Far) -> None:
    host = far.engine.parts.catalog.action("host.add").ports.outside[REMOTE_HOSTS].find("far")
    far.server.let_in(host.public_key, "no-such-interlock door --stdio")
    try:
        with pytest.raises(Transient, match=r"does not answer: .*no-such-interlock"):
            await far.submit("uptime")
    finally:
        far.server.let_in(host.public_key)


@with_sshd
@in_one_loop
async def test_a_line_that_breaks_before_anything_was_asked_is_no_doubt(far: Far) -> None:
    far.allow(f"changes: [mkdir]\nroots: {{write: [{far.place}]}}")
    host = far.engine.parts.catalog.action("host.add").ports.outside[REMOTE_HOSTS].find("far")
    shown = await far.engine.door.propose(
        ALICE, Ask(action="command.exec", args={"argv": ["mkdir", str(far.place / "never")], "host": "far"})
    )
    assert isinstance(shown, Proposal)
    far.server.let_in(host.public_key, "/bin/false")
    try:
        action = far.engine.parts.catalog.action("command.exec")
        with pytest.raises(Transient) as caught:
            await far.submit("uptime")
        assert (caught.value.code, caught.value.effect_sent) == ("host.unreachable", False)
        assert action.guarded
    finally:
        far.server.let_in(host.public_key)
    assert not (far.place / "never").exists()


@with_sshd
@in_one_loop
async def test_a_line_that_breaks_in_the_middle_of_a_change_is_for_a_person(far: Far) -> None:
    """The change waits in a FIFO until the connection is gone; then nobody can say what became of it."""
    far.allow(f"discloses: content\nchanges: [cp]\nroots: {{write: [{far.place}]}}")
    waiting = far.place / "waiting"
    os.mkfifo(waiting)
    submitted = await far.submit("cp", str(waiting), str(far.place / "copied"))
    while not _is_copying(str(waiting)):
        found = await far.engine.door.wait(submitted.number, 0.05)
        assert found.state in {RunState.QUEUED, RunState.RUNNING}, (found.state_reason, await far.output(found))
    descriptor = os.open(waiting, os.O_RDWR)
    far.server.hang_up()
    run = await far.engine.rest(submitted.number, 60.0)
    os.close(descriptor)
    assert (run.state, run.state_code) == (RunState.UNRESOLVED, "host.lost"), run.state_reason
    until(lambda: not _is_copying(str(waiting)))


def _is_copying(word: str) -> bool:
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and (place / "cmdline").read_bytes().split(b"\0")[:2] == [b"cp", word.encode()]:
                return True
        except OSError:
            continue
    return False


@with_sshd
def test_another_host_key_is_another_machine(sshd: SshServer, tmp_path: Path) -> None:
    hosts = SshHosts(tmp_path / "hosts")
    made = hosts.add(a_host("far", user=sshd.user, address="127.0.0.1", port=sshd.port))
    sshd.let_in(made.public_key)
    with pytest.raises(Transient):
        hosts.plan("far", DoorRequest(id="1", do="plan", argv=("uptime",)))


@with_sshd
def test_the_key_opens_the_door_and_nothing_else(sshd: SshServer, tmp_path: Path) -> None:
    hosts = SshHosts(tmp_path / "hosts")
    made = hosts.add(a_host("far", user=sshd.user, address="127.0.0.1", port=sshd.port, host_keys=(sshd.host_key,)))
    sshd.let_in(made.public_key)
    given = json.loads(hosts.relay("far", DoorRequest(id="1", do="plan", argv=("uptime",)), 10.0).stdin)
    done = subprocess.run(
        [*given["ssh"], "touch", str(tmp_path / "made")], input=b"\n", capture_output=True, check=False, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1])["error"]["code"] == "door.request"
    assert not (tmp_path / "made").exists()


@with_sshd
def test_nothing_of_anybodys_configuration_counts(
    sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent's keys and settings of ssh in the environment are not looked at."""
    hosts = SshHosts(tmp_path / "hosts")
    made = hosts.add(a_host("far", user=sshd.user, address="127.0.0.1", port=sshd.port, host_keys=(sshd.host_key,)))
    sshd.let_in(made.public_key)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent")
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    try:
        assert hosts.plan("far", DoorRequest(id="1", do="plan", argv=("uptime",)))["action"] == "command.exec"
    except InterlockError as error:
        pytest.fail(error.message)
