"""A unit is known by every alias, what a job pulls along is known, and a systemctl that misbehaves is a refusal."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interlock.adapters.systemd import UnitTargets
from interlock.core.errors import InterlockError, Invalid, NotFound, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Target
from interlock.engine.policy.protected import Patterns
from interlock.engine.policy.target_classes import classes_of

NOTHING: JsonObject = {}
UNITS: dict[str, dict[str, str]] = {
    "nginx.service": {
        "Names": "nginx.service www.service",
        "FragmentPath": "/lib/systemd/system/nginx.service",
        "Requires": "system.slice php-fpm.service",
        "Wants": "cert.service",
        "Conflicts": "shutdown.target apache2.service",
        "ExecStart": "{ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx -g daemon on; ; ignore_errors=no ; pid=0 }",
        "PropagatesReloadTo": "nginx-stats.service",
    },
    "nginx-stats.service": {"BindsTo": "nginx.service"},
    "php-fpm.service": {"RequiredBy": "nginx.service", "ActiveState": "inactive"},
    "cert.service": {"ActiveState": "failed"},
    "apache2.service": {"BoundBy": "apache-exporter.service"},
    "apache-exporter.service": {},
    "shutdown.target": {"ActiveState": "inactive"},
    "postgresql.service": {
        "RequiredBy": "pooler.service",
        "BoundBy": "backup.timer",
        "ConsistsOf": "postgresql@15-main.service",
        "PropagatesStopTo": "exporter.service",
    },
    "postgresql@.service": {"FragmentPath": "/lib/systemd/system/postgresql@.service"},
    "postgresql@15-main.service": {
        "PartOf": "postgresql.service",
        "FragmentPath": "/lib/systemd/system/postgresql@.service",
        "ExecStart": "{ path=/usr/bin/pg_ctlcluster ; argv[]=/usr/bin/pg_ctlcluster 15-main start ; pid=1 }",
    },
    "pooler.service": {"RequiredBy": "app.service", "Requires": "postgresql.service vpn.service"},
    "app.service": {},
    "exporter.service": {},
    "backup.timer": {"ActiveState": "inactive", "BoundBy": "backup-report.service"},
    "backup-report.service": {},
    "vpn.service": {"StopWhenUnneeded": "yes"},
    "store.service": {"ExecStart": "{ path=/usr/lib/postgresql/15/bin/postgres ; argv[]=postgres -D /x ; pid=7 }"},
    "ring-a.service": {"RequiredBy": "ring-b.service"},
    "ring-b.service": {"RequiredBy": "ring-a.service"},
    "gone.service": {"LoadState": "not-found", "ActiveState": "active"},
}
System = Callable[..., UnitTargets]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A way to say what systemctl knows and how it behaves."""

    def have(
        units: dict[str, dict[str, str]] = UNITS, mode: str = "well", timeout_seconds: float = 10.0
    ) -> UnitTargets:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "units.json").write_text(json.dumps(units))
        (folder / "mode").write_text(mode)
        shutil.copy(Path(__file__).with_name("fake_systemctl.py"), folder / "fake.py")
        program = folder / "systemctl"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "{folder}/fake.py" "$@"\n')
        program.chmod(0o755)
        return UnitTargets(str(program), timeout_seconds=timeout_seconds)

    return have


def _unit(units: UnitTargets, name: str) -> Target:
    (target,) = units.resolve("unit", name, NOTHING)
    return target


def _pulled(units: UnitTargets, name: str, operation: str) -> list[str]:
    return [found.id for found in units.pulled_along(_unit(units, name), operation, NOTHING)]


@pytest.mark.parametrize("name", ["nginx", "nginx.service", "www", "www.service"])
def test_every_name_of_a_unit_is_the_unit(system: System, name: str) -> None:
    target = _unit(system(), name)
    assert target.key == "unit:nginx.service"
    assert {"www.service", "process:nginx"} <= set(target.names)


def test_an_instance_is_known_by_its_template(system: System) -> None:
    target = _unit(system(), "postgresql@16-new")
    assert target.id == "postgresql@16-new.service"
    assert "postgresql@.service" in target.names
    assert Patterns(["unit:postgresql"]).match(target)


def test_a_database_under_another_name_is_a_database_by_what_it_runs(system: System) -> None:
    assert classes_of(_unit(system(), "store")) == ("database",)


def test_an_unknown_unit_is_not_found(system: System) -> None:
    with pytest.raises(NotFound):
        _unit(system(), "no-such-thing")


