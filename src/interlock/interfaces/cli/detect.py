"""Looks around for what a new project should know: Compose, nginx, systemd, databases, cron and coding agents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
COMPOSE_BYTES_MAX = 1024 * 1024
FOLDERS_MAX = 200

_DATABASE_IMAGES = ("postgres", "pgvector", "timescaledb", "mysql", "mariadb", "mongo", "redis", "valkey", "clickhouse")
_AGENT_SIGNS = {
    "claude": ("CLAUDE.md", ".claude"),
    "codex": ("AGENTS.md", ".codex"),
    "cursor": (".cursor", ".cursorrules"),
    "gemini": ("GEMINI.md", ".gemini"),
    "copilot": (".github/copilot-instructions.md",),
}
_HOME_SIGNS = {"claude": ".claude", "codex": ".codex", "cursor": ".cursor", "gemini": ".gemini"}


@dataclass(frozen=True)
class Database:
    """A database server. `targets` are KIND:PATTERN, everything by which it could be harmed."""

    name: str
    targets: tuple[str, ...]


_SYSTEM_DATABASES = (
    (
        ("var/lib/postgresql", "etc/postgresql", "var/lib/pgsql"),
        Database(
            "PostgreSQL",
            ("unit:postgresql*", "file:/var/lib/postgresql/**", "file:/var/lib/pgsql/**", "file:/etc/postgresql/**"),
        ),
    ),
    (
        ("var/lib/mysql", "etc/mysql"),
        Database("MySQL", ("unit:mysql*", "unit:mariadb*", "file:/var/lib/mysql/**", "file:/etc/mysql/**")),
    ),
    (("var/lib/redis",), Database("Redis", ("unit:redis*", "file:/var/lib/redis/**"))),
)


@dataclass(frozen=True)
class Found:
    """What was found. `compose_files` are relative to the project's folder."""

    compose_files: tuple[str, ...] = ()
    databases: tuple[Database, ...] = ()
    nginx: bool = False
    systemd: bool = False
    cron: bool = False
    agents: tuple[str, ...] = ()


def look_around(folder: Path, home: Path, root: Path) -> Found:
    """Look into the project's folder and one level below, the person's home, and the system below `root`.

    Nothing is started, and nothing but Compose files is read.
    """
    compose_files = tuple(_compose_files(folder))
    databases = [database for signs, database in _SYSTEM_DATABASES if any((root / sign).exists() for sign in signs)]
    for file in compose_files:
        databases += _databases_of(folder / file)
    return Found(
        compose_files=compose_files,
        databases=tuple(databases),
        nginx=(root / "etc/nginx").is_dir(),
        systemd=(root / "run/systemd/system").is_dir(),
        cron=(root / "etc/crontab").exists() or (root / "var/spool/cron").is_dir(),
        agents=tuple(_agents(folder, home)),
    )


def _compose_files(folder: Path) -> Iterator[str]:
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for place in (folder, *below[:FOLDERS_MAX]):
        for name in COMPOSE_NAMES:
            if (place / name).is_file():
                yield str((place / name).relative_to(folder))
                break


def _databases_of(file: Path) -> Iterator[Database]:
    """Databases that a Compose file declares; a file that cannot be read declares none."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        data = yaml.safe_load(text) if len(text) <= COMPOSE_BYTES_MAX else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    if not isinstance(data, dict) or not isinstance(data.get("services"), dict):
        return
    given = data.get("name")
    project = given if isinstance(given, str) else _project_name(file.parent.name)
    for name, service in data["services"].items():
        image = service.get("image") if isinstance(service, dict) else None
        if isinstance(image, str) and _is_database(image):
            container = service.get("container_name")
            pattern = container if isinstance(container, str) else f"{project}-{name}-*"
            volumes = tuple(f"volume:{project}_{volume}" for volume in _volumes(service.get("volumes")))
            yield Database(f"{name} ({image})", (f"container:{pattern}", *volumes))


def _project_name(folder: str) -> str:
    """As Compose makes it of a folder's name: lower case, without what a name may not hold."""
    return "".join(letter for letter in folder.lower() if letter.isascii() and (letter.isalnum() or letter in "_-"))


def _is_database(image: str) -> bool:
    name = image.rpartition("/")[2].partition(":")[0].partition("@")[0]
    return any(known in name for known in _DATABASE_IMAGES)


def _volumes(volumes: object) -> Iterator[str]:
    """Named volumes, not folders of the machine."""
    for volume in volumes if isinstance(volumes, list) else []:
        source = volume.get("source") if isinstance(volume, dict) else str(volume).partition(":")[0]
        if isinstance(source, str) and source and source[0] not in "./~$":
            yield source


def _agents(folder: Path, home: Path) -> Iterator[str]:
    for agent, signs in _AGENT_SIGNS.items():
        at_home = _HOME_SIGNS.get(agent)
        if any((folder / sign).exists() for sign in signs) or (at_home is not None and (home / at_home).is_dir()):
            yield agent
