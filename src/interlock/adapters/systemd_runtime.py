"""Runs versions of services as instances of a systemd template unit, each with a port and an environment of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from interlock.adapters.program_output import CLEAN_ENVIRONMENT, read_program
from interlock.core.errors import Conflict, Invalid, NotFound, Permanent, Transient
from interlock.core.ports import ProcessResult, ProcessSpec, StepContext
from interlock.core.service_runtime import InstancePhase, InstanceState, RuntimeFinding, VersionSpec
from interlock.core.workload import ServiceWorkload, SystemdUnit, filled
from interlock.lib.clock import Clock
from interlock.lib.random_ids import random_hex

SYSTEMCTL = "/usr/bin/systemctl"
JOURNALCTL = "/usr/bin/journalctl"
SHOW_SECONDS = 5.0
JOB_SECONDS = 120.0
FILE_BYTES_MAX = 256 * 1024
WORDS_CHARACTERS_MAX = 500
TRIED_VERSION = "interlock-check"
"""An instance that is asked about and never started."""

_ENVIRONMENT = {**CLEAN_ENVIRONMENT, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", "SYSTEMD_URLIFY": "0"}
_PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "Result", "MainPID", "NRestarts", "EnvironmentFiles"),
    *("ExecMainCode", "ExecMainStatus", "ExecMainStartTimestampMonotonic"),
)
_PHASES: dict[str, InstancePhase] = {
    "active": "running",
    "reloading": "running",
    "deactivating": "running",
    "activating": "starting",
    "failed": "given_up",
    "inactive": "stopped",
}
_EXITED, _KILLED, _DUMPED = "1", "2", "3"  # CLD_EXITED and its like of siginfo.h
_INSTANCE = re.compile(r"[A-Za-z0-9._-]+")
_QUOTED = re.compile(r'(["\\$`])')


class SystemdServices:
    """The runtime of workloads with `systemd`: the system manager, as the account that Interlock runs as may use it.

    Args:
        clock: Tells since when a unit runs.
        systemctl: The absolute path of the program.
    """

    def __init__(self, clock: Clock, systemctl: str = SYSTEMCTL) -> None:
        self._clock = clock
        self._systemctl = systemctl

    def identify(self, workload: str, version: str, declared: ServiceWorkload) -> str:  # noqa: ARG002
        """A unit is known by the files it runs, which the room looks at. Raises Invalid."""
        msg = f"{workload} runs a systemd unit, which has no image"
        raise Invalid(msg, code="service.image")

    def start(self, spec: VersionSpec, context: StepContext) -> InstanceState:
        """Write its environment, then start it."""
        unit, path, body = unit_of(spec), environment_path(spec), environment_text(spec)
        shown = self._show(unit)
        if shown["LoadState"] == "not-found":
            raise _no_template(spec.declared)
        if shown["ActiveState"] in {"active", "activating", "reloading"}:
            if _read(path) != body:
                msg = f"{unit} runs already, with another environment"
                raise Conflict(msg, code="service.other", fix="stop it first")
            return self._shown(spec, shown)
        context.hold()
        _write(path, body)
        if shown["ActiveState"] == "failed":  # given up before: its count begins anew
            self._order(context, spec, "reset-failed")
        self._order(context, spec, "start")
        return self._shown(spec, self._show(unit))

    def stop(self, spec: VersionSpec, context: StepContext) -> None:
        """Stop it and take its environment away."""
        unit = unit_of(spec)
        if self._show(unit)["ActiveState"] not in {"inactive", "failed"}:
            self._order(context, spec, "stop")
        environment_path(spec).unlink(missing_ok=True)

    def restart(self, spec: VersionSpec, context: StepContext) -> InstanceState:
        """All its processes, by systemd."""
        unit = unit_of(spec)
        if self._known(spec, self._show(unit)) is None:
            msg = f"there is no {unit}"
            raise NotFound(msg, code="service.unknown", fix="start it")
        self._order(context, spec, "restart")
        return self._shown(spec, self._show(unit))

    def state(self, spec: VersionSpec) -> InstanceState | None:
        """As systemd tells."""
        return self._known(spec, self._show(unit_of(spec)))

    def listens(self, spec: VersionSpec) -> bool | None:  # noqa: ARG002
        """A unit may be handed a socket that the service manager listens on."""
        return None

    def said(self, spec: VersionSpec, lines_max: int) -> str:
        """From the journal, as far as this account may read it."""
        argv = [JOURNALCTL, "--no-pager", "--quiet", "--output=cat", f"--lines={lines_max}", f"--unit={unit_of(spec)}"]
        answer = read_program(argv, timeout_seconds=SHOW_SECONDS, environment=_ENVIRONMENT, decode_errors="replace")
        if answer.exit_code != 0:
            words = " ".join(answer.stderr.split())[:WORDS_CHARACTERS_MAX]
            msg = f"journalctl ended with {answer.exit_code}: {words}"
            raise Transient(msg, code="systemd.failed", fix="let this account read the journal: group systemd-journal")
        return answer.stdout

    def inspect(self, workload: str, declared: ServiceWorkload) -> Iterable[RuntimeFinding]:
        """Whether the template is there, and reads the file that tells an instance its port."""
        unit = _unit(declared)
        if "{version}" not in unit.environment_file:
            yield RuntimeFinding(
                level="error",
                message=f"the environment file of {workload} is the same for all versions",
                fix="write {version} into `environment_file`, and %i where the template reads it",
            )
        shown = self._show(_instance(unit.template, TRIED_VERSION))
        if shown["LoadState"] == "not-found":
            refusal = _no_template(declared)
            yield RuntimeFinding(level="error", message=refusal.message, fix=str(refusal.fix))
            return
        if shown["LoadState"] != "loaded":
            yield RuntimeFinding(
                level="error",
                message=f"systemd cannot use {unit.template} ({shown['LoadState']})",
                fix=f"systemd-analyze verify {unit.template}",
            )
        expected = unit.environment_file.replace("{version}", TRIED_VERSION)
        if expected not in shown.get("EnvironmentFiles", ""):
            line = f"EnvironmentFile={unit.environment_file.replace('{version}', '%i')}"
            yield RuntimeFinding(
                level="error",
                message=f"{unit.template} does not read {expected}: its versions would not know their ports",
                fix=f"write {line} into its [Service] section, and systemctl daemon-reload",
            )
        if not Path(expected).parent.is_dir():
            yield RuntimeFinding(
                level="error",
                message=f"there is no folder {Path(expected).parent}, where the ports of {workload} are written",
                fix=f"mkdir -p {Path(expected).parent}",
            )

    def _known(self, spec: VersionSpec, shown: Mapping[str, str]) -> InstanceState | None:
        """An instance that never was is one that rests and has no environment."""
        rests = shown["ActiveState"] == "inactive"
        if shown["LoadState"] == "not-found" and rests:
            return None
        return None if rests and not environment_path(spec).exists() else self._shown(spec, shown)

    def _shown(self, spec: VersionSpec, shown: Mapping[str, str]) -> InstanceState:
        phase = _PHASES.get(shown["ActiveState"], "stopped")
        if shown.get("SubState") == "auto-restart":
            phase = "waiting"
        runs = phase in {"running", "starting"}
        return InstanceState(
            phase=phase,
            address=spec.address,
            pid=int(shown.get("MainPID") or 0) or None,
            started_at=self._moment(shown.get("ExecMainStartTimestampMonotonic")) if runs else None,
            restarts=int(shown.get("NRestarts") or 0),
            last_exit=_last_exit(shown),
            log=f"journalctl --unit={shown['Id']}",
        )

    def _moment(self, microseconds: str | None) -> datetime | None:
        """It counts without suspended time, and so it may be a little late."""
        passed = self._clock.monotonic() - int(microseconds or 0) / 1e6
        return self._clock.now() - timedelta(seconds=passed) if microseconds and int(microseconds) else None

    def _show(self, unit: str) -> dict[str, str]:
        words = ("--no-pager", "--no-ask-password", "show", "-p", ",".join(_PROPERTIES), "--", unit)
        answer = read_program([self._systemctl, *words], timeout_seconds=SHOW_SECONDS, environment=_ENVIRONMENT)
        found = dict(line.partition("=")[::2] for line in answer.stdout.splitlines() if "=" in line)
        if answer.exit_code != 0 or not {"Id", "LoadState", "ActiveState"} <= found.keys():
            said = " ".join(answer.stderr.split())[:WORDS_CHARACTERS_MAX]
            msg = f"systemctl show {unit} ended with {answer.exit_code}: {said or 'nothing sensible'}"
            raise Transient(msg, code="systemd.failed", fix="systemctl is-system-running")
        return found

    def _order(self, context: StepContext, spec: VersionSpec, verb: str) -> None:
        """Raises Permanent when systemd refuses, Transient when it does not come to an end."""
        unit = unit_of(spec)
        argv = (self._systemctl, "--no-pager", "--no-ask-password", verb, "--", unit)
        seconds = JOB_SECONDS + spec.declared.stop_grace_seconds
        result = context.execute(
            ProcessSpec(path=self._systemctl, argv=argv, environment=_ENVIRONMENT, timeout_seconds=seconds)
        )
        if result.timed_out:
            msg = f"systemctl {verb} {unit} did not end in {seconds:g} s"
            raise Transient(msg, code="systemd.slow", fix=f"systemctl status {unit}")
        if result.exit_code != 0:
            msg = f"systemctl {verb} {unit} failed: {_words(result)}"
            raise Permanent(msg, code="systemd.refused", fix=f"systemctl status {unit}; journalctl --unit={unit}")


def unit_of(spec: VersionSpec) -> str:
    """web@v1.4.service. Raises Invalid for a version whose name is no instance's."""
    return _instance(_unit(spec.declared).template, spec.version)


