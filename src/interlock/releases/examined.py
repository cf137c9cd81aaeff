"""What a Run found out about a candidate before anybody had it: gates and golden samples, read from its evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable

from interlock.core.evidence import Evidence, EvidenceKind
from interlock.core.model import JsonObject
from interlock.releases.model import Note

GATES = "gates"
GOLDEN = "golden"
SAID = "said"


def done_of(rows: Iterable[Evidence]) -> JsonObject:
    """What the last step that was performed reported: `ok`, `summary`, `data`; empty where none was."""
    found: JsonObject = {}
    for row in rows:
        if row.kind is EvidenceKind.DONE:
            found = json.loads(row.line)["data"]
    return found


def said_of(rows: Iterable[Evidence]) -> JsonObject:
    """What the version, or its build, said last where it failed: lines as `said`, the command that shows `more`."""
    found: JsonObject = {}
    for row in rows:
        if row.kind in {EvidenceKind.DONE, EvidenceKind.CHECKED}:
            data = json.loads(row.line)["data"].get("data")
            if isinstance(data, dict) and data.get("said"):
                found = {"said": data["said"], "more": str(data.get("more", ""))}
    return found


def said_note(candidate: str, found: JsonObject) -> Note:
    """A line of the timeline that names the last line, and keeps them all."""
    lines = found["said"]
    last = lines[-1] if isinstance(lines, list) and lines else ""
    return Note(word=SAID, text=f"{candidate} said last: {last} ({found['more']})", data=found, once=True)


def gates_of(done: JsonObject) -> list[JsonObject]:
    """How each gate ended that was run, in order."""
    data = done.get("data")
    gates = data.get("gates") if isinstance(data, dict) else None
    return [gate for gate in gates if isinstance(gate, dict)] if isinstance(gates, list) else []


def gates_note(gates: list[JsonObject]) -> Note:
    """A line of the timeline that names them all."""
    text = "; ".join(f"the gate {gate['name']} {gate['words']}" for gate in gates)
    return Note(word=GATES, text=text, data={"gates": [*gates]}, once=True)


def golden_note(done: JsonObject) -> Note:
    """A line of the timeline that says how many samples were asked, and what differed."""
    data = done.get("data")
    told: JsonObject = data if isinstance(data, dict) else {}
    return Note(word=GOLDEN, text=str(done.get("summary", "")), data={**told, "ok": done.get("ok") is True}, once=True)
