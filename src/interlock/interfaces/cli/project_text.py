"""Writes the first interlock.yaml of a project: few lines that hold, and a comment for each thing one may want."""

from __future__ import annotations

import json
import re

from interlock.interfaces.cli.detect import Found

SCHEMA_FILE = "interlock.schema.json"
"""Written beside interlock.yaml, so that editors know its keys; `interlock config schema` gives it anew."""

_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./@:*-]*")
_WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n"})

AGENT_NOTE = """\
To look at or change this system, use: interlock exec --as {agent} --output json -- ARGV...
Give one program and its arguments. There is no shell: no pipes, no &&, no $(...).
Reading runs at once. A change returns exit code 8 and a plan: read it, and if it is what you want, repeat the command
with --confirm=DIGEST --reason "why". It then waits for a person. Do not ask again; look with: interlock show N
Exit code 4 means denied: do not retry and do not look for another way. Tell the person, and use what "next" offers.
"""


def project_text(name: str, user: str, preset: str, folder: str, found: Found) -> str:
    """The file. `user` is the account of the person who sets it up; `folder` may be read through the door."""
    parts = [
        f"# yaml-language-server: $schema={SCHEMA_FILE}",
        "# Interlock: who may do what, what is protected, when changes may happen.",
        "# After a change: interlock check, then interlock policy reload.",
        "version: 1",
        f"name: {_scalar(name)}",
        "",
        "# observe: everybody looks, nobody changes. small-team: an agent's change needs one person, a person confirms",
        "# his own. strict: another person for every change. The rules themselves lie in policies/.",
        f"preset: {preset}",
        "",
        "# Who asks and approves. `user` is the operating-system account. Add the others.",
        "people:",
        f"  {_key(user)}: {{user: {_scalar(user)}, roles: [operator]}}",
        "",
        *_agents(found, user),
        *_protected(found),
        "# Files below `read` may be read at once by everybody; files below `write` may be changed through the door.",
        "roots:",
        f"  read: [{', '.join(map(_scalar, _read_roots(folder, found)))}]",
        "  write: []",
        "",
        "# When changes may happen. `block` keeps them out; once there is an `allow`, they happen at no other time.",
        "# windows:",
        '#   - {name: night, from: "22:00", to: "06:00", timezone: Europe/Berlin, changes: block}',
        '#   - {name: sale, days: [fri, sat], from: "00:00", to: "23:59", changes: block}',
        "",
        "# Under which folder, account or environment a program runs: the operator's word, never the asker's.",
        "# contexts:",
        "#   kubectl: {environment: {KUBECONFIG: /etc/interlock/kubeconfig}}",
        "",
        "# limits: {runs_at_once_max: 8, waiting_per_agent_max: 3, approval_expires_minutes: 1440}",
        "# retention: {bodies_days: 90}",
    ]
    return "\n".join(parts) + "\n"


def _agents(found: Found, user: str) -> list[str]:
    lines = ["# Coding and operations agents: they may ask on behalf of a person, who answers for them."]
    if not found.agents:
        return [*lines, "# agents:", f"#   claude: {{on_behalf_of: {_scalar(user)}}}", ""]
    return [*lines, "agents:", *(f"  {agent}: {{on_behalf_of: {_scalar(user)}}}" for agent in found.agents), ""]


def _protected(found: Found) -> list[str]:
    lines = ["# What nobody changes through the door, by whatever name it is called: KIND:PATTERN."]
    if not found.databases:
        return [*lines, "# protected:", "#   - unit:postgresql*", "#   - file:/var/lib/postgresql/**", ""]
    lines.append("protected:")
    for database in found.databases:
        lines.append(f"  # {_comment(database.name)}")
        lines += [f"  - {_scalar(target)}" for target in database.targets]
    return [*lines, ""]


def _read_roots(folder: str, found: Found) -> list[str]:
    return [folder, "/var/log", *(["/etc/nginx"] if found.nginx else [])]


def _key(text: str) -> str:
    return _scalar(text)


def _scalar(text: str) -> str:
    """A YAML scalar: plain where that cannot be misread, otherwise in JSON's quotes, which YAML reads as well."""
    safe = _PLAIN.fullmatch(text) and not text.endswith(":") and text.lower() not in _WORDS
    return text if safe and not text.replace(".", "").isdecimal() else json.dumps(text, ensure_ascii=False)


def _comment(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
