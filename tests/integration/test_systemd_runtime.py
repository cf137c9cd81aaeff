"""Versions as instances of a template unit: their environment, their life, and a systemctl that does not want to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.shop_service import control
from harness.stand_in_service import free_port, until
from harness.step_context import Guarded
from interlock.adapters.systemd_runtime import SystemdServices
from interlock.core.errors import Conflict, InterlockError, Invalid, NotFound, Permanent, Transient
from interlock.core.service_runtime import VersionSpec
from interlock.core.workload import ServiceWorkload
from interlock.lib.clock import SystemClock

SHOP = Path(__file__).resolve().parents[1] / "harness" / "shop_service.py"
IDENTITY = "sha256:" + "ab" * 32


class Machine(NamedTuple):
    """A systemd of the test's own, with one template."""

    folder: Path
    runtime: SystemdServices

    def spec(self, version: str = "v1", **more: Any) -> VersionSpec:
        declared = ServiceWorkload.model_validate(
            {
                "systemd": {"template": "web@.service", "environment_file": f"{self.folder}/env/{{version}}.env"},
                "source": {"folder": "/srv/web/{version}"},
                "traffic": {"listen": "127.0.0.1:80"},
                **more,
            }
        )
        return VersionSpec(
            workload="web",
            version=version,
            declared=declared,
            identity=IDENTITY,
            source=f"/srv/web/{version}",
            port=free_port(),
        )

    def mode(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    def units(self) -> Any:
        return json.loads((self.folder / "units.json").read_text())

    def change(self, name: str, **properties: str) -> None:
        units = self.units()
        units[name] |= properties
        (self.folder / "units.json").write_text(json.dumps(units))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "env").mkdir()
    shop = f'exec {sys.executable} -S {SHOP} --port "$PORT" --version "$VERSION"'
    template = {
        "Names": "web@.service",
        "EnvironmentFiles": f"{tmp_path}/env/%i.env (ignore_errors=no)",
        "Command": json.dumps(["/bin/sh", "-c", shop]),
    }
    (tmp_path / "units.json").write_text(json.dumps({"web@.service": template}))
    shutil.copy(Path(__file__).with_name("fake_systemctl.py"), tmp_path / "fake.py")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "{tmp_path}/fake.py" "$@"\n')
    systemctl.chmod(0o755)
    found = Machine(tmp_path, SystemdServices(SystemClock(), str(systemctl)))
    found.mode("well")
    yield found
    for unit in found.units().values():
        if pid := int(unit.get("MainPID", "0")):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def test_two_versions_run_beside_each_other(machine: Machine) -> None:
    context, one, two = Guarded(), machine.spec("v1"), machine.spec("v2.0-rc_1")
    for spec in (one, two):
        state = machine.runtime.start(spec, context)
        assert (state.phase, state.address) == ("running", spec.address)
        assert state.log == f"journalctl --unit=web@{spec.version}.service"
        assert state.started_at is not None
        assert abs((state.started_at - SystemClock().now()).total_seconds()) < 3600
        until(lambda spec=spec: _version(spec) == spec.version)
    machine.runtime.stop(one, context)
    assert machine.runtime.state(one) is None
    assert _version(two) == two.version
    assert context.held


def _version(spec: VersionSpec) -> str | None:
    try:
        return str(control(spec.port)["version"])
    except OSError:
        return None


def test_an_instance_reads_what_it_needs_from_a_file_of_its_owner_alone(machine: Machine) -> None:
    odd = 'a "b" \\ $HOME `c` {version}'
    spec = machine.spec(environment={"ODD": odd})
    machine.runtime.start(spec, Guarded())
    file = machine.folder / "env" / "v1.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text().splitlines()[1:]
    assert lines == [
        f'PORT="{spec.port}"',
        'VERSION="v1"',
        'SOURCE="/srv/web/v1"',
        'ODD="a \\"b\\" \\\\ \\$HOME \\`c\\` v1"',
    ]
    machine.runtime.stop(spec, Guarded())
    assert not file.exists()


def test_starting_twice_is_starting_once(machine: Machine) -> None:
    context, spec = Guarded(), machine.spec()
    first = machine.runtime.start(spec, context)
    ran = len(context.ran)
    assert machine.runtime.start(spec, context).pid == first.pid
    assert len(context.ran) == ran
    with pytest.raises(Conflict):
        machine.runtime.start(spec.model_copy(update={"port": 1}), context)
    machine.runtime.stop(spec, context)
    machine.runtime.stop(spec, context)


