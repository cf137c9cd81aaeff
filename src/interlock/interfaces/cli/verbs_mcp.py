"""The verbs of the Model Context Protocol: mcp, connect, and tools for the other way round."""

from __future__ import annotations

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import NotFound
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.errors import NOTHING_DONE_YET
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen
    from interlock.interfaces.mcp.configuration import Change

app = typer.Typer()


class Program(StrEnum):
    """The agent programs whose configuration we know."""

    CLAUDE = "claude"
    CODEX = "codex"
    CURSOR = "cursor"


@verb(
    app,
    "mcp",
    summary=say("Serve the door to one AI agent over standard input and output (MCP)."),
    more=say("Started by the agent's own program, not by hand; `interlock connect` writes its configuration."),
    examples=("interlock mcp --as claude", "interlock mcp --as codex --project /srv/shop"),
)
def serve_mcp(caller: Caller) -> Answer:
    """Until standard input ends; standard output belongs to the protocol."""
    from interlock.engine.loop import run_loop
    from interlock.interfaces.mcp.stdio import serve_stdio

    locations, acting_as = caller.locations(), caller.acting_as
    caller.resident.connection.call("hello", acting_as=acting_as)
    caller.close()
    run_loop(serve_stdio(locations.door_socket, locations.trusted_uids(), acting_as))
    return Answer()


@verb(
    app,
    "connect",
    summary=say("Tell an agent program how to reach Interlock: shows the change to its configuration, and asks."),
    more=say("Other entries of that file stay as they are, and the earlier file is kept beside it."),
    examples=(
        "interlock connect claude",
        "interlock connect codex --name deploy-bot --dry-run",
        "interlock connect cursor --user --yes",
    ),
)
def connect(
    caller: Caller,
    program: Annotated[Program, typer.Argument(help=say("the agent program"))],
    *,
    name: Annotated[str | None, typer.Option(help=say("the agent to be; otherwise the program's name"))] = None,
    user: Annotated[
        bool | None, typer.Option("--user/--project-scope", help=say("for all your projects, or for this one"))
    ] = None,
    dry_run: Annotated[bool, typer.Option(help=say("show the change and write nothing"))] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=say("do not ask"))] = False,
) -> Answer:
    """Writes one entry called interlock."""
    from interlock.interfaces.mcp.configuration import PROGRAMS, entry_of, plan_change, write_change

    known, agent, locations = PROGRAMS[program.value], name or program.value, caller.locations()
    # Whoever may not be this agent hears it now, and not from a program that does not start.
    caller.resident.connection.call("hello", acting_as=agent)
    caller.close()
    for_user = known.default == "user" if user is None else user
    path = Path.home() / known.user_file if for_user else locations.project_folder / known.project_file
    command = [*_ourselves(), "mcp", "--as", agent, "--project", str(locations.project_file)]
    folders = {
        "INTERLOCK_STATE_FOLDER": caller.settings.state_folder,
        "INTERLOCK_RUNTIME_FOLDER": caller.settings.runtime_folder,
    }
    entry = entry_of(known, command, {name: str(folder) for name, folder in folders.items() if folder})
    change = plan_change(known, path, entry)
    data: dict[str, object] = {"file": str(change.path), "entry": entry, "difference": change.difference}
    data |= {"changed": False, "backup": None}
    following = [known.afterwards, say("then let it ask for something: list_actions, propose")]
    if not change.needed:
        return Answer(data=data, warnings=[say("{file} says so already", file=change.path)], next=following)
    if dry_run or not (yes or _said_yes(caller, change)):
        return _not_written(data, change, shown=caller.interactive and not dry_run)
    backup = write_change(change)
    data |= {"changed": True, "backup": None if backup is None else str(backup)}
    kept = [] if backup is None else [say("the earlier file is kept as {file}", file=backup)]
    written = [say("{file} is written", file=change.path), *kept]
    return Answer(data=data, warnings=written if caller.table else [], next=following)


def _ourselves() -> list[str]:
    """The absolute command: agent programs start us with another PATH."""
    beside = Path(sys.executable).with_name("interlock")
    found = str(beside) if beside.is_file() else shutil.which("interlock")
    return [found] if found else [sys.executable, "-m", "interlock"]


def _said_yes(caller: Caller, change: Change) -> bool:
    if not caller.interactive:
        return False
    from interlock.interfaces.cli.prompt import confirm
    from interlock.interfaces.cli.screen import Screen as Terminal

    _show(Terminal(sys.stderr, colour=not caller.settings.no_color), change)
    return confirm(say("Write it?"))


def _not_written(data: dict[str, object], change: Change, *, shown: bool) -> Answer:
    answer = Answer(status="proposed", data=data, exit_code=NOTHING_DONE_YET, warnings=[say("nothing was written")])
    if not shown:
        answer.show = lambda screen: _show(screen, change)
        answer.next = [say("to write it: the same with --yes")]
    return answer


def _show(screen: Screen, change: Change) -> None:
    screen.heading(str(change.path))
    screen.block(change.difference)


@verb(
    app,
    "tools",
    summary=say("Tools of outside MCP servers: which were accepted, by whom, and the arguments they take."),
    more=say("`mcp.accept` makes another one known, and `mcp.call` calls it."),
    examples=("interlock tools", "interlock tools tickets --output json"),
)
def tools(
    caller: Caller,
    server: Annotated[str | None, typer.Argument(metavar="SERVER", help=say("only those of this server"))] = None,
) -> Answer:
    """The view `outside_tools`; with JSON, each with its schema. Raises NotFound."""
    data = caller.view("outside_tools")
    declared = [name for name in data.texts("servers") if server in (None, name)]
    found = [tool for tool in data.records("tools") if server in (None, tool.text("server"))]
    if server is not None and not declared and not found:
        msg = f"interlock.yaml declares no MCP server {server}"
        raise NotFound(msg, code="mcp.server_unknown", fix="interlock tools")

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_access import show_tools

        show_tools(screen, declared, found)

    return Answer(data={"servers": declared, "tools": [dict(tool.data) for tool in found]}, show=show)
