"""Writes docs/reference from the code: `python -m interlock.interfaces.reference [FOLDER]`."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import typer

from interlock.commands.library import load_library
from interlock.core.errors import ERRORS
from interlock.core.project import Preset
from interlock.core.run import RunState
from interlock.engine.catalog import find_action_classes, find_view_classes
from interlock.engine.documented_schema import project_json_schema
from interlock.engine.metrics import METRICS
from interlock.engine.views import describe_action
from interlock.interfaces.cli.app import MODULES, build
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.show_actions import example_of, type_in_words
from interlock.interfaces.errors import ERROR_CODES, EXIT_CODES, STATE_CODES
from interlock.interfaces.http.app import described
from interlock.interfaces.mcp.tools import AGENT_TOOLS
from interlock.interfaces.mcp.view_tools import PREFIX
from interlock.interfaces.messages import set_language
from interlock.interfaces.schemas import SCHEMAS, schema_text
from interlock.settings import AGENT_MARKS, VARIABLES

FOLDER = Path("docs/reference")
HELP_COLUMNS = 96
SCHEMA_FOLDER = "schemas"
_PATTERN = re.compile(r"\^\S+\$(?=,|\s|$)")


def write_reference(folder: Path) -> None:
    """Write every page; the same code always gives the same bytes."""
    (folder / SCHEMA_FOLDER).mkdir(parents=True, exist_ok=True)
    for name, text in {**pages(), **schemas()}.items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name -> text."""
    set_language("en")
    made = {
        "cli.md": _cli(),
        "actions.md": _actions(),
        "programs.md": _programs(),
        "configuration.md": _configuration(),
        "errors.md": _errors(),
        "settings.md": _settings(),
        "views.md": _views(),
        "http.md": _http(),
        "mcp.md": _mcp(),
        "policies.md": _policies(),
        "metrics.md": _metrics(),
    }
    index = [f"- [{text.partition(chr(10))[0].removeprefix('# ')}]({name})" for name, text in made.items()]
    return {"README.md": _page("Reference", index), **made}


def schemas() -> dict[str, str]:
    """File name -> JSON Schema."""
    return {f"{SCHEMA_FOLDER}/{name}.schema.json": schema_text(make()) for name, make in SCHEMAS.items()}


def _page(title: str, lines: Iterable[str]) -> str:
    note = "Written by `make docs` from the code; do not edit."
    return "\n".join([f"# {title}", "", note, "", *lines]).rstrip() + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(head), line(("---",) * len(head)), *map(line, rows), ""]


def _taken(schema: Record, required: bool) -> str:
    """What a value must be; a regular expression is code, in which no reader looks for links."""
    return _PATTERN.sub(r"`\g<0>`", type_in_words(schema, required))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cli() -> str:
    lines = ["Every verb takes `--output json|yaml|table`: `{ok, status, data, warnings, next}` on standard output,"]
    lines += ["prose on standard error. `ok` alone says whether all went well.", ""]
    lines += _table(("exit code", "meaning"), ((str(code), text) for code, text in EXIT_CODES.items()))
    root: Any = typer.main.get_command(build())
    for words in MODULES.values():
        for word in words:
            for name, command in _commands(f"interlock {word}", root.commands[word]):
                lines += [f"## {name.removeprefix('interlock ')}", "", "```", _help(name, command), "```", ""]
    return _page("Command line", lines)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    else:
        for word, each in inner.items():
            yield from _commands(f"{name} {word}", each)


def _help(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=name, terminal_width=HELP_COLUMNS)
    text: str = command.get_help(context)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _actions() -> str:
    lines = [
        "Everything that can be asked for. `interlock actions NAME` shows one, `interlock do NAME` asks for it.",
        "",
    ]
    for cls in find_action_classes():
        if cls.__module__.startswith("interlock."):
            action = Record(describe_action(cls))
            lines += [f"## {cls.name}", "", cls.summary, "", *_arguments(action.record("arguments"))]
            lines += ["```console", f"$ {example_of(action)}", "```", ""]
    return _page("Actions", lines)


def _arguments(schema: Record) -> list[str]:
    required = set(schema.texts("required"))
    properties = schema.record("properties")
    told = [schema.text("description"), ""] if schema.text("description") else []
    if not properties:
        return told
    rows = ((_code(name), _taken(properties.record(name), name in required)) for name in properties.data)
    return [*told, *_table(("argument", "takes"), rows)]