def test_a_restart_is_another_process(machine: Machine) -> None:
    context, spec = Guarded(), machine.spec()
    with pytest.raises(NotFound):
        machine.runtime.restart(spec, context)
    first = machine.runtime.start(spec, context)
    assert machine.runtime.restart(spec, context).pid != first.pid


@pytest.mark.parametrize(
    ("properties", "phase", "last_exit"),
    [
        ({"ActiveState": "failed", "ExecMainCode": "1", "ExecMainStatus": "3"}, "given_up", "exit 3"),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "ExecMainCode": "2", "ExecMainStatus": "11"},
            "waiting",
            "signal 11",
        ),
        ({"ActiveState": "activating", "SubState": "start"}, "starting", None),
        ({"ActiveState": "inactive", "ExecMainCode": "1", "ExecMainStatus": "0"}, "stopped", "exit 0"),
    ],
)
def test_every_state_of_a_unit_is_told(
    machine: Machine, properties: dict[str, str], phase: str, last_exit: str | None
) -> None:
    spec = machine.spec()
    machine.runtime.start(spec, Guarded())
    machine.change("web@v1.service", NRestarts="4", **properties)
    state = machine.runtime.state(spec)
    assert state is not None
    assert (state.phase, state.last_exit, state.restarts) == (phase, last_exit, 4)


def test_one_that_was_given_up_is_started_again_with_a_new_count(machine: Machine) -> None:
    context, spec = Guarded(), machine.spec()
    machine.runtime.start(spec, context)
    machine.change("web@v1.service", ActiveState="failed")
    assert machine.runtime.start(spec, context).phase == "running"
    assert [argv[-3] for argv in context.ran] == ["start", "reset-failed", "start"]


def test_a_template_that_is_not_there_is_found_by_check_and_refused(machine: Machine) -> None:
    spec = machine.spec(systemd={"template": "none@.service", "environment_file": f"{machine.folder}/env/{{version}}"})
    (found,) = machine.runtime.inspect("web", spec.declared)
    assert (found.level, "none@.service" in found.message) == ("error", True)
    with pytest.raises(Permanent) as refused:
        machine.runtime.start(spec, Guarded())
    assert refused.value.code == "systemd.no_template"


def test_check_finds_a_template_that_does_not_read_its_environment(machine: Machine) -> None:
    assert not [*machine.runtime.inspect("web", machine.spec().declared)]
    elsewhere = f"{machine.folder}/elsewhere/{{version}}.env"
    declared = machine.spec(systemd={"template": "web@.service", "environment_file": elsewhere}).declared
    messages = [each.message for each in machine.runtime.inspect("web", declared)]
    assert len(messages) == 2
    assert "does not read" in messages[0]
    assert "no folder" in messages[1]
    same = machine.spec(systemd={"template": "web@.service", "environment_file": f"{machine.folder}/env/x"}).declared
    assert "the same for all versions" in next(iter(machine.runtime.inspect("web", same))).message


def test_systemd_that_refuses_is_told_in_its_words(machine: Machine) -> None:
    machine.mode("refuses")
    with pytest.raises(Permanent, match="Access denied") as refused:
        machine.runtime.start(machine.spec(), Guarded())
    assert refused.value.code == "systemd.refused"


@pytest.mark.parametrize("mode", ["fails", "garbage", "empty"])
def test_a_systemctl_that_misbehaves_is_transient(machine: Machine, mode: str) -> None:
    machine.mode(mode)
    with pytest.raises(InterlockError) as caught:
        machine.runtime.state(machine.spec())
    assert isinstance(caught.value, Transient)


def test_a_version_that_no_instance_can_be_called_is_refused(machine: Machine) -> None:
    with pytest.raises(Invalid):
        machine.runtime.state(machine.spec().model_copy(update={"version": "v1+build"}))


def test_an_environment_that_systemd_could_misread_is_refused(machine: Machine) -> None:
    with pytest.raises(Invalid):
        machine.runtime.start(machine.spec(environment={"TWO": "a\nPORT=1"}), Guarded())


def test_a_folder_that_cannot_be_written_is_said(machine: Machine) -> None:
    (machine.folder / "env").rmdir()
    with pytest.raises(Permanent) as refused:
        machine.runtime.start(machine.spec(), Guarded())
    assert refused.value.code == "systemd.environment"
