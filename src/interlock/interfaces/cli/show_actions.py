"""Shows the catalogue: what can be asked for, with arguments in words instead of JSON Schema."""

from __future__ import annotations

import json
import shlex

from rich.text import Text

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen
from interlock.interfaces.messages import say


def show_actions(screen: Screen, actions: list[Record]) -> None:
    """A row each."""
    screen.rows(("", ""), [(Text(action.text("name"), style="bold"), action.text("summary")) for action in actions])


def show_action(screen: Screen, action: Record) -> None:
    """One action: its arguments and an example."""
    screen.heading(action.text("name"))
    screen.line(action.text("summary"))
    schema = action.record("arguments")
    if schema.text("description"):
        for paragraph in schema.text("description").split("\n\n"):
            screen.quiet(" ".join(paragraph.split()))
    properties = schema.record("properties")
    required = set(schema.texts("required"))
    screen.blank()
    rows = [
        (name, Text(type_in_words(properties.record(name), name in required), style="dim")) for name in properties.data
    ]
    screen.rows(("", ""), rows, indent=2)
    screen.blank()
    screen.line(example_of(action))


def type_in_words(schema: Record, required: bool) -> str:
    """`text, required`; `whole number, 1 to 500, otherwise 50`."""
    kinds = [choice for choice in schema.records("anyOf") if choice.text("type") != "null"] or [schema]
    words = {
        "string": say("text"),
        "integer": say("whole number"),
        "number": say("number"),
        "boolean": say("yes or no"),
    }
    words |= {"array": say("list"), "object": say("names and values")}
    parts = [" | ".join(words.get(kind.text("type"), kind.text("type") or "JSON") for kind in kinds)]
    if kinds[0].text("type") == "array" and (item := kinds[0].record("items").text("type")):
        parts = [say("list of {kind}", kind=words.get(item, item))]
    if kinds[0].texts("enum"):
        parts = [" | ".join(kinds[0].texts("enum"))]
    if kinds[0].text("pattern"):
        parts.append(kinds[0].text("pattern"))
    low, high = kinds[0].text("minimum"), kinds[0].text("maximum")
    if low or high:
        parts.append(say("{low} to {high}", low=low or "…", high=high or "…"))
    if required:
        parts.append(say("required"))
    elif "default" in schema and schema.data["default"] not in ({}, []):
        parts.append(say("otherwise {value}", value=json.dumps(schema.data["default"])))
    if schema.text("description"):
        parts.append(" ".join(schema.text("description").split()))
    return ", ".join(parts)


def example_of(action: Record) -> str:
    """The example as a command to copy."""
    example = action.record("example").data
    if action.text("name") == "command.exec" and isinstance(example.get("argv"), list):
        return shlex.join(["interlock", "exec", "--", *action.record("example").texts("argv")])
    words = []
    for name, value in example.items():
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        words += ["--arg", f"{name}={text}"]
    return shlex.join(["interlock", "do", action.text("name"), *words])