def _programs() -> str:
    library = load_library()
    lines = [
        "What `interlock exec` knows. A form that changes nothing and discloses no secret runs at once; any other",
        "command is opaque: a person decides each time. To add your own: [adopt a script](../howto/adopt-a-script.md).",
        "",
    ]
    for name, program in sorted(library.programs.items()):
        if name != program.program:
            continue
        rows = []
        for form in program.forms:
            effect = f"{form.risk} risk" if form.changes else "looks"
            back = "" if not form.changes else f"`{' '.join(form.undo.argv)}`" if form.undo else form.irreversible or ""
            rows.append((_code(form.match[0]), form.summary, effect, form.discloses, back))
        lines += [f"## {name}", "", program.summary, ""]
        lines += _table(("for example", "what", "effect", "discloses", "taken back by"), rows)
    return _page("Programs", lines)


def _configuration() -> str:
    schema = Record(project_json_schema())
    lines = ["`interlock.yaml`. `interlock init` writes one, `interlock check` says what is wrong with which line.", ""]
    lines += ["## The file", "", *_keys(schema)]
    for name, inner in sorted(schema.record("$defs").data.items()):
        record = Record(inner)
        lines += [f"## {name}", "", record.text("description").replace("\n", " "), "", *_keys(record)]
    links = (f"[{name}](schemas/{name}.schema.json)" for name in SCHEMAS)
    lines += ["## JSON Schemas, for editors", "", ", ".join(links), "", "`interlock config schema NAME` prints one."]
    return _page("Configuration", lines)


def _keys(schema: Record) -> list[str]:
    required, properties = set(schema.texts("required")), schema.record("properties")
    rows = [(_code(name), _type(properties.record(name), name in required)) for name in properties.data]
    return _table(("key", "takes"), rows) if rows else []


def _type(schema: Record, required: bool) -> str:
    own = schema.text("$ref").rpartition("/")[2]
    if own:
        return f"[{own}](#{own.lower()})"
    words = _taken(schema, required)
    inner = [
        schema.record("items").text("$ref"),
        schema.record("additionalProperties").text("$ref"),
    ]
    names = [reference.rpartition("/")[2] for reference in inner if reference]
    return f"{words} of [{names[0]}](#{names[0].lower()})" if names else words


def _errors() -> str:
    lines = ["An error is `{kind, code, message, fix, details}`. The kind says what to do, the code what it is.", ""]
    rows = []
    for kind, cls in ERRORS.items():
        code = ERROR_CODES[kind]
        about = (cls.__doc__ or "").splitlines()[0]
        rows.append((_code(kind), about, str(code.exit_code), str(code.http_status), str(code.mcp_code)))
    lines += _table(("kind", "meaning", "exit code", "HTTP", "MCP"), rows)
    lines += ["## States of a Run", ""]
    states = ((state.value, STATE_CODES[state.value]) for state in RunState)
    lines += _table(
        ("state", "exit code", "HTTP"),
        ((_code(name), str(code.exit_code), str(code.http_status)) for name, code in states),
    )
    lines += [
        "A Run that ran out of time exits with 124. What each state means: [states](../explanation/states.md).",
        "",
    ]
    lines += ["## Codes", "", *_table(("code", "kind", "message"), _codes())]
    return _page("Errors", lines)


def _codes() -> list[tuple[str, str, str]]:
    """One row for each code and kind; where several messages share them, the first in alphabetical order."""
    found: dict[tuple[str, str], str] = {}
    for code, kind, message in sorted(_raised()):
        found[code, kind] = found.get((code, kind)) or message
    return [(code, kind, message) for (code, kind), message in found.items()]


