"""All resolvers behind one face: every kind that programs name is resolved, and systems fall together where they do."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from interlock.adapters.devices import DeviceTargets
from interlock.adapters.docker import DockerTargets
from interlock.adapters.files import FileTargets
from interlock.adapters.kubernetes import KubernetesTargets
from interlock.adapters.names import NamedTargets
from interlock.adapters.processes import OWN_MARK, ProcessTargets
from interlock.adapters.repositories import RepositoryTargets
from interlock.adapters.resolvers import OWN_MARK as PLACE_MARK
from interlock.adapters.resolvers import ResolverSet
from interlock.adapters.systemd import UnitTargets
from interlock.core.errors import Invalid, NotFound, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Target
from interlock.core.ports import Resolvers, TargetResolver
from interlock.engine.policy.protected import Patterns

NOTHING: JsonObject = {}
PROGRAMS = Path(__file__).resolve().parents[2] / "src" / "interlock" / "commands" / "programs"
TARGET_KIND = re.compile(r"^ +(?:- |targets: \[(?:.*\}, )?)\{kind: ([a-z][a-z0-9_-]*), (?:from|name):", re.MULTILINE)
CONTAINER = "c0" * 32


class Known:
    """A resolver of one kind that knows a few names, and one way in which it fails."""

    def __init__(self, kind: str, names: dict[str, str], *, error: Exception | None = None) -> None:
        self.kinds: tuple[str, ...] = (kind,)
        self._names = names
        self._error = error

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """What is known by that name."""
        if self._error is not None:
            raise self._error
        if name not in self._names:
            msg = f"no {name}"
            raise NotFound(msg)
        return (Target(kind=kind, id=self._names[name], names=(name,)),)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:
        """On `host`, what `operation` removes; else nothing."""
        if target.kind == "host" and target.kind not in self.kinds:
            return (Target(kind=self.kinds[0], id=f"pruned-by-{operation}"),)
        return ()

    def everything(self, context: JsonObject) -> tuple[Target, ...]:
        """All that is known."""
        if self._error is not None:
            raise self._error
        return tuple(Target(kind=self.kinds[0], id=identity) for identity in self._names.values())


class Processes:
    """A process with the names that its cgroup gives it."""

    kinds: tuple[str, ...] = ("process",)

    def __init__(self, *names: str, pid: int = 41) -> None:
        self.target = Target(kind="process", id=f"{pid}:777", names=names)

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """The one process."""
        return (self.target,)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:
        """Nothing."""
        return ()


def _whole() -> ResolverSet:
    files = FileTargets()
    processes = ProcessTargets(lambda: [os.getpid()])
    return ResolverSet(
        [
            files,
            UnitTargets("/nonexistent/systemctl"),
            DockerTargets("/nonexistent/docker.sock", paths_of=files.paths_of),
            processes,
            KubernetesTargets(),
            RepositoryTargets(files.resolve),
            DeviceTargets(files.resolve),
            NamedTargets(host_names=["here"]),
        ],
        own_places=processes.own_places,
    )


def _keys(targets: tuple[Target, ...]) -> list[str]:
    return [target.key for target in targets]


def test_every_kind_that_a_known_program_names_can_be_resolved() -> None:
    named = {
        (path.name, kind)
        for path in sorted(PROGRAMS.glob("*.yaml"))
        for kind in TARGET_KIND.findall(path.read_text(encoding="utf-8"))
    }
    assert named
    kinds = set(_whole().kinds)
    assert not {(program, kind) for program, kind in named if kind not in kinds}


def test_it_is_what_actions_are_given() -> None:
    resolvers: Resolvers = _whole()
    assert isinstance(resolvers, Resolvers)


def test_every_adapter_is_a_target_resolver() -> None:
    adapters: list[TargetResolver] = [
        FileTargets(),
        UnitTargets(),
        DockerTargets(),
        ProcessTargets(),
        KubernetesTargets(),
        RepositoryTargets(FileTargets().resolve),
        DeviceTargets(FileTargets().resolve),
        NamedTargets(),
    ]
    kinds = [kind for adapter in adapters for kind in adapter.kinds]
    assert len(kinds) == len(set(kinds))


def test_an_unknown_kind_is_refused() -> None:
    resolvers = ResolverSet([NamedTargets()])
    for kind in ("spaceship", "", "f\u0456le", "process"):
        with pytest.raises(Invalid) as refusal:
            resolvers.resolve(kind, "x", NOTHING)
        assert refusal.value.code == "target.kind"
    with pytest.raises(Invalid):
        resolvers.pulled_along(Target(kind="spaceship", id="x"), "x.y", NOTHING)


def test_two_resolvers_for_one_kind_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two resolvers claim the kind host"):
        ResolverSet([NamedTargets(), Known("host", {})])


def test_a_resolver_that_finds_nothing_has_found_nothing() -> None:
    class Empty(Known):
        def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
            return ()

    with pytest.raises(NotFound):
        ResolverSet([Empty("thing", {})]).resolve("thing", "x", NOTHING)


def test_the_failure_of_a_resolver_is_the_refusal() -> None:
    resolvers = ResolverSet([Known("unit", {}, error=Transient("silent")), Processes("unit:x.service")])
    with pytest.raises(Transient):
        resolvers.resolve("unit", "nginx", NOTHING)
    with pytest.raises(Transient):
        resolvers.pulled_along(Processes("unit:x.service").target, "process.signal", NOTHING)


def test_to_kill_a_process_is_to_touch_its_unit_and_container() -> None:
    process = Processes("worker", "unit:www.service", f"container:{CONTAINER}")
    units, containers = Known("unit", {"www.service": "nginx.service"}), Known("container", {CONTAINER: CONTAINER})
    found = ResolverSet([process, units, containers]).pulled_along(process.target, "process.signal", NOTHING)
    assert _keys(found) == [f"container:{CONTAINER}", "unit:nginx.service"]


def test_a_process_in_a_container_of_another_engine_keeps_its_name() -> None:
    process = Processes(f"container:{CONTAINER}")
    resolvers = ResolverSet([process, Known("container", {})])
    assert resolvers.pulled_along(process.target, "process.signal", NOTHING) == ()
    assert Patterns([f"container:{CONTAINER}"]).match(process.target)


@pytest.mark.parametrize(
    ("target", "operation", "falls"),
    [
        (Target(kind="unit", id="docker.service"), "unit.restart", True),
        (Target(kind="unit", id="containerd.service"), "unit.stop", True),
        (Target(kind="process", id="9:1", names=("dockerd",)), "process.signal", True),
        (Target(kind="unit", id="docker.service"), "unit.enable", False),
        (Target(kind="unit", id="nginx.service"), "unit.stop", False),
    ],
)
def test_containers_fall_with_their_engine(target: Target, operation: str, falls: bool) -> None:  # noqa: FBT001
    resolvers = ResolverSet([Processes(), Known("unit", {}), Known("container", {"db": "id-of-db"})])
    assert _keys(resolvers.pulled_along(target, operation, NOTHING)) == (["container:id-of-db"] if falls else [])


def test_everything_falls_with_the_machine() -> None:
    resolvers = ResolverSet(
        [
            NamedTargets(),
            Known("unit", {"a": "a.service"}),
            Known("container", {"db": "id-of-db"}),
            Known("network", {}, error=NotFound("this machine has none")),
        ]
    )
    host = Target(kind="host", id="localhost")
    assert _keys(resolvers.pulled_along(host, "power.off", NOTHING)) == ["container:id-of-db", "unit:a.service"]


def test_everything_falls_with_the_first_process() -> None:
    resolvers = ResolverSet([Processes(pid=1), Known("unit", {"a": "a.service"})])
    first = Target(kind="process", id="1:2")
    assert _keys(resolvers.pulled_along(first, "process.signal", NOTHING)) == ["unit:a.service"]


def test_to_switch_off_a_machine_is_to_switch_off_interlock() -> None:
    host = Target(kind="host", id="localhost")
    found = _whole().pulled_along(host, "power.off", NOTHING)
    assert [target for target in found if OWN_MARK in target.names and target.id.startswith(f"{os.getpid()}:")]


def test_a_system_that_does_not_answer_stops_the_machine_from_being_switched_off() -> None:
    resolvers = ResolverSet([NamedTargets(), Known("unit", {}, error=Transient("silent"))])
    with pytest.raises(Transient):
        resolvers.pulled_along(Target(kind="host", id="localhost"), "power.off", NOTHING)


def test_a_prune_of_the_machine_asks_the_engine() -> None:
    resolvers = ResolverSet([NamedTargets(), Known("container", {})])
    host = Target(kind="host", id="localhost")
    assert _keys(resolvers.pulled_along(host, "volume.remove", NOTHING)) == ["container:pruned-by-volume.remove"]
    assert resolvers.pulled_along(host, "host.clock", NOTHING) == ()


def test_the_unit_that_interlock_runs_in_is_its_own() -> None:
    units = Known("unit", {"interlock": "interlock.service", "nginx": "nginx.service"})
    resolvers = ResolverSet([units], own_places=lambda: ["unit:interlock.service"])
    (own,) = resolvers.resolve("unit", "interlock", NOTHING)
    (other,) = resolvers.resolve("unit", "nginx", NOTHING)
    assert PLACE_MARK in own.names
    assert Patterns(["interlock:*"]).match(own)
    assert PLACE_MARK not in other.names


def test_what_a_plan_cannot_show_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interlock.adapters.resolvers.TARGETS_MAX", 2)
    resolvers = ResolverSet([NamedTargets(), Known("unit", {str(number): f"u{number}" for number in range(5)})])
    with pytest.raises(Invalid, match="more than a plan can show"):
        resolvers.pulled_along(Target(kind="host", id="localhost"), "power.off", NOTHING)
