"""The verbs about configuration: explain, show, drift, schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.interfaces.cli.answer import Answer, write_note
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.verb import verb, verbs
from interlock.interfaces.errors import FAILED
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.engine.configuration import ChosenBy, Configuration
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
config = verbs(
    app,
    "config",
    summary=say("What is configured: explain a key, show all, compare environments, schemas."),
    examples=("interlock config explain limits.runs_at_once_max", "interlock config drift staging prod"),
)

BASE_NAME = "base"
"""In `drift`: interlock.yaml without an overlay, unless an environment is called so."""

Environment = Annotated[str | None, typer.Option(metavar="NAME", help=say("as it would be in this environment"))]


@verb(
    config,
    "explain",
    group="config",
    summary=say("One key: its value, where that comes from, what it means and what it takes."),
    more=say("The end of a key is enough where only one key ends so. Also the variables that the environment may set."),
    examples=(
        "interlock config explain limits.runs_at_once_max",
        "interlock config explain runs_at_once_max --environment prod",
        "interlock config explain INTERLOCK_ENVIRONMENT",
    ),
)
def explain(
    caller: Caller,
    key: Annotated[str, typer.Argument(metavar="KEY", help=say("dotted"))],
    *,
    environment: Environment = None,
) -> Answer:
    """Raises NotFound with what is near, Invalid with all keys that end so."""
    from interlock.engine.configuration import explain as explain_key

    data = _variable(caller, key) or explain_key(_configuration(caller, environment), key)

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_config import show_explained

        show_explained(screen, Record(data))

    return Answer(data=data, show=show)


@verb(
    config,
    "show",
    group="config",
    summary=say("All that is configured, with defaults; what may be secret is hidden."),
    examples=("interlock config show", "interlock config show --environment prod --origin"),
)
def show(
    caller: Caller,
    *,
    environment: Environment = None,
    origin: Annotated[bool, typer.Option("--origin", help=say("and where each value comes from"))] = False,
) -> Answer:
    """As YAML for people, which could be written back."""
    from interlock.engine.configuration import show as show_all
    from interlock.engine.configuration import shown_values

    found = _configuration(caller, environment)
    rows, values = show_all(found), shown_values(found)

    def draw(screen: Screen) -> None:
        from interlock.interfaces.cli.show_config import show_origins, show_values

        if origin:
            show_origins(screen, [Record(row) for row in rows])
        else:
            show_values(screen, values)

    return Answer(data={"environment": found.read.project.environment, "values": rows if origin else values}, show=draw)


@verb(
    config,
    "drift",
    group="config",
    summary=say("What differs between two environments: values, policies, programs."),
    more=say("`base` is interlock.yaml without an overlay. Exit code 0: nothing differs; 1: something does."),
    examples=("interlock config drift staging prod", "interlock config drift base prod --output json"),
)
def drift(
    caller: Caller,
    one: Annotated[str, typer.Argument(metavar="A", help=say("an environment, or `base`"))],
    other: Annotated[str, typer.Argument(metavar="B", help=say("the one to compare it with"))],
) -> Answer:
    """Secrets are told by their references only."""
    from interlock.engine.configuration import drift as drift_between

    data = drift_between(_named(caller, one), _named(caller, other))
    same = data["same"] is True

    def draw(screen: Screen) -> None:
        from interlock.interfaces.cli.show_config import show_drift

        show_drift(screen, one, other, Record(data))

    return Answer(status="ok" if same else "different", data=data, exit_code=0 if same else FAILED, show=draw)


@verb(
    config,
    "schema",
    group="config",
    summary=say("The JSON Schema of a file that people write, for editors."),
    more=say("interlock.yaml names its schema in its first line: write it beside the file again after an upgrade."),
    examples=("interlock config schema", "interlock config schema project > interlock.schema.json"),
)
def schema(
    caller: Caller,
    name: Annotated[str, typer.Argument(metavar="NAME", help=say("which; see the examples"))] = "project",
) -> Answer:
    """The schema itself on standard output, or in the envelope with `--output json`."""
    from interlock.interfaces.schemas import SCHEMAS, schema_named, schema_text

    found = schema_named(name)

    def draw(screen: Screen) -> None:
        screen.raw(schema_text(found).removesuffix("\n"))

    if caller.table and name == "project":
        write_note(say("there are also: {names}", names=", ".join(each for each in SCHEMAS if each != name)))
    return Answer(data={"name": name, "known": list(SCHEMAS), "schema": found}, show=draw)


def configuration_file(caller: Caller) -> Path:
    """The interlock.yaml that the caller means. Raises NotFound, Denied."""
    return caller.locations().project_file


def chosen_environment(caller: Caller, environment: str | None) -> tuple[str | None, ChosenBy | None]:
    """The environment, and who says so: the option, the variable, or what was recorded when Interlock started."""
    from interlock.engine.environment import recorded_environment

    if environment is not None:
        return environment, "option"
    if caller.settings.environment is not None:
        return caller.settings.environment, "variable"
    record = caller.locations().environment_file
    recorded = recorded_environment(record) if os.access(record, os.R_OK) else None
    return recorded, "record" if recorded is not None else None


def _configuration(caller: Caller, environment: str | None) -> Configuration:
    from interlock.engine.configuration import Configuration
    from interlock.engine.project_file import read_project

    chosen, by = chosen_environment(caller, environment)
    read = read_project(configuration_file(caller), chosen)
    return Configuration(read, by or ("key" if read.project.environment is not None else None))


def _named(caller: Caller, name: str) -> Configuration:
    from interlock.engine.configuration import Configuration
    from interlock.engine.project_file import environments_of, read_base, read_project

    file = configuration_file(caller)
    if name == BASE_NAME and name not in environments_of(file):
        return Configuration(read_base(file), None)
    return Configuration(read_project(file, name), "option")


def _variable(caller: Caller, key: str) -> dict[str, object] | None:
    """What is known of an environment variable; an address may hold a password, so its value is not shown."""
    from interlock.settings import VARIABLES

    variable = next((each for each in VARIABLES if each.name == key), None)
    if variable is None:
        return None
    given = caller.settings.given.get(key)
    shown = given if given is None or "_URL" not in key else "(hidden)"
    source = "default" if given is None else "variable"
    return {"key": key, "value": shown, "source": source, "meaning": variable.meaning, "type": {"type": "string"}}