def _raised() -> Iterator[tuple[str, str, str]]:
    """Every code that the source raises, with its kind and the message around it; `…` stands for what is filled in."""
    kinds: dict[str, str] = {cls.__name__: kind for kind, cls in ERRORS.items()}
    for path in sorted(Path(str(resources.files("interlock"))).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _raised_in(function, kinds)


def _raised_in(
    function: ast.FunctionDef | ast.AsyncFunctionDef, kinds: dict[str, str]
) -> Iterator[tuple[str, str, str]]:
    messages: dict[str, str] = {}
    nodes = [node for node in ast.walk(function) if isinstance(node, ast.Assign | ast.Call)]
    for node in sorted(nodes, key=lambda each: (each.lineno, each.col_offset)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            messages[node.targets[0].id] = _words(node.value)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in kinds:
            continue
        code = next((word.value for word in node.keywords if word.arg == "code"), None)
        if isinstance(code, ast.Constant) and isinstance(code.value, str):
            given = node.args[0] if node.args else ast.Constant("")
            text = messages.get(given.id, "") if isinstance(given, ast.Name) else _words(given)
            yield _code(code.value), kinds[node.func.id], text


def _words(node: ast.expr) -> str:
    """The text of a string or f-string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(value) if isinstance(value, ast.Constant) else "…" for value in node.values)
    return "…"


def _settings() -> str:
    lines = ["The environment is read once, when a process starts; `interlock.yaml` holds everything else.", ""]
    lines += _table(("variable", "meaning"), ((_code(each.name), each.meaning) for each in VARIABLES))
    lines += ["## Shells of coding agents", ""]
    lines += [
        "Where one of these is set, the command line acts as that agent, and says so: an agent is less than a person."
    ]
    lines += [
        "",
        *_table(("variable", "acts as"), ((_code(name), _code(f"agent:{agent}")) for name, agent in AGENT_MARKS)),
    ]
    return _page("Settings", lines)


def _views() -> str:
    lines = ["What can be read of Interlock's own tables; each is checked by policy and makes no Run.", ""]
    for cls in find_view_classes():
        lines += [f"## {cls.name}", "", f"{cls.summary} Discloses: {cls.discloses}.", ""]
        lines += _arguments(Record(cls.Args.model_json_schema()))
    return _page("Views", lines)


def _mcp() -> str:
    """The tools, each with its arguments; views come from their own catalogue."""
    lines = [
        "What an agent is offered: [connect an agent](../howto/connect-an-agent.md). Each view that policy lets it"
    ]
    lines += [f"read is a tool as well, called `{PREFIX}` and its name: [views](views.md).", ""]
    for tool in AGENT_TOOLS:
        lines += [f"## {tool.name}", "", tool.description, ""]
        lines += _arguments(Record(tool.args.model_json_schema()))
    return _page("Tools of agents (MCP)", lines)


def _http() -> str:
    """The routes, each with what it takes; `described` is what `/api/v1/openapi.json` answers."""
    lines = ["Every route but those for health takes `Authorization: Bearer ilk_...`;", ""]
    lines[0] += " how to use them: [the door over HTTP](../howto/http-api.md)."
    description = Record(described())
    for path, methods in description.record("paths").data.items():
        for method, inner in Record(methods).data.items():
            route = Record(inner)
            text = " ".join(route.text("description").split())
            lines += [f"## {method.upper()} {path}", "", text, ""]
            rows = [_parameter(each) for each in route.records("parameters")] + _body(route, description)
            lines += _table(("parameter", "where", "takes"), rows) if rows else []
    return _page("HTTP", lines)


def _parameter(parameter: Record) -> tuple[str, str, str]:
    taken = _taken(parameter.record("schema"), parameter.flag("required"))
    return _code(parameter.text("name")), parameter.text("in"), taken


def _body(route: Record, description: Record) -> list[tuple[str, str, str]]:
    """The members of the body of a request."""
    named = route.record("requestBody").record("content").record("application/json").record("schema")
    names = [named.text("$ref"), *(each.text("$ref") for each in named.records("allOf"))]
    found = [name.rpartition("/")[2] for name in names if name]
    if not found:
        return []
    shape = description.record("components").record("schemas").record(found[0])
    required, properties = set(shape.texts("required")), shape.record("properties")
    return [(_code(name), "body", _taken(properties.record(name), name in required)) for name in properties.data]


def _metrics() -> str:
    lines = [
        "What `GET /metrics` and the view `metrics` tell, in the text format of Prometheus. Every series stands at"
    ]
    lines += ["zero from the start. A label without values here takes those that are known to this installation, and"]
    lines += ["`other` for the rest. [How to watch over it](../howto/monitor.md).", ""]
    rows = (
        (
            _code(each.name),
            each.kind,
            "; ".join(_label(name, values) for name, values in each.labels.items()),
            each.help,
        )
        for each in METRICS
    )
    lines += _table(("metric", "kind", "labels", "meaning"), rows)
    lines += ["Besides: `process_*`, what the kernel says of the process (CPU seconds, memory, open files, its start)."]
    return _page("Metrics", lines)


def _label(name: str, values: tuple[str, ...] | None) -> str:
    return _code(name) if values is None else f"{_code(name)}: {', '.join(values)}"


def _policies() -> str:
    lines = [
        "What comes with Interlock. The invariants hold everywhere; one preset is copied into a project, to be edited.",
        "",
    ]
    folder = resources.files("interlock") / "policies"
    for title, name in (("Invariants", "invariants"), *((preset, f"presets/{preset}") for preset in get_args(Preset))):
        text = (folder / f"{name}.cedar").read_text(encoding="utf-8")
        rows = [(_code(each["id"]), each.get("effect", ""), each.get("reason", "")) for each in _annotations(text)]
        lines += [f"## {title}", "", *_table(("policy", "effect", "reason"), rows)]
    schema = (folder / "interlock.cedarschema").read_text(encoding="utf-8")
    lines += ["## What a policy may look at", "", "```", schema.strip(), "```"]
    return _page("Policies", lines)


def _annotations(text: str) -> Iterator[dict[str, str]]:
    """The annotations of each policy of a file, in its order."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        annotation = re.match(r'@(\w+)\("(.*)"\)$', line.strip())
        if annotation:
            found[annotation[1]] = annotation[2]
        elif line.startswith(("permit", "forbid")) and found:
            yield {"effect": line.partition(" ")[0], **found}
            found = {}


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
