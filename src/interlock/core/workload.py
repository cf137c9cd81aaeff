"""What is released: services that answer requests, batch jobs that write outputs, and configurations; as declared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from interlock.core.comparison import ComparisonRules, LinearPattern
from interlock.core.errors import Invalid
from interlock.core.judgement import JudgeSettings
from interlock.core.model import Frozen
from interlock.core.traffic import Address, HeaderName, ProxyName, Sticky

PLACES = frozenset({"port", "version", "source", "configuration", "input", "output", "work", "workload"})
"""What may stand in braces in a command: {port} the version listens on, {version}, {source} the folder of its files,
{configuration} the folder of its configuration, {input} and {output} of a batch job, {work} an empty folder of its own,
{workload} its name."""
_OF_SERVICES = frozenset({"port", "configuration"})

_PLACE = re.compile(r"\{([^{}]*)\}")


def _argument(value: str) -> str:
    for name in _PLACE.findall(value):
        if name not in PLACES:
            msg = f"{{{name}}} is none of {', '.join(sorted(PLACES))}"
            raise ValueError(msg)
    return value


def filled(arguments: Iterable[str], places: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments of a command with what stands for their places.

    Raises Invalid for a place that has no meaning here ({input} of a service, say).
    """
    found = tuple(arguments)
    unknown = sorted({name for argument in found for name in _PLACE.findall(argument)} - places.keys())
    if unknown:
        msg = f"{{{unknown[0]}}} stands in a command where it means nothing"
        raise Invalid(msg, code="workload.place", fix=f"here there are {', '.join(sorted(places))}")
    return tuple(_PLACE.sub(lambda place: places[place[1]], argument) for argument in found)


def filled_values(environment: Mapping[str, str], places: Mapping[str, str]) -> dict[str, str]:
    """An environment with what stands for the places in its values; other braces in them are nobody's business."""
    return {
        name: _PLACE.sub(lambda place: places.get(place[1], place[0]), value) for name, value in environment.items()
    }


Argument = Annotated[str, Field(max_length=4096), AfterValidator(_argument)]
Command = Annotated[tuple[Argument, ...], Field(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]


class Source(Frozen):
    """Where the files of a version come from. Exactly one of the three.

    `folder`: a path with {version} in it. `git`: a local repository; a version is a ref of it, laid out in a folder of
    its own and pinned to its commit. `image`: a container image without tag; a version is a tag or a digest of it,
    pinned to its image id.
    """

    folder: str | None = Field(default=None, min_length=1, max_length=4096)
    """A path with {version} in it."""
    git: str | None = Field(default=None, min_length=1, max_length=4096)
    """A local repository; versions are its refs."""
    image: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9._/:-]{0,254}$")
    """A container image; versions are its tags and digests."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.folder, self.git, self.image)) != 1:
            msg = "give exactly one of `folder`, `git` and `image`"
            raise ValueError(msg)
        if self.folder is not None and "{version}" not in self.folder:
            msg = "write {version} into `folder`, so that versions lie beside each other: /srv/web/{version}"
            raise ValueError(msg)
        return self


class ComposeService(Frozen):
    """A service of a Docker Compose project; a candidate runs as a second container beside it."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """The Compose project's name."""
    file: str
    """The Compose file."""
    service: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """The service's name in it."""
    port: int = Field(ge=1, le=65_535)
    """Where it listens inside its container."""


class SystemdUnit(Frozen):
    """A template unit, one instance for each version: `web@.service` runs as web@v1.4.service.

    The instance reads its port from `environment_file`, a path with {version} in it that Interlock writes before it
    starts the unit: PORT=18001, VERSION=v1.4, SOURCE=/srv/web/v1.4.
    """

    template: str = Field(pattern=r"^[A-Za-z0-9:_.\\-]{1,200}@\.service$")
    """The template unit, as web@.service."""
    environment_file: str = Field(min_length=1, max_length=4096)
    """Where the instance's port is written, a path with {version} in it."""


class Health(Frozen):
    """How it is known that a version can answer. Never a heavy page.

    A version has `deadline_seconds` to become healthy, and is healthy after `successes` good answers in a row.
    """

    path: str = Field(default="/healthz", pattern=r"^/[ -~]{0,500}$")
    interval_seconds: float = Field(default=0.5, ge=0.05, le=60)
    timeout_seconds: float = Field(default=2.0, gt=0, le=60)
    deadline_seconds: float = Field(default=180.0, gt=0, le=3600)
    successes: int = Field(default=2, ge=1, le=20)


