"""The verbs that set up and look after an installation: init, serve, stop, check, demo."""

from __future__ import annotations

import getpass
import re
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Conflict, InterlockError, Invalid, Permanent
from interlock.interfaces.cli.answer import Answer, write_note
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.resident import attach
from interlock.interfaces.cli.resident import stop as stop_resident
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.errors import FAILED, NOTHING_DONE_YET
from interlock.interfaces.messages import say
from interlock.settings import PROJECT_FILE_NAME

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()

GIT_IGNORES = "/.interlock*/"
"""The state folder, and what `restore --replace` put aside: keys and bodies are nobody's to commit."""


class Preset(StrEnum):
    """The rules to begin with."""

    OBSERVE = "observe"
    SMALL_TEAM = "small-team"
    STRICT = "strict"


@verb(
    app,
    "init",
    summary=say("Look around and write a commented interlock.yaml; nothing else is touched."),
    examples=("interlock init", "interlock init --preset strict --yes", "interlock init --project /etc/interlock"),
)
def init(
    caller: Caller,
    *,
    preset: Annotated[Preset, typer.Option(help=say("the rules to begin with"))] = Preset.SMALL_TEAM,
    name: Annotated[str | None, typer.Option(help=say("the project's name; otherwise the folder's"))] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=say("do not ask"))] = False,
) -> Answer:
    """In the folder one stands in, or that --project names."""
    from interlock.interfaces.cli.detect import look_around
    from interlock.interfaces.cli.project_text import project_text
    from interlock.interfaces.cli.prompt import confirm

    folder = (caller.project or Path.cwd()).absolute()
    folder = folder.parent if folder.name == PROJECT_FILE_NAME else folder
    file = folder / PROJECT_FILE_NAME
    if file.exists():
        msg = f"{file} exists"
        raise Conflict(msg, code="project.exists", fix="edit it, then: interlock check")
    if not folder.is_dir():
        msg = f"there is no folder {folder}"
        raise Conflict(msg, code="folder.missing", fix=f"mkdir -p {folder}")
    found = look_around(folder, Path.home(), Path("/"))
    text = project_text(name or folder.name or "default", getpass.getuser(), preset.value, str(folder), found)

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_setup import show_found

        show_found(screen, found, file)

    answer = Answer(data={"file": str(file), "preset": preset.value, "found": asdict(found)}, show=show)
    if caller.interactive and not yes:
        from interlock.interfaces.cli.screen import Screen as Terminal
        from interlock.interfaces.cli.show_setup import show_found

        show_found(Terminal(sys.stderr, colour=not caller.settings.no_color), found, file)
        if not confirm(say("Write it?")):
            return Answer(status="proposed", exit_code=NOTHING_DONE_YET, warnings=[say("nothing was written")])
        answer.show = None
    _write_project(folder, text, preset)
    answer.next = [f"$EDITOR {file}", "interlock check", "interlock exec -- uptime"]
    return answer


@verb(
    app,
    "serve",
    summary=say("Run the resident process in the foreground, with HTTP on 127.0.0.1:7410; other verbs start it alone."),
    examples=("interlock serve", "interlock serve --listen 127.0.0.1:8080", "interlock serve --environment prod"),
)
def serve(
    caller: Caller,
    *,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help=say("where HTTP is served"))] = None,
    no_http: Annotated[bool, typer.Option("--no-http", help=say("serve the socket alone"))] = False,
    environment: Annotated[
        str | None, typer.Option(metavar="NAME", help=say("the overlay of interlock.yaml to use from now on"))
    ] = None,
    background_child: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> Answer:
    """Until it is told to stop."""
    from interlock.interfaces.cli.serving import HttpWish, Readiness, serve_until_stopped

    wish = HttpWish(_address(listen), default=background_child is None, off=no_http)
    with Readiness(background_child) as readiness:
        try:
            serve_until_stopped(caller.locations(), caller.settings, readiness, wish, environment=environment)
        except InterlockError as error:
            readiness.failed(error)
            raise
    return Answer(status="stopped")


