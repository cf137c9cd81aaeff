"""Shows configuration: one key explained, all values with their origin, what differs between environments."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from rich.text import Text

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.cli.show_actions import type_in_words
from interlock.interfaces.messages import say

DIGEST_SHOWN = 12


def show_explained(screen: Screen, told: Record) -> None:
    """Value, origin, meaning, what it takes, and what lies below it."""
    screen.heading(told.text("key"))
    kind = {key: value for key, value in told.record("type").data.items() if key != "description"}
    fields = [
        (say("value"), _value(told.data["value"]) if "value" in told else Text(say("not set"), style="dim")),
        (say("from"), _origin(told) if "source" in told else ""),
        (say("meaning"), told.text("meaning")),
        (say("takes"), type_in_words(Record(kind), required=False)),
    ]
    screen.fields(fields, indent=2)
    keys = told.texts("keys")
    if keys:
        screen.blank()
        screen.heading(say("Below it"))
        for key in keys:
            screen.line(key, indent=2)
        if told.number("keys_more"):
            screen.quiet(say("and {n} more", n=told.number("keys_more")), indent=2)


def show_values(screen: Screen, values: object) -> None:
    """As YAML."""
    screen.raw(yaml.safe_dump(values, allow_unicode=True, sort_keys=False, width=100).rstrip("\n"))


def show_origins(screen: Screen, rows: list[Record]) -> None:
    """A row each."""
    screen.rows(
        (say("key"), say("from"), say("value")),
        [(row.text("key"), Text(_origin(row), style="dim"), _value(row.data.get("value"))) for row in rows],
    )


def show_drift(screen: Screen, one: str, other: str, found: Record) -> None:
    """What differs, by key and by file."""
    if found.flag("same"):
        screen.line(styled("ok", say("{one} and {other} are configured alike", one=one, other=other)))
        return
    for row in found.records("values"):
        screen.heading(row.text("key"))
        for name, side in zip((one, other), row.records("sides"), strict=True):
            shown = (
                Text(say("not set"), style="dim") if side.text("source") == "absent" else _value(side.data.get("value"))
            )
            screen.line(Text(f"{name}  "), shown, Text(f"  {_origin(side)}", style="dim"), indent=2)
    for title, key in ((say("Policies"), "policies"), (say("Programs"), "programs")):
        rows = found.records(key)
        if rows:
            screen.heading(title)
        for row in rows:
            digests = row.data.get("digests")
            texts = (
                [str(each)[:DIGEST_SHOWN] if each else say("not there") for each in digests]
                if isinstance(digests, list)
                else []
            )
            screen.line(f"{row.text('file')}  {' | '.join(texts)}", indent=2)


def _origin(row: Record) -> str:
    """`interlock.prod.yaml:12`, or who chose it."""
    words = {
        "default": say("default"),
        "option": say("the command line"),
        "variable": say("the environment variable"),
        "record": say("what was chosen when Interlock started"),
        "absent": "",
    }
    if row.text("file"):
        return f"{Path(row.text('file')).name}:{row.number('line')}"
    return words.get(row.text("source"), row.text("source"))


def _value(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
