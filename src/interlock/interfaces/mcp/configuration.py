"""What an agent program's configuration has to say so that it finds Interlock; everything else in it stays as it is."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interlock.core.errors import Conflict, Invalid, Permanent

ENTRY = "interlock"
FILE_BYTES_MAX = 16 * 1024 * 1024
STARTUP_SECONDS = 60
"""The first start of the resident process may take that long."""

TOOL_SECONDS = 90
"""More than `wait` takes."""

Scope = Literal["project", "user"]


@dataclass(frozen=True)
class AgentProgram:
    """A program that speaks MCP as a client: where its servers are declared, and in which notation."""

    name: str
    notation: Literal["json", "toml"]
    section: str
    project_file: str
    user_file: str
    default: Scope
    afterwards: str
    """What a person does next in that program."""


PROGRAMS: dict[str, AgentProgram] = {
    program.name: program
    for program in (
        AgentProgram(
            "claude", "json", "mcpServers", ".mcp.json", ".claude.json", "project", "start claude here, then: /mcp"
        ),
        AgentProgram(
            "codex",
            "toml",
            "mcp_servers",
            ".codex/config.toml",
            ".codex/config.toml",
            "user",
            "start codex, then: /mcp",
        ),
        AgentProgram(
            "cursor",
            "json",
            "mcpServers",
            ".cursor/mcp.json",
            ".cursor/mcp.json",
            "project",
            "open Cursor's settings, Tools & MCP, and switch interlock on",
        ),
    )
}


@dataclass(frozen=True)
class Change:
    """A file as it is (None: there is none) and as it should be."""

    path: Path
    before: bytes | None
    after: bytes

    @property
    def needed(self) -> bool:
        """Whether anything changes."""
        return self.before != self.after

    @property
    def difference(self) -> str:
        """Only the lines that change: what stands beside them may hold somebody's token."""
        before = (self.before or b"").decode().splitlines()
        lines = difflib.unified_diff(
            before, self.after.decode().splitlines(), str(self.path), str(self.path), "", "", 0, ""
        )
        return "\n".join(lines)