class Traffic(Frozen):
    """How users reach a service."""

    listen: Address
    """Where users come: the proxy listens here."""
    proxy: ProxyName = "envoy"
    """Which proxy shares the requests between versions."""
    include_folder: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9._/+-]{1,200}$")
    """With nginx: the folder whose files your own nginx includes. It keeps TLS, and `listen` says where it answers."""
    nginx_command: tuple[str, ...] = Field(default=("/usr/sbin/nginx",), min_length=1, max_length=20)
    """How that nginx is told to test (`-T`) and to reload (`-s reload`): its path, with sudo before it if needed."""
    sticky: Sticky = Sticky(cookie="interlock-unit")
    """By what a user is known again."""
    testers: HeaderName | None = "x-interlock-version"
    """Whoever sends this header with a version's name gets that version."""
    fallback: bool = True
    """The stable version answers GET and HEAD requests that the candidate failed to answer."""
    timeout_seconds: float = Field(default=15.0, gt=0, le=3600)
    """How long a version may take to answer."""

    @model_validator(mode="after")
    def _included(self) -> Self:
        if self.include_folder is not None and self.proxy != "nginx":
            msg = "`include_folder` belongs to `proxy: nginx`"
            raise ValueError(msg)
        return self


class ShadowStep(Frozen):
    """The candidate answers copies of some requests, and its answers are compared; users get the stable version's."""

    shadow_percent: float = Field(gt=0, le=100)
    """Which part of the safe requests is copied."""
    pairs: int = Field(default=459, ge=1, le=10_000_000)
    """So many comparisons at least: without a difference, 459 prove 99 % agreement at 99 % confidence."""
    deadline_seconds: Seconds = 1800
    """After so long without enough of them the step is undecided."""


class CanaryStep(Frozen):
    """Some users get the candidate.

    With `until: go` the step ends when the judge certifies that the candidate is no worse than the margins allow, and
    is undecided at the deadline. With `until: time` it ends after `hold_seconds` unless the judge says no.
    """

    weight_percent: float = Field(gt=0, le=100)
    """Which part of the users."""
    until: Literal["go", "time"] = "time"
    """What ends the step."""
    hold_seconds: float = Field(default=60.0, ge=0, le=7 * 24 * 3600)
    """It lasts so long at least; with `until: time` only time counts in which the candidate answers somebody."""
    deadline_seconds: Seconds = 3600
    """With `until: go`, after so long without a verdict the step is undecided."""


ReleaseStep = ShadowStep | CanaryStep

DEFAULT_STEPS: tuple[ReleaseStep, ...] = (
    ShadowStep(shadow_percent=10),
    CanaryStep(weight_percent=5, hold_seconds=60),
    CanaryStep(weight_percent=25, hold_seconds=60),
    CanaryStep(weight_percent=50, until="go"),
)


class Gate(Frozen):
    """A command that has to end with 0 before a version of a release is started: tests, a look for known holes."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    """What it is called in the report: tests, security."""
    command: Command
    """Run in {source}, once the version was built."""
    timeout_seconds: float = Field(default=600.0, gt=0, le=7200)
    """One that takes longer is ended, and has failed."""


class ReleaseSettings(Frozen):
    """How a new version comes to all users, and what sends it back."""

    gates: tuple[Gate, ...] = Field(default=(), max_length=10)
    """What has to succeed before a version is started, one after the other; the first that fails ends the release."""

    steps: tuple[ReleaseStep, ...] = Field(default=DEFAULT_STEPS, max_length=20)
    """What comes before all users get the candidate; none is a plain switch with red lines watched."""
    judge: JudgeSettings = JudgeSettings()
    """What counts as worse."""
    undecided: Literal["pause", "rollback", "promote"] = "pause"
    """What happens when a step's deadline passes without a verdict."""
    no_traffic_seconds: Seconds = 300
    """After so long without a request, `status` says that nobody comes; a release never goes on by silence."""
    watch_seconds: float = Field(default=300.0, ge=0, le=24 * 3600)
    """How long the judge goes on looking after all users have the new version; only time with requests counts."""
    keep_warm_hours: float = Field(default=24.0, ge=0, le=30 * 24)
    """How long the version before stays running, so that going back takes a blink."""
    red_line_failures: int = Field(default=2, ge=1, le=100)
    """So many failed key checks in a row send a release back at once."""
    burst_errors: int = Field(default=5, ge=2, le=1000)
    """So many answers in a row that are errors, with none between them that is not, send it back at once."""
    irreversible: bool = False
    """The word of whoever writes this that there is no way back (a migration, say): what goes wrong freezes the release
    where it is, and no rollback is promised."""

    @model_validator(mode="after")
    def _gates_apart(self) -> Self:
        names = [gate.name for gate in self.gates]
        if len(set(names)) != len(names):
            msg = "two gates have one name"
            raise ValueError(msg)
        return self