@verb(
    app,
    "stop",
    summary=say("Stop the resident process; Runs that are under way go on when it starts again."),
    examples=("interlock stop",),
)
def stop(caller: Caller) -> Answer:
    """And wait until it is gone. What it keeps running for others goes on."""
    locations = caller.locations()
    resident = attach(locations)
    pid = stop_resident(resident, acting_as=caller.acting_as) if resident is not None else None
    kept = _kept(locations.state_folder)
    if caller.table:
        write_note(say("stopped") if resident is not None else say("Interlock does not run here"))
        if kept:
            write_note(say("these go on without it: {names}", names=", ".join(kept)))
            write_note(say("to end a version of a service: interlock service stop"))
            write_note(say("a proxy ends with its last service: interlock do traffic.forget --arg workload=NAME"))
    return Answer(status="stopped", data={"pid": pid, "kept": [*kept]})


def _kept(state_folder: Path) -> list[str]:
    """What goes on; nothing is said of another account's."""
    from interlock.bootstrap.kept import kept_processes

    try:
        return [state.process.name for state in kept_processes(state_folder) if state.phase != "stopped"]
    except PermissionError:
        return []


@verb(
    app,
    "check",
    summary=say("Look for what is wrong with project, policies, database, disk and evidence."),
    examples=("interlock check", "interlock check --output json"),
)
def check(caller: Caller) -> Answer:
    """Each finding with its fix; exit code 1 when one is an error.

    Where no resident process runs, the files are looked at first: it would not start on what is not sound.
    """
    locations = caller.locations()
    findings: list[Record] = []
    if attach(locations) is None:
        from interlock.bootstrap.checking import check_files
        from interlock.interfaces.cli.verbs_config import chosen_environment

        found = check_files(locations, chosen_environment(caller, None)[0], alone=True)
        findings = [Record(each) for each in found] if any(each["level"] == "error" for each in found) else []
    findings = findings or caller.call("check", patience=say("looking")).records("findings")
    data = {"findings": [dict(finding.data) for finding in findings]}
    wrong = any(finding.text("level") == "error" for finding in findings)

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_setup import show_findings

        show_findings(screen, findings)

    return Answer(status="failed" if wrong else "ok", data=data, exit_code=FAILED if wrong else 0, show=show)


@verb(
    app,
    "demo",
    summary=say("The main job on real commands and files, told as a story; leaves a project to play with."),
    examples=("interlock demo",),
)
def demo(
    caller: Caller,
    folder: Annotated[Path | None, typer.Argument(help=say("where the project is left"))] = None,
) -> Answer:
    """Everything in it can be repeated by hand."""
    from interlock.interfaces.cli.demo import run_demo

    return Answer(exit_code=run_demo(folder, colour=caller.colour))


def _address(listen: str | None) -> str | None:
    """Raises Invalid."""
    from interlock.core.http import LISTEN_PATTERN

    if listen is not None and not re.fullmatch(LISTEN_PATTERN, listen):
        msg = f"{listen!r} is not HOST:PORT"
        raise Invalid(msg, code="serve.listen", fix="interlock serve --listen 127.0.0.1:7410")
    return listen


def _write_project(folder: Path, text: str, preset: Preset) -> None:
    """interlock.yaml, the rules, and a line for git; what is there already is left alone."""
    from interlock.engine.policy.load import write_preset
    from interlock.interfaces.cli.project_text import SCHEMA_FILE
    from interlock.interfaces.schemas import schema_named, schema_text

    try:
        policies = folder / "policies"
        if not any(policies.glob("*.cedar")):
            write_preset(policies, preset.value)
        ignore = folder / ".gitignore"
        lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
        if GIT_IGNORES not in lines:
            ignore.write_text("\n".join([*lines, GIT_IGNORES]) + "\n", encoding="utf-8")
        with (folder / PROJECT_FILE_NAME).open("x", encoding="utf-8") as file:
            file.write(text)
        schema = folder / SCHEMA_FILE
        if not schema.exists():
            schema.write_text(schema_text(schema_named("project")), encoding="utf-8")
    except OSError as error:
        msg = f"{folder} cannot be written to: {error.strerror or error}"
        raise Permanent(msg, code="folder.unusable", fix="name another folder with --project") from error
