"""What a project declares outside itself that can be reached over a network or a socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from interlock.core.project import Project

_PORTS = {"http": 80, "https": 443}
_POSTGRESQL_PORT = 5432
_LOCAL_FOLDER = "/var/run/postgresql"


class Place(NamedTuple):
    """Where a connection goes: a host and a port, or the path of a Unix socket. `name` is its key in interlock.yaml."""

    name: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def declared_places(project: Project) -> Iterator[Place]:
    """Databases, MCP servers and HTTP services, in the order of interlock.yaml."""
    for name, database in project.databases.items():
        yield _of_database(f"databases.{name}", database.url)
    for name, server in project.mcp_servers.items():
        if server.url is not None:
            yield _of_url(f"mcp_servers.{name}", server.url)
    for name, destination in project.http_destinations.items():
        yield _of_url(f"http_destinations.{name}", destination.url)


def declared_tools(project: Project) -> dict[str, str]:
    """Programs that this machine needs for what the project declares, each with what needs it."""
    kinds = {pattern.partition(":")[0]: pattern for pattern in project.protected}
    needed: dict[str, str] = {}
    for kinds_of_tool, tool in (({"container", "image", "volume"}, "docker"), ({"unit"}, "systemctl")):
        for kind in sorted(kinds_of_tool & kinds.keys()):
            needed.setdefault(tool, f"protected {kinds[kind]}")
    for name in project.contexts:
        needed.setdefault(name, f"contexts.{name}")
    return needed


def _of_url(name: str, url: str) -> Place:
    parts = urlsplit(url)
    return Place(name, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443))


def _of_database(name: str, url: str) -> Place:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    host = unquote(query.get("host", [parts.hostname or ""])[0])
    port = int(query.get("port", [parts.port or _POSTGRESQL_PORT])[0])
    if not host or host.startswith("/"):
        return Place(name, path=f"{host or _LOCAL_FOLDER}/.s.PGSQL.{port}")
    return Place(name, host, port)
