"""Turns the name of a systemd unit into the unit it really is, and tells what stopping or starting it pulls along."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from interlock.adapters.names import require_ascii, unique
from interlock.adapters.program_output import CLEAN_ENVIRONMENT, read_program
from interlock.core.errors import Invalid, NotFound, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Target

SYSTEMCTL = "/usr/bin/systemctl"
UNITS_MAX = 1000
UNITS_PER_CALL = 100

_NAME = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9:_.\\@-]{0,254}")
_PATTERN = re.compile(r"[A-Za-z0-9_:*?\[][A-Za-z0-9:_.\\@*?\[\]-]{0,254}")
_EXECUTABLE = re.compile(r"\bpath=([^ ;]+)")

# Which dependencies carry a job on, after the table of "dependency atoms" in systemd's unit-dependency-atom.c and
# systemd.unit(5), "Mapping of unit properties to their inverses".
STOP_TO = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo", "SliceOf")
START_TO = ("Requires", "BindsTo", "Wants", "Upholds")
CONFLICTS = ("Conflicts", "ConflictedBy")
RELOAD_TO = ("PropagatesReloadTo",)
LISTS = (*STOP_TO, *START_TO, *CONFLICTS, *RELOAD_TO)
_PROPERTIES = (
    "Id",
    "Names",
    "LoadState",
    "ActiveState",
    "FragmentPath",
    "Following",
    "StopWhenUnneeded",
    "ExecStart",
    *LISTS,
)

_NEVER_EMPTY = ("Id", "LoadState", "ActiveState")
_ALWAYS_TOLD = (
    *_NEVER_EMPTY,
    "RequiredBy",
    "BoundBy",
    "Conflicts",
    "StopWhenUnneeded",
)  # by every version, for every unit

_AT_REST = frozenset({"inactive", "failed"})
_TOUCHES_NO_OTHER = frozenset({"enable", "disable", "mask", "unmask", "reset", "daemon_reload"})
EVERYTHING = frozenset({"unit.isolate", "unit.default", "unit.rescue", "unit.emergency", "unit.daemon_reexec"})


@dataclass(frozen=True)
class Unit:
    """One unit as `systemctl show` describes it. A property that an older systemd does not know is empty."""

    properties: dict[str, str]

    @property
    def id(self) -> str:
        """The canonical name."""
        return self.properties["Id"]

    @property
    def is_at_rest(self) -> bool:
        """Whether stopping it changes nothing; an unknown state is not rest."""
        return self.properties.get("ActiveState") in _AT_REST

    @property
    def exists(self) -> bool:
        """A unit whose file is gone may still run."""
        return self.properties["LoadState"] != "not-found" or not self.is_at_rest

    @property
    def needs_to_be_needed(self) -> bool:
        """Whether systemd stops it once nothing needs it any more."""
        return self.properties.get("StopWhenUnneeded") == "yes"

    def others(self, lists: Iterable[str]) -> tuple[str, ...]:
        """The units named in these dependency lists."""
        return unique(name for key in lists for name in self.properties.get(key, "").split())

    def target(self, names: Iterable[str] = ()) -> Target:
        """Its identity, with its aliases, the name of its file, and the programs it runs (`process:postgres`)."""
        aliases = self.properties.get("Names", "").split()
        programs = (posixpath.basename(path) for path in _EXECUTABLE.findall(self.properties.get("ExecStart", "")))
        found = unique(
            (
                *names,
                *aliases,
                posixpath.basename(self.properties.get("FragmentPath", "")),
                self.properties.get("Following", ""),
                *(f"process:{program}" for program in programs),
            ),
            besides=self.id,
        )
        return Target(kind="unit", id=self.id, names=found)


class UnitTargets:
    """Units of the system manager.

    Args:
        systemctl: The absolute path of the program.
        timeout_seconds: For each question to it.
        questions_max: How often one resolution may ask, so that it ends.
    """

    kinds: tuple[str, ...] = ("unit",)

    def __init__(self, systemctl: str = SYSTEMCTL, *, timeout_seconds: float = 5.0, questions_max: int = 40) -> None:
        self._systemctl = systemctl
        self._timeout_seconds = timeout_seconds
        self._questions_max = questions_max

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """One unit, or all loaded units that a pattern (`php*`) matches.

        Raises: Invalid (no unit's name), NotFound (no such unit), Transient (systemd did not answer, or not sensibly).
        """
        is_pattern = bool(set(name) & set("*?["))
        require_ascii("unit", name, _PATTERN if is_pattern else _NAME)
        found = [unit for unit in self._show([name], at_least=0 if is_pattern else 1) if unit.exists]
        if not found:
            msg = f"there is no unit {name}"
            raise NotFound(msg, code="unit.unknown", fix="systemctl list-units --all")
        if is_pattern:
            return tuple(unit.target() for unit in sorted(found, key=lambda unit: unit.id))
        return tuple(unit.target([name]) for unit in found)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:
        """The other units that a job on this one would stop, restart, start or reload, transitively.

        An active unit is taken to have what it needs, and a unit at rest is not touched by a stop. `unit.isolate` and
        its like touch everything. An operation that is not known counts as a stop.

        Raises: Invalid (more units than a plan can show), Transient.
        """
        if operation in EVERYTHING:
            return tuple(found for found in self.everything(context) if found.key != target.key)
        verb = operation.rpartition(".")[2]
        units: dict[str, Unit] = {}
        ask = _Questions(self._show, self._questions_max, units)
        if verb.startswith("reload") and "restart" not in verb:
            touched = ask.closure([target.id], RELOAD_TO, through=_always)
        elif verb in _TOUCHES_NO_OTHER:
            touched = set()
        else:
            touched = set() if verb == "start" else self._stopped(ask, [target.id])
            if verb != "stop":
                touched |= self._started(ask, target.id)
        return tuple(units[name].target() for name in sorted(touched - {target.id}))

    def everything(self, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """Every unit that is not at rest. Raises Invalid when they are more than a plan can show, Transient."""
        found = [unit for unit in self._show(["*"], at_least=0) if not unit.is_at_rest]
        _require_few(len(found))
        return tuple(unit.target() for unit in sorted(found, key=lambda unit: unit.id))

    def _stopped(self, ask: _Questions, names: Sequence[str]) -> set[str]:
        """What falls with these units, and what nobody needs any more after that."""
        fallen = ask.closure(names, STOP_TO, through=_always)
        needed = unique(name for unit in (*fallen, *names) for name in ask.units[unit].others(START_TO))
        idle = {unit.id for unit in ask.many(needed) if unit.needs_to_be_needed}
        return {name for name in fallen | idle if not ask.units[name].is_at_rest}

    def _started(self, ask: _Questions, name: str) -> set[str]:
        """What comes up with this unit, and what must make room for that."""
        risen = ask.closure([name], START_TO, through=lambda unit: unit.is_at_rest)
        risen = {other for other in risen if ask.units[other].is_at_rest and ask.units[other].exists}
        rivals = unique(rival for unit in (*risen, name) for rival in ask.units[unit].others(CONFLICTS))
        running = [unit.id for unit in ask.many(rivals) if not unit.is_at_rest and unit.id != name]
        return risen | set(running) | (self._stopped(ask, running) if running else set())

    def _show(self, names: Sequence[str], *, at_least: int) -> list[Unit]:
        """Ask systemd about several names; at least one block for each plain name."""
        argv = [self._systemctl, "--no-pager", "--no-ask-password", "show", "-p", ",".join(_PROPERTIES), "--", *names]
        environment = {**CLEAN_ENVIRONMENT, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", "SYSTEMD_URLIFY": "0"}
        answer = read_program(argv, timeout_seconds=self._timeout_seconds, environment=environment)
        if answer.exit_code != 0:
            msg = f"systemctl show ended with {answer.exit_code}: {_first_line(answer.stderr)}"
            raise Transient(msg, code="systemd.failed", fix="systemctl is-system-running")
        units = _parse(answer.stdout)
        if len(units) < at_least:
            msg = f"systemctl show told of {len(units)} units where {at_least} were asked for"
            raise Transient(msg, code="systemd.unreadable", fix="run systemctl show by hand and look")
        return units


class _Questions:
    """The units that one resolution has asked about so far, with a bound on both units and questions."""

    def __init__(self, show: Callable[..., list[Unit]], questions_max: int, units: dict[str, Unit]) -> None:
        self._show = show
        self._left = questions_max
        self.units = units
        self._aliases: dict[str, str] = {}

    def many(self, names: Sequence[str]) -> list[Unit]:
        """The units of these names, asked for where they are not known yet."""
        missing = [name for name in unique(names) if name not in self._aliases]
        for begin in range(0, len(missing), UNITS_PER_CALL):
            part = missing[begin : begin + UNITS_PER_CALL]
            self._left -= 1
            if self._left < 0:
                msg = "this would touch more units than can be looked at"
                raise Invalid(msg, code="unit.too_wide", fix="name a smaller unit")
            units = self._show(part, at_least=len(part))
            if len(units) != len(part):
                msg = f"systemctl show told of {len(units)} units where {len(part)} were asked for"
                raise Transient(msg, code="systemd.unreadable", fix="run systemctl show by hand and look")
            for name, unit in zip(part, units, strict=True):
                self._aliases[name] = unit.id
                self.units.setdefault(unit.id, unit)
        _require_few(len(self.units))
        return [self.units[self._aliases[name]] for name in unique(names)]

    def closure(self, names: Sequence[str], lists: Iterable[str], *, through: Callable[[Unit], bool]) -> set[str]:
        """All units that can be reached along these lists, the first ones not counted unless they are reached again.

        `through` says whether the search goes on behind a unit; it always does behind the first ones.
        """
        lists = tuple(lists)
        waiting = self.many(names)
        found: set[str] = set()
        first = True
        while waiting:
            onward = unique(name for unit in waiting if first or through(unit) for name in unit.others(lists))
            waiting = [unit for unit in self.many(onward) if unit.id not in found]
            found.update(unit.id for unit in waiting)
            first = False
        return found


def _always(_unit: Unit) -> bool:
    return True


def _parse(text: str) -> list[Unit]:
    """Blocks of `Key=value` lines with an empty line between them, as `systemctl show` prints them.

    ExecStart may be given several times. Raises Transient for what is not of that form or was cut short.
    """
    if text and not text.endswith("\n"):
        msg = "the answer of systemctl show is cut short"
        raise Transient(msg, code="systemd.unreadable", fix="run systemctl show by hand and look")
    units: list[Unit] = []
    for block in re.split(r"\n\n+", text.strip("\n")):
        properties: dict[str, str] = {}
        for line in block.split("\n") if block else ():
            key, equals, value = line.partition("=")
            if not equals or not key.isalnum():
                msg = "the answer of systemctl show is not of the form Key=value"
                raise Transient(msg, code="systemd.unreadable", fix="run systemctl show by hand and look")
            properties[key] = f"{properties[key]} {value}" if key in properties else value
        if not properties:
            continue
        missing = [key for key in _ALWAYS_TOLD if key not in properties] + [
            key for key in _NEVER_EMPTY if not properties.get(key)
        ]
        if missing:
            msg = f"the answer of systemctl show lacks {missing[0]}"
            raise Transient(msg, code="systemd.unreadable", fix="run systemctl show by hand and look")
        units.append(Unit(properties))
    return units


def _require_few(count: int) -> None:
    if count > UNITS_MAX:
        msg = f"this would touch {count} units, more than a plan can show"
        raise Invalid(msg, code="unit.too_wide", fix="name a smaller unit")


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:200]
