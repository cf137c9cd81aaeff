"""What a project declares in interlock.yaml: people, protected resources, windows, roots, limits."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.http import Http
from interlock.core.mcp_server import McpServer, ServerName
from interlock.core.model import Frozen
from interlock.core.ports import ProgramContext
from interlock.core.role import Role
from interlock.core.schedule import Schedule, ScheduleName

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Preset = Literal["observe", "small-team", "strict"]


def _target_pattern(value: str) -> str:
    if not re.match(r"^[a-z*][a-z0-9_*-]*:.+$", value):
        msg = f"{value!r} is not KIND:PATTERN, for example unit:postgresql* or file:/srv/db/**"
        raise ValueError(msg)
    return value


TargetPattern = Annotated[str, AfterValidator(_target_pattern)]


class Person(Frozen):
    """Somebody who may ask and, with a role, approve. `user` is his operating-system account."""

    user: str | None = None
    roles: tuple[str, ...] = ()


class Agent(Frozen):
    """An agent that works on somebody's behalf. `user` is its own account in enforced mode; `autonomy` overrides."""

    user: str | None = None
    on_behalf_of: str | None = None
    autonomy: Literal["read", "ask"] = "ask"
    roles: tuple[str, ...] = ()


class Service(Frozen):
    """A program that asks for itself, by a token or from its own account `user`. Its roles say what it may do."""

    user: str | None = None
    roles: tuple[str, ...] = Field(min_length=1)


class Window(Frozen):
    """A weekly span of time in a zone. `changes: allow` windows are the only times for changes once one is declared;
    `changes: block` windows are times without changes. `to` before `from` runs over midnight."""

    name: str
    days: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    start: str = Field(alias="from", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    end: str = Field(alias="to", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    timezone: str = "UTC"
    changes: Literal["allow", "block"] = "block"


class Roots(Frozen):
    """Folders whose files may be read at once, and folders in which files may be written through the door."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class Limits(Frozen):
    """Bounds of the engine."""

    runs_at_once_max: int = Field(default=8, ge=1, le=256)
    runs_at_once_per_actor_max: int = Field(default=4, ge=1, le=256)
    runs_at_once_per_action: dict[str, int] = {}
    waiting_per_agent_max: int = Field(default=3, ge=1, le=1000)
    open_runs_max: int = Field(default=10_000, ge=10, le=1_000_000)
    ask_again_after_denial_minutes: int = Field(default=30, ge=0, le=24 * 60)
    approval_expires_minutes: int = Field(default=24 * 60, ge=1, le=30 * 24 * 60)
    step_attempts_max: int = Field(default=4, ge=1, le=20)
    retry_budget_seconds: float = Field(default=120.0, ge=0, le=3600)
    run_timeout_seconds: float = Field(default=3600.0, ge=1, le=24 * 3600)


class Retention(Frozen):
    """How long bodies are kept. Runs and evidence stay; outputs, diffs and originals are pruned."""

    bodies_days: int = Field(default=90, ge=1, le=3650)
    events_days: int = Field(default=30, ge=1, le=3650)


class Project(Frozen):
    """All of interlock.yaml. `folder` is where it lies; relative paths in it are relative to that folder."""

    version: Literal[1] = 1
    name: str = "default"
    environment: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    """Which overlay is laid over this file: `prod` stands for interlock.prod.yaml beside it. What the environment says
    (INTERLOCK_ENVIRONMENT), and what `interlock serve --environment` recorded, comes before this."""
    folder: str = "/"
    preset: Preset = "small-team"
    people: dict[str, Person] = {}
    agents: dict[str, Agent] = {}
    services: dict[str, Service] = {}
    roles: dict[str, Role] | None = None
    """Roles of this project's own, besides the built-in ones. From the day there is this section, even an empty one,
    people and agents may do only what the codes of their roles name; services may never do more."""
    protected: tuple[TargetPattern, ...] = ()
    roots: Roots = Roots()
    windows: tuple[Window, ...] = ()
    schedules: dict[ScheduleName, Schedule] = {}
    limits: Limits = Limits()
    retention: Retention = Retention()
    http: Http = Http()
    contexts: dict[str, ProgramContext] = {}
    programs: tuple[str, ...] = ()
    mcp_servers: dict[ServerName, McpServer] = {}
    """MCP servers of others, whose tools may be called through the door once a person accepted them."""
    databases: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], DatabaseDeclaration] = {}
    """Databases that are guarded: what `sql.read`, `sql.write` and `sql.migrate` may reach, and as whom."""
    policies: tuple[str, ...] = ("policies",)
    isolated: bool = False
    """The operator's word that an unknown program, run through the door, can reach no protected resource."""
    secrets_patterns: tuple[str, ...] = ()