class ServiceWorkload(Frozen):
    """A service that answers HTTP requests. It runs as `command`, as a Compose service, or as a systemd unit."""

    kind: Literal["service"] = "service"
    command: Command | None = None
    """The program and its arguments, kept running by Interlock's own keeper; {port} is where it must listen."""
    compose: ComposeService | None = None
    """A service of a Docker Compose project."""
    systemd: SystemdUnit | None = None
    """A template unit."""
    source: Source
    """Where the files of a version come from."""
    configuration: Source | None = None
    """Where its configuration comes from, a `folder` or `git`: versions are then called CODE+CONFIGURATION, as v1.4+c7,
    and each is released and taken back with its own configuration, which lies in {configuration}."""
    build: tuple[Command, ...] = Field(default=(), max_length=10)
    """Run in {source} before a version is started, while the old one still serves."""
    environment: dict[str, str] = {}
    """Of the command. Secrets belong into files that the service reads."""
    stop_grace_seconds: float = Field(default=10.0, ge=0, le=600)
    """How long it may take to end."""
    health: Health = Health()
    """How it is known that it can answer."""
    traffic: Traffic
    """How users reach it."""
    release: ReleaseSettings = ReleaseSettings()
    """How a new version comes to all users."""
    comparison: ComparisonRules = ComparisonRules()
    """Which differences of answers count."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.command, self.compose, self.systemd)) != 1:
            msg = "give exactly one of `command`, `compose` and `systemd`"
            raise ValueError(msg)
        if (self.source.image is not None) != (self.compose is not None):
            msg = "`source: {image: ...}` and `compose` belong together"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _configured(self) -> Self:
        if self.configuration is not None:
            if self.command is None:
                msg = "`configuration` is for services with a `command`: Compose and systemd know nothing of its folder"
                raise ValueError(msg)
            if self.configuration.image is not None:
                msg = "a `configuration` lies in a `folder` or in `git`, and not in an image"
                raise ValueError(msg)
            return self
        commands = (self.command or (), *self.build, *(gate.command for gate in self.release.gates))
        if any("{configuration}" in argument for command in commands for argument in command):
            msg = "{configuration} stands in a command: say with `configuration` where it comes from"
            raise ValueError(msg)
        return self


ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


def _linear(pattern: str) -> str:
    LinearPattern(pattern)
    return pattern


ParameterPattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_linear)]
BatchArgument = Annotated[str, Field(max_length=4096)]


class BatchWorkload(Frozen):
    """A command that reads an input and writes an output: a report, an export, a settlement.

    {input} and {output} in `command` are paths, {target_month} and the like are `parameters`. Each run writes into an
    empty folder of its own, which takes its place once it went well. While two versions are compared each has
    `environment` and nothing else; `shadow_environment` says what keeps it from having effects then.
    """

    kind: Literal["batch"] = "batch"
    command: Annotated[tuple[BatchArgument, ...], Field(min_length=1, max_length=200)]
    """The program and its arguments."""
    source: Source
    """Where the files of a version come from."""
    build: tuple[Command, ...] = Field(default=(), max_length=10)
    """Run in {source} before a version is used."""
    parameters: dict[ParameterName, ParameterPattern] = Field(default={}, max_length=20)
    """What an invocation gives, each with the regular expression that its whole value must match."""
    environment: dict[str, str] = {}
    """All of its environment, besides PATH, HOME, TMPDIR and LANG."""
    shadow_environment: dict[str, str] = {}
    """On top of it while versions are compared: what redirects or blocks effects (DRY_RUN=1, another database)."""
    input: str | None = Field(default=None, max_length=4096)
    """The file or folder it reads; may hold {target_month} and the like."""
    output: str | None = Field(default=None, max_length=4096)
    """The folder in which users find what it wrote; may hold {target_month} and the like. Without it that is a folder
    of Interlock's own, one for each set of parameters."""
    timeout_seconds: Seconds = 3600
    """A run that takes longer is ended."""
    comparison: ComparisonRules = ComparisonRules()
    """Which differences of outputs count."""
    release: ReleaseSettings = ReleaseSettings(steps=())
    """How a new version takes over."""

    @model_validator(mode="after")
    def _places(self) -> Self:
        taken = sorted((PLACES - {"configuration"}) & self.parameters.keys())
        if taken:
            msg = f"{{{taken[0]}}} has a meaning of its own; call the parameter otherwise"
            raise ValueError(msg)
        known = {*(PLACES - _OF_SERVICES), *self.parameters}
        given = {name for text in self.command for name in _PLACE.findall(text)}
        paths = {name for text in (self.input, self.output) if text is not None for name in _PLACE.findall(text)}
        unknown = sorted((given - known) | (paths - self.parameters.keys()))
        if unknown:
            msg = f"{{{unknown[0]}}} is none of `parameters`, and has no other meaning there"
            raise ValueError(msg)
        if self.source.image is not None:
            msg = "a batch job has its files in a `folder` or in `git`, and not in an image"
            raise ValueError(msg)
        if "input" in given and self.input is None:
            msg = "`command` reads {input}: say with `input` where it lies"
            raise ValueError(msg)
        return self


Workload = Annotated[ServiceWorkload | BatchWorkload, Field(discriminator="kind")]
