"""What the shell offers after TAB: numbers of Runs, names of actions; silent when no resident process runs."""

from __future__ import annotations

import os
from pathlib import Path

from interlock.core.errors import InterlockError
from interlock.interfaces.cli.record import Record
from interlock.settings import find_project_file, locate, read_settings

OFFERED_MAX = 30


def complete_run(incomplete: str) -> list[tuple[str, str]]:
    """Numbers of the newest Runs, with what they are about."""
    runs = _ask("runs", {"limit": OFFERED_MAX}).records("runs")
    offered = [(run.text("number"), f"{run.text('state')} {run.text('summary')}") for run in runs]
    return [(number, about) for number, about in offered if number.startswith(incomplete)]


def complete_action(incomplete: str) -> list[tuple[str, str]]:
    """Names of actions, with what they do."""
    actions = _ask("actions", {}).records("actions")
    offered = [(action.text("name"), action.text("summary")) for action in actions]
    return [(name, about) for name, about in offered if name.startswith(incomplete)]


def _ask(view: str, args: dict[str, object]) -> Record:
    """A view of the process that runs; nothing is started for a press of TAB."""
    from interlock.interfaces.cli.resident import attach

    try:
        settings, uid = read_settings(), os.geteuid()
        resident = attach(locate(find_project_file(None, settings, Path.cwd(), uid), settings, uid))
        if resident is None:
            return Record({})
        with resident.connection as connection:
            return Record(connection.call("view", {"name": view, "args": args}, timeout_seconds=2.0)).record("data")
    except InterlockError:
        return Record({})  # the shell has no place for words of ours; the command itself will say it
