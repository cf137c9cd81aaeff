"""Everything the environment may say, and where a project's folders and its door lie."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from interlock.core.errors import Denied, Invalid, NotFound, Permanent

PROJECT_FILE_NAME = "interlock.yaml"
SYSTEM_PROJECT_FILE = Path("/etc/interlock") / PROJECT_FILE_NAME
SYSTEM_STATE_FOLDER = Path("/var/lib/interlock/state")
SYSTEM_RUNTIME_FOLDER = Path("/run/interlock/system")

_ROOT_RUNTIME_FOLDER = Path("/run/interlock")
_USER_RUNTIME_FOLDER = "/tmp/interlock-{uid}"  # noqa: S108 - made 0700, and refused unless it is ours
_HASH_CHARACTERS = 12
_SOCKET_PATH_BYTES_MAX = 107  # sun_path of unix(7), less its final NUL


class Variable(NamedTuple):
    """An environment variable that is read, for the reference."""

    name: str
    meaning: str


VARIABLES = (
    Variable("INTERLOCK_PROJECT", "The project to use: its folder, or its interlock.yaml. `--project` comes first."),
    Variable(
        "INTERLOCK_ENVIRONMENT",
        "The overlay of interlock.yaml to use, as in `prod`. A client must ask for the one that runs, or for none.",
    ),
    Variable("INTERLOCK_AS", "The agent to act as, when `--as` is not given."),
    Variable(
        "INTERLOCK_DATABASE_URL",
        "PostgreSQL 15 or newer to use instead of the embedded one, as a postgresql:// address. Read by `serve`.",
    ),
    Variable(
        "INTERLOCK_DATABASE_OWNER_URL",
        "The same database as its owner, who migrates it; the other account then needs no such right.",
    ),
    Variable("INTERLOCK_STATE_FOLDER", "Where data and keys lie; otherwise `.interlock` beside interlock.yaml."),
    Variable("INTERLOCK_RUNTIME_FOLDER", "Where sockets lie; a short path. Clients need the same value as `serve`."),
    Variable("INTERLOCK_LANG", "The language of prose: en, zh-CN or zh-TW. Otherwise LC_ALL, LC_MESSAGES or LANG."),
    Variable(
        "INTERLOCK_TRACEPARENT",
        "The trace that asks belong to (W3C Trace Context), as in 00-TRACE-SPAN-01. Otherwise TRACEPARENT.",
    ),
    Variable("TRACEPARENT", "The same, as many CI systems set it."),
    Variable("NO_COLOR", "When set to anything, no colours (no-color.org)."),
)


class AgentMark(NamedTuple):
    """A variable by which a coding agent's shell can be told from a person's."""

    variable: str
    agent: str


AGENT_MARKS = (
    AgentMark("CLAUDECODE", "claude"),
    AgentMark("CLAUDE_CODE", "claude"),
    AgentMark("CODEX_SANDBOX", "codex"),
    AgentMark("CODEX_CI", "codex"),
    AgentMark("CODEX_THREAD_ID", "codex"),
    # Not CURSOR_TRACE_ID: people who type into that editor's terminal have it too.
    AgentMark("CURSOR_AGENT", "cursor"),
    AgentMark("GEMINI_CLI", "gemini"),
    AgentMark("QWEN_CODE", "qwen"),
    AgentMark("OPENCODE", "opencode"),
    AgentMark("OPENCODE_CLIENT", "opencode"),
    AgentMark("AUGMENT_AGENT", "augment"),
    AgentMark("ANTIGRAVITY_AGENT", "antigravity"),
    AgentMark("CLINE_ACTIVE", "cline"),
    AgentMark("GOOSE_TERMINAL", "goose"),
    AgentMark("AI_AGENT", "agent"),
)

# What the resident process is given when it is started on demand: it serves everybody, so nothing of one shell's mood.
_RESIDENT_VARIABLES = ("HOME", "LANG", "LC_ALL", "LOGNAME", "SHELL", "TMPDIR", "TZ", "USER")
_RESIDENT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Settings:
    """What the environment says; nothing else in Interlock looks at it."""

    project: Path | None = None
    environment: str | None = None
    acting_as: str | None = None
    agent_mark: AgentMark | None = None
    database_url: str | None = None
    database_owner_url: str | None = None
    state_folder: Path | None = None
    runtime_folder: Path | None = None
    language: str = "en"
    traceparent: str | None = None
    no_color: bool = False
    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Those of `VARIABLES` that are set, for `config explain`; an address among them may hold a password."""
    completing: bool = False
    """Whether the shell asks what could be typed next."""
    resident_environment: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables of `VARIABLES` and `AGENT_MARKS`; an empty value counts as not set."""

        def folder(name: str) -> Path | None:
            value = environment.get(name)
            return Path(value).absolute() if value else None

        return cls(
            project=folder("INTERLOCK_PROJECT"),
            environment=environment.get("INTERLOCK_ENVIRONMENT") or None,
            acting_as=environment.get("INTERLOCK_AS") or None,
            agent_mark=next((mark for mark in AGENT_MARKS if environment.get(mark.variable)), None),
            database_url=environment.get("INTERLOCK_DATABASE_URL") or None,
            database_owner_url=environment.get("INTERLOCK_DATABASE_OWNER_URL") or None,
            state_folder=folder("INTERLOCK_STATE_FOLDER"),
            runtime_folder=folder("INTERLOCK_RUNTIME_FOLDER"),
            language=_language(environment),
            traceparent=environment.get("INTERLOCK_TRACEPARENT") or environment.get("TRACEPARENT") or None,
            no_color=bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb",
            given={each.name: environment[each.name] for each in VARIABLES if environment.get(each.name)},
            completing="_INTERLOCK_COMPLETE" in environment,
            resident_environment=_for_resident(environment),
        )


def read_settings() -> Settings:
    """The settings of this process."""
    return Settings.from_environment(os.environ)


def language_of_locale(locale: str) -> str:
    """`en`, `zh_Hans` or `zh_Hant` for a locale or language tag: by script where there is one, otherwise by region.

    Everything that is not Chinese is answered in English.
    """
    parts = locale.partition(".")[0].partition("@")[0].replace("-", "_").lower().split("_")
    if parts[0] != "zh":
        return "en"
    return "zh_Hant" if {"hant", "tw", "hk", "mo"} & set(parts[1:]) else "zh_Hans"


def _language(environment: Mapping[str, str]) -> str:
    for name in ("INTERLOCK_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(name):
            return language_of_locale(value)
    return "en"


def _for_resident(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    kept = {name: environment[name] for name in _RESIDENT_VARIABLES if name in environment}
    own = {name: value for name, value in environment.items() if name.startswith("INTERLOCK_DATABASE_") and value}
    return tuple(sorted({**kept, **own, "PATH": _RESIDENT_PATH}.items()))


@dataclass(frozen=True)
class Locations:
    """Where the files of one installation lie. Absolute; nothing is made by asking.

    Args:
        project_file: interlock.yaml.
        state_folder: Database, keys and bodies; of the resident process's account alone.
        runtime_folder: Sockets; its path is short, because a socket's path may have 107 bytes only.
        shared: Whether other accounts may reach the door: how much they may ask is what policy decides.
    """

    project_file: Path
    state_folder: Path
    runtime_folder: Path
    shared: bool = False

    @property
    def project_folder(self) -> Path:
        """The folder in which interlock.yaml lies."""
        return self.project_file.parent

    @property
    def door_socket(self) -> Path:
        """Where clients knock."""
        return self.runtime_folder / "door.sock"

    @property
    def log_file(self) -> Path:
        """What a resident process that was started on demand has to say."""
        return self.state_folder / "serve.log"

    @property
    def lock_file(self) -> Path:
        """Held by the resident process for as long as it lives."""
        return self.state_folder / "serve.lock"

    @property
    def environment_file(self) -> Path:
        """Which environment this installation runs as."""
        return self.state_folder / "environment"

    def make_folders(self) -> None:
        """Make the state and the runtime folder for the account of this process.

        Raises:
            Permanent: One of them cannot be made, is a link, belongs to somebody else, or others may write above it.
            Invalid: The socket's path would be too long.
        """
        if len(os.fsencode(self.door_socket)) > _SOCKET_PATH_BYTES_MAX:
            msg = f"the path of the socket is too long: {self.door_socket}"
            raise Invalid(msg, code="door.path", fix="set INTERLOCK_RUNTIME_FOLDER to a short path")
        _make_private_folder(self.state_folder, mode=0o700)
        _make_upper_folder(self.runtime_folder.parent, mode=0o755 if self.shared else 0o700)
        _make_private_folder(self.runtime_folder, mode=0o711 if self.shared else 0o700)

    def trusted_uids(self) -> frozenset[int]:
        """The accounts that may answer at the door: whose runtime folder it is, as far as that one is trusted.

        A folder that is ours, root's, or in which only root could have put it, speaks for its owner.

        Raises:
            Permanent: The runtime folder is a link, or somebody else's.
            Denied: This account cannot see it.
        """
        try:
            facts = self.runtime_folder.lstat()
        except FileNotFoundError:
            return frozenset({os.geteuid()})
        except PermissionError as error:
            msg = f"this account may not reach {self.runtime_folder}"
            raise Denied(msg, code="door.closed", fix="ask whoever runs Interlock here") from error
        parent = self.runtime_folder.parent.lstat()
        vouched = parent.st_uid == 0 and not parent.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISDIR(facts.st_mode) or not (facts.st_uid in {0, os.geteuid()} or vouched):
            raise _foreign(self.runtime_folder)
        return frozenset({facts.st_uid})


def find_project_file(named: Path | None, settings: Settings, start: Path, uid: int) -> Path:
    """The interlock.yaml to use: named by option, by environment, found upwards from `start`, or the system's.

    Raises:
        NotFound: There is none.
        Denied: The one that was found on the way up belongs to another ordinary user, who could have put a trap there.
    """
    chosen = named or settings.project
    if chosen is not None:
        file = (chosen / PROJECT_FILE_NAME if chosen.is_dir() else chosen).absolute()
        if not file.is_file():
            msg = f"there is no project at {file}"
            raise NotFound(msg, code="project.missing", fix=f"interlock init --project {file.parent}")
        return file
    for folder in (start, *start.parents):
        file = folder / PROJECT_FILE_NAME
        if file.is_file():
            owner = file.stat().st_uid
            if owner not in {0, uid}:
                msg = f"{file} belongs to another user, so it is not used unasked"
                raise Denied(msg, code="project.foreign", fix=f"if you trust it: interlock --project {folder} ...")
            return file
    if SYSTEM_PROJECT_FILE.is_file():
        return SYSTEM_PROJECT_FILE
    msg = f"there is no {PROJECT_FILE_NAME} in {start} or above it"
    raise NotFound(msg, code="project.missing", fix="interlock init")


def locate(project_file: Path, settings: Settings, uid: int) -> Locations:
    """The folders of a project, for the resident process (account `uid`) as well as for its clients.

    A client finds the folders of whoever owns the state folder, which may be another account than its own. Neither
    XDG_RUNTIME_DIR nor a session's /run/user is used: they are gone after logout, while the resident process stays,
    and cron does not know them.
    """
    project_file = project_file.resolve()
    system = project_file == SYSTEM_PROJECT_FILE
    default = SYSTEM_STATE_FOLDER if system else project_file.parent / ".interlock"
    state_folder = (settings.state_folder or default).resolve()
    owner = _owner(state_folder, uid)
    if settings.runtime_folder is not None:
        runtime_folder = settings.runtime_folder
    elif system and settings.state_folder is None:
        runtime_folder = SYSTEM_RUNTIME_FOLDER
    else:
        name = hashlib.sha256(os.fsencode(state_folder)).hexdigest()[:_HASH_CHARACTERS]
        base = _ROOT_RUNTIME_FOLDER if owner == 0 else Path(_USER_RUNTIME_FOLDER.format(uid=owner))
        runtime_folder = base / name
    return Locations(project_file, state_folder, runtime_folder, shared=system or owner == 0)


def _owner(state_folder: Path, uid: int) -> int:
    """Who runs, or would run, the resident process."""
    try:
        return state_folder.lstat().st_uid
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return uid


def _make_private_folder(folder: Path, *, mode: int) -> None:
    """Make a folder of ours, or narrow the mode of the one that is there."""
    try:
        folder.mkdir(mode=mode, exist_ok=True)
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            raise _foreign(folder)
        if stat.S_IMODE(facts.st_mode) != mode:
            folder.chmod(mode)
    except OSError as error:
        raise _unusable(folder, error) from error


def _make_upper_folder(folder: Path, *, mode: int) -> None:
    """Make the folder above, or see that nobody can exchange what lies in the one that is there."""
    try:
        folder.mkdir(mode=mode)
        folder.chmod(mode)
    except FileExistsError:
        facts = folder.lstat()
        writable = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not facts.st_mode & stat.S_ISVTX
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid not in {0, os.geteuid()} or writable:
            raise _foreign(folder) from None
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> Permanent:
    msg = f"{folder} cannot be made: {error.strerror or error}"
    fix = "run it as the account that owns the project, or set INTERLOCK_STATE_FOLDER and INTERLOCK_RUNTIME_FOLDER"
    return Permanent(msg, code="folder.unusable", fix=fix)


def _foreign(folder: Path) -> Permanent:
    msg = f"{folder} is a link or belongs to somebody else, or others may write it, so it is not used"
    return Permanent(msg, code="folder.foreign", fix=f"see who made it (ls -ld {folder}); then remove it")