def test_a_unit_that_runs_without_its_file_is_there(system: System) -> None:
    assert _unit(system(), "gone").id == "gone.service"


def test_a_pattern_is_all_units_that_match_it(system: System) -> None:
    assert [found.id for found in system().resolve("unit", "nginx*", NOTHING)] == [
        "nginx-stats.service",
        "nginx.service",
    ]
    with pytest.raises(NotFound):
        system().resolve("unit", "zzz*", NOTHING)


def test_a_stop_takes_what_needs_the_unit_transitively(system: System) -> None:
    """And passes through units at rest, and ends what nobody needs any more."""
    assert _pulled(system(), "postgresql", "unit.stop") == [
        "app.service",
        "backup-report.service",
        "exporter.service",
        "pooler.service",
        "postgresql@15-main.service",
        "vpn.service",
    ]


def test_a_ring_of_units_comes_to_an_end(system: System) -> None:
    assert _pulled(system(), "ring-a", "unit.stop") == ["ring-b.service"]


def test_a_start_brings_up_what_is_at_rest_and_ends_its_rivals(system: System) -> None:
    assert _pulled(system(), "nginx", "unit.start") == [
        "apache-exporter.service",
        "apache2.service",
        "cert.service",
        "php-fpm.service",
    ]


def test_a_restart_is_a_stop_and_a_start(system: System) -> None:
    units = system()
    assert set(_pulled(units, "nginx", "unit.restart")) == {
        *_pulled(units, "nginx", "unit.stop"),
        *_pulled(units, "nginx", "unit.start"),
    }


def test_a_reload_goes_where_it_is_propagated(system: System) -> None:
    assert _pulled(system(), "nginx", "unit.reload") == ["nginx-stats.service"]


def test_enabling_touches_nothing_that_runs(system: System) -> None:
    assert _pulled(system(), "nginx", "unit.enable") == []


def test_an_unknown_operation_counts_as_a_stop(system: System) -> None:
    assert "app.service" in _pulled(system(), "postgresql", "unit.frobnicate")


def test_isolating_a_target_touches_everything_that_runs(system: System) -> None:
    found = _pulled(system(), "ring-a", "unit.isolate")
    assert {"postgresql.service", "nginx.service", "app.service"} <= set(found)
    assert "shutdown.target" not in found


def test_more_units_than_a_plan_can_show_are_refused(system: System) -> None:
    many = {f"u{number}.service": {} for number in range(1100)}
    units = system({"hub.service": {"RequiredBy": " ".join(many)}, **many})
    with pytest.raises(Invalid, match="more than a plan can show"):
        _pulled(units, "hub", "unit.stop")


@pytest.mark.parametrize("name", ["", "-H", "--host=x", "a b", "nginx\0", "ngin\u0445", "../x", "x;reboot", "n" * 300])
def test_what_is_no_unit_name_never_reaches_systemctl(name: str) -> None:
    with pytest.raises(Invalid):
        UnitTargets("/nonexistent/systemctl").resolve("unit", name, NOTHING)


@pytest.mark.parametrize("mode", ["garbage", "bytes", "half", "lines", "cut", "fewer", "fails", "flood", "empty"])
def test_a_systemctl_that_misbehaves_is_a_refusal(system: System, mode: str) -> None:
    with pytest.raises(Transient):
        system(mode=mode).resolve("unit", "nginx", NOTHING)


def test_a_systemctl_that_hangs_is_a_refusal_in_time_and_is_ended(system: System, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(Transient, match="in time"):
        system(mode="hang", timeout_seconds=0.5).resolve("unit", "nginx", NOTHING)
    assert time.monotonic() - begin < 5
    needle = str(tmp_path / "bin").encode()
    assert not [process for process in Path("/proc").glob("[0-9]*") if needle in _command_line(process)]


def test_a_misbehaving_systemctl_refuses_what_is_pulled_along_too(system: System) -> None:
    target = _unit(system(), "postgresql")
    for mode in ("half", "lines", "fewer", "more", "fails"):
        with pytest.raises(InterlockError):
            system(mode=mode).pulled_along(target, "unit.stop", NOTHING)
    for mode in ("fails", "cut", "garbage"):
        with pytest.raises(Transient):
            system(mode=mode).pulled_along(target, "unit.isolate", NOTHING)


def test_a_machine_without_systemctl_has_no_units() -> None:
    with pytest.raises(NotFound) as refusal:
        UnitTargets("/nonexistent/systemctl").resolve("unit", "nginx", NOTHING)
    assert refusal.value.code == "program.absent"


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