def entry_of(program: AgentProgram, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """How the program is told to start us: absolute path, arguments, the variables that a client of ours needs."""
    entry: dict[str, Any] = {"command": command[0], "args": command[1:]}
    if environment:
        entry["env"] = environment
    if program.notation == "toml":
        return {**entry, "startup_timeout_sec": STARTUP_SECONDS, "tool_timeout_sec": TOOL_SECONDS}
    return {"type": "stdio", **entry}


def plan_change(program: AgentProgram, path: Path, entry: dict[str, Any]) -> Change:
    """The change that makes `entry` ours in the file; everything else is kept.

    Raises:
        Invalid: The file is not what the program reads, or too large; it is left alone.
    """
    path = path.resolve()
    before = _read(path)
    text = (before or b"").decode("utf-8", "strict") if _is_text(before, path) else ""
    make = _json_with if program.notation == "json" else _toml_with
    after = make(text, program.section, entry, path)
    read = _read_json if program.notation == "json" else _read_toml
    was = read(text, path)
    try:
        now = read(after, path)
    except Invalid as error:
        raise _by_hand(path, program, entry) from error
    ours = now.get(program.section, {}).pop(ENTRY, None)
    was.get(program.section, {}).pop(ENTRY, None)
    if ours != entry or _without_empty(now, program.section) != _without_empty(was, program.section):
        raise _by_hand(path, program, entry)
    return Change(path, before, after.encode())


def write_change(change: Change) -> Path | None:
    """Write the file at once or not at all; returns where the earlier content is kept, None where there was none.

    Raises:
        Conflict: Somebody changed the file meanwhile; it is left alone.
        Permanent: It cannot be written.
    """
    path = change.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _read(path) != change.before:
            msg = f"{path} changed while you were looking; nothing was written"
            raise Conflict(msg, code="connect.changed", fix="try again")
        mode = path.stat().st_mode & 0o777 if change.before is not None else 0o600
        backup = None
        if change.before is not None:
            mark = hashlib.sha256(change.before).hexdigest()[:8]
            backup = path.with_name(f"{path.name}.before-interlock-{mark}")
            _replace(backup, change.before, mode)
        _replace(path, change.after, mode)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise Permanent(msg, code="connect.unwritable", fix="look whose it is: ls -l") from error
    return backup


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            body = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise Invalid(msg, code="connect.unreadable", fix="look whose it is: ls -l") from error
    if len(body) > FILE_BYTES_MAX:
        msg = f"{path} is over {FILE_BYTES_MAX:,} bytes"
        raise Invalid(msg, code="connect.size", fix="this is no configuration of an agent program")
    return body


def _is_text(body: bytes | None, path: Path) -> bool:
    try:
        (body or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(path, str(error)) from error
    return True


def _read_json(text: str, path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            msg = "a key stands twice in one object"
            raise ValueError(msg)
        return found

    try:
        data = json.loads(text, object_pairs_hook=once) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(data, dict) or not isinstance(data.get("mcpServers", {}), dict):
        raise _unreadable(path, "an object with an object mcpServers is expected")
    return data


def _json_with(text: str, section: str, entry: dict[str, Any], path: Path) -> str:
    data = _read_json(text, path)
    if data.get(section, {}).get(ENTRY) == entry:
        return text
    indent = re.search(r"\n([ \t]+)\"", text)
    data.setdefault(section, {})[ENTRY] = entry
    return json.dumps(data, ensure_ascii=False, indent=indent.group(1) if indent else 2) + "\n"


def _read_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error


def _toml_with(text: str, section: str, entry: dict[str, Any], path: Path) -> str:
    """Our table is replaced where it stands, or put at the end; no other line is touched."""
    known = _read_toml(text, path).get(section, {}).get(ENTRY)
    if known == entry:
        return text
    ours = re.compile(rf"\s*\[\s*{section}\s*\.\s*\"?{ENTRY}\"?\s*[.\]]")
    kept: list[str] = []
    place: int | None = None
    skipping = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            skipping = known is not None and ours.match(line) is not None
            if skipping and place is None:
                place = len(kept)
        if not skipping:
            kept.append(line)
    table = _toml_table(section, entry)
    if place is None:
        end = "".join(kept)
        return end + ("" if not end or end.endswith("\n") else "\n") + ("\n" if end.strip() else "") + table
    following = "\n" if place < len(kept) else ""
    return "".join([*kept[:place], table, following, *kept[place:]])


def _toml_table(section: str, entry: dict[str, Any]) -> str:
    lines = [f"[{section}.{ENTRY}]"]
    lines += [f"{name} = {_toml_value(value)}" for name, value in entry.items() if not isinstance(value, dict)]
    for name, value in entry.items():
        if isinstance(value, dict):
            pairs = ", ".join(f"{_toml_value(key)} = {_toml_value(inner)}" for key, inner in value.items())
            lines.append(f"{name} = {{ {pairs} }}")
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    """Text, numbers and lists of them; a JSON string is a TOML basic string but for DEL, which is escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _without_empty(data: dict[str, Any], section: str) -> dict[str, Any]:
    """An empty section is as good as none."""
    return {name: value for name, value in data.items() if name != section or value}


def _unreadable(path: Path, why: str) -> Invalid:
    msg = f"{path} is not what it should be: {why}"
    return Invalid(
        msg, code="connect.unreadable", fix="mend it first; it was left as it is", details={"file": str(path)}
    )


def _by_hand(path: Path, program: AgentProgram, entry: dict[str, Any]) -> Invalid:
    msg = f"{path} is written in a way that cannot be changed without touching other entries; it was left as it is"
    shown = _toml_table(program.section, entry) if program.notation == "toml" else json.dumps({ENTRY: entry}, indent=2)
    return Invalid(msg, code="connect.by_hand", fix=f"add this to it by hand:\n{shown}")


def _replace(path: Path, body: bytes, mode: int) -> None:
    """Exchange a file whole, so that whoever reads it meanwhile sees the old or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - the descriptor is ours
            file.write(body)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
