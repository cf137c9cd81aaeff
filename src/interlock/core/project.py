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
from interlock.core.rollout_judge import JudgeName, RolloutJudge
from interlock.core.schedule import Schedule, ScheduleName
from interlock.core.telemetry import TelemetryDeclaration
from interlock.core.traffic import WorkloadName
from interlock.core.web import DestinationName, HttpDestination
from interlock.core.workload import Workload

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
    """His account on this machine; without one he comes in by a token."""
    roles: tuple[str, ...] = ()
    """What he may do where roles bind, and whose approval he gives."""


class Agent(Frozen):
    """An agent that works on somebody's behalf. `user` is its own account in enforced mode; `autonomy` overrides."""

    user: str | None = None
    """Its own account, in enforced mode."""
    on_behalf_of: str | None = None
    """The person who answers for it, who is declared under `people`."""
    autonomy: Literal["read", "ask"] = "ask"
    """`read`: it only looks. `ask`: it may ask for changes, which a person decides."""
    roles: tuple[str, ...] = ()
    """What it may do where roles bind."""


class Service(Frozen):
    """A program that asks for itself, by a token or from its own account `user`. Its roles say what it may do."""

    user: str | None = None
    """Its own account on this machine; without one it comes in by a token."""
    roles: tuple[str, ...] = Field(min_length=1)
    """What it may do."""


class Window(Frozen):
    """A weekly span of time in a zone. `changes: allow` windows are the only times for changes once one is declared;
    `changes: block` windows are times without changes. `to` before `from` runs over midnight."""

    name: str
    """What it is called where it keeps a change from happening."""
    days: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    """On which days it begins."""
    start: str = Field(alias="from", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """When it begins, as 22:00."""
    end: str = Field(alias="to", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """When it ends; before its beginning, it ends on the following day."""
    timezone: str = "UTC"
    """Whose clock counts, as Europe/Berlin."""
    changes: Literal["allow", "block"] = "block"
    """Whether changes happen only then (`allow`) or not then (`block`)."""


class Roots(Frozen):
    """Folders whose files may be read at once, and folders in which files may be written through the door."""

    read: tuple[str, ...] = ()
    """Folders whose files may be read at once."""
    write: tuple[str, ...] = ()
    """Folders in which files may be written through the door."""


class Limits(Frozen):
    """Bounds of the engine."""

    runs_at_once_max: int = Field(default=8, ge=1, le=256)
    """How many Runs are performed at the same time."""
    runs_at_once_per_actor_max: int = Field(default=4, ge=1, le=256)
    """How many of them one actor may have."""
    runs_at_once_per_action: dict[str, int] = {}
    """How many of them one action may have, by its name; any number where it is not named."""
    waiting_per_agent_max: int = Field(default=3, ge=1, le=1000)
    """How many asks of one agent may wait for a person."""
    open_runs_max: int = Field(default=10_000, ge=10, le=1_000_000)
    """How many Runs may be open in all; further asks are refused."""
    ask_again_after_denial_minutes: int = Field(default=30, ge=0, le=24 * 60)
    """How long the very plan that was denied may not be asked for again."""
    approval_expires_minutes: int = Field(default=24 * 60, ge=1, le=30 * 24 * 60)
    """How long a Run waits for its approvals, and how long one counts."""
    step_attempts_max: int = Field(default=4, ge=1, le=20)
    """How often a step that may be repeated is tried in all."""
    retry_budget_seconds: float = Field(default=120.0, ge=0, le=3600)
    """How long the attempts of a step may take together."""
    run_timeout_seconds: float = Field(default=3600.0, ge=1, le=24 * 3600)
    """After how long a Run is ended, where its ask names no other time."""


class Retention(Frozen):
    """How long bodies are kept. Runs and evidence stay; outputs, diffs and originals are pruned."""

    bodies_days: int = Field(default=90, ge=1, le=3650)
    events_days: int = Field(default=30, ge=1, le=3650)


class Project(Frozen):
    """All of interlock.yaml. `folder` is where it lies; relative paths in it are relative to that folder."""

    version: Literal[1] = 1
    """Of this format."""
    name: str = "default"
    """What the project is called, on screens and in the name of its signing key."""
    environment: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    """Which overlay is laid over this file: `prod` stands for interlock.prod.yaml beside it. What the environment says
    (INTERLOCK_ENVIRONMENT), and what `interlock serve --environment` recorded, comes before this."""
    folder: str = "/"
    preset: Preset = "small-team"
    """The rules to begin with, in force as they come until `policies` holds some of its own."""
    people: dict[str, Person] = {}
    """Who asks and approves. While nobody is named, whoever runs Interlock may do what a person may."""
    agents: dict[str, Agent] = {}
    """Programs that think for themselves: they ask on behalf of a person."""
    services: dict[str, Service] = {}
    """Programs that ask for themselves."""
    roles: dict[str, Role] | None = None
    """Roles of this project's own, besides the built-in ones. From the day there is this section, even an empty one,
    people and agents may do only what the codes of their roles name; services may never do more."""
    protected: tuple[TargetPattern, ...] = ()
    """What nobody changes through the door, by whatever name it is called: KIND:PATTERN."""
    roots: Roots = Roots()
    """Folders whose files may be read, and folders in which files may be written."""
    windows: tuple[Window, ...] = ()
    """When changes may happen, and when not."""
    schedules: dict[ScheduleName, Schedule] = {}
    """What is asked for by the clock."""
    workloads: dict[WorkloadName, Workload] = {}
    """What is released: services and batch jobs, their versions, and how a new one comes to all users."""
    judges: dict[JudgeName, RolloutJudge] = {}
    """Judges of rollouts that Argo Rollouts, Flagger or others drive, and where they read what both versions count."""
    limits: Limits = Limits()
    """Bounds of the engine."""
    retention: Retention = Retention()
    """How long bodies are kept."""
    http: Http = Http()
    """Where the HTTP interface listens, and its bounds."""
    telemetry: TelemetryDeclaration = TelemetryDeclaration()
    """Where traces are sent."""
    contexts: dict[str, ProgramContext] = {}
    """Under which folder, account and variables a program runs, by the program's name."""
    programs: tuple[str, ...] = ()
    """Files or folders of YAML that describe programs of this project's own."""
    mcp_servers: dict[ServerName, McpServer] = {}
    """MCP servers of others, whose tools may be called through the door once a person accepted them."""
    http_destinations: dict[DestinationName, HttpDestination] = {}
    """HTTP services of others: what `http.request` may reach, by which methods and paths."""
    databases: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], DatabaseDeclaration] = {}
    """Databases that are guarded: what `sql.read`, `sql.write` and `sql.migrate` may reach, and as whom."""
    policies: tuple[str, ...] = ("policies",)
    """Folders of *.cedar files: the first may permit, further ones only forbid."""
    isolated: bool = False
    """The operator's word that an unknown program, run through the door, can reach no protected resource."""
    secrets_patterns: tuple[str, ...] = ()
    """Regular expressions of secrets of this project's own, which are blotted out everywhere."""