def environment_path(spec: VersionSpec) -> Path:
    """Where the instance reads its port."""
    return Path(_unit(spec.declared).environment_file.replace("{version}", spec.version))


def environment_text(spec: VersionSpec) -> str:
    """As systemd.exec(5) reads an EnvironmentFile. Raises Invalid for what cannot be written there."""
    places = {"port": str(spec.port), "version": spec.version, "workload": spec.workload}
    places |= {"source": spec.source} if spec.source is not None else {}
    given = dict(zip(spec.declared.environment, filled(spec.declared.environment.values(), places), strict=True))
    own = {"PORT": str(spec.port), "VERSION": spec.version, "SOURCE": spec.source or ""}
    lines = ["# Written by Interlock before it starts this version."]
    for name, value in {**own, **given}.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not value.isprintable():
            msg = f"{name} cannot be written into an environment file of systemd"
            raise Invalid(msg, code="systemd.environment", fix="use a plain name, and a value of one line")
        escaped = _QUOTED.sub(r"\\\1", value)
        lines.append(f'{name}="{escaped}"')
    return "\n".join(lines) + "\n"


def _unit(declared: ServiceWorkload) -> SystemdUnit:
    if declared.systemd is None:
        msg = "this workload has no systemd unit"
        raise Invalid(msg, code="service.runtime")
    return declared.systemd


def _instance(template: str, version: str) -> str:
    if not _INSTANCE.fullmatch(version):
        msg = f"{version} cannot be the name of a unit's instance"
        raise Invalid(msg, code="systemd.version", fix="name versions by letters, digits, dots, dashes and underscores")
    return template.replace("@.", f"@{version}.")


def _no_template(declared: ServiceWorkload) -> Permanent:
    template = _unit(declared).template
    msg = f"systemd knows no template {template}"
    return Permanent(msg, code="systemd.no_template", fix=f"write /etc/systemd/system/{template}, then daemon-reload")


def _last_exit(shown: Mapping[str, str]) -> str | None:
    status = shown.get("ExecMainStatus", "")
    if shown.get("ExecMainCode") == _EXITED:
        return f"exit {status}"
    return f"signal {status}" if shown.get("ExecMainCode") in {_KILLED, _DUMPED} else None


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise Permanent(msg, code="systemd.environment", fix="let Interlock's account own it") from error


def _write(path: Path, body: str) -> None:
    """Whole or not at all, for its owner alone: what is in it may be secret."""
    new = path.with_name(f".{path.name}.{random_hex(6)}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.write(body)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        msg = f"{path} cannot be written: {error.strerror}"
        raise Permanent(
            msg, code="systemd.environment", fix=f"mkdir -p {path.parent}, writable by Interlock"
        ) from error


def _words(result: ProcessResult) -> str:
    return " ".join(result.tail.split())[-WORDS_CHARACTERS_MAX:] or f"exit {result.exit_code}"
