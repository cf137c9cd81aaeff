"""What a container, image, volume or network is, and under which names people know it, from the engine's own JSON."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from interlock.adapters.names import unique
from interlock.core.errors import Transient
from interlock.core.plan import Target

SHORT_ID_CHARACTERS = 12
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
DEPENDS_LABEL = "com.docker.compose.depends_on"

_FULL_ID = re.compile(r"[0-9a-f]{64}")

_SERVERS = {
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "pgbouncer": "postgresql",
    "mysqld": "mysql",
    "mysqld_safe": "mysql",
    "mariadbd": "mysql",
    "mongod": "mongodb",
    "redis-server": "redis",
    "valkey-server": "redis",
    "clickhouse-server": "clickhouse",
    "etcd": "etcd",
    "cockroach": "cockroach",
    "influxd": "influxdb",
}
_PORTS = {
    "1433/tcp": "mssql",
    "2379/tcp": "etcd",
    "3306/tcp": "mysql",
    "5432/tcp": "postgresql",
    "6379/tcp": "redis",
    "9042/tcp": "cassandra",
    "9200/tcp": "elasticsearch",
    "27017/tcp": "mongodb",
}
_SETTINGS = {
    "PGDATA": "postgresql",
    "POSTGRES_PASSWORD": "postgresql",
    "MYSQL_ROOT_PASSWORD": "mysql",
    "MARIADB_ROOT_PASSWORD": "mysql",
    "MONGO_INITDB_ROOT_USERNAME": "mongodb",
}
_FOLDERS = (
    *("/var/lib/postgresql", "/var/lib/mysql", "/var/lib/mongodb", "/data/db", "/var/lib/clickhouse"),
    *(
        "/bitnami/postgresql",
        "/bitnami/mysql",
        "/bitnami/mariadb",
        "/usr/share/elasticsearch/data",
        "/var/lib/cassandra",
    ),
)
# A client has the address or the password of a database in its environment too, so the names alone are not enough.
_SETTINGS_NEED_SERVER_IMAGE = frozenset(_SETTINGS) - {"PGDATA"}
_IMAGES = (
    *(
        "postgres",
        "postgresql",
        "postgis",
        "timescaledb",
        "pgvector",
        "mysql",
        "mariadb",
        "percona",
        "mongo",
        "mongodb",
    ),
    *(
        "redis",
        "valkey",
        "keydb",
        "clickhouse",
        "clickhouse-server",
        "cassandra",
        "scylla",
        "couchdb",
        "influxdb",
        "etcd",
    ),
    *("elasticsearch", "opensearch", "cockroach", "neo4j", "rabbitmq", "memcached", "qdrant", "milvus"),
)


def container_target(body: Any, volumes: Iterable[Any], paths_of: Callable[[str], tuple[str, ...]]) -> Target:
    """A container from `GET /containers/ID/json`, its volumes from `GET /volumes/NAME`.

    Its names hold the short id, its name, `image:`, `compose-project:` and `compose-service:`, `volume:`, `network:`,
    `port:`, `database:` where it runs one, and `mount:PATH` for each folder of this machine that it can write, so that
    protecting the folder protects the container too. What it can only read it cannot harm.

    Raises: Transient when the JSON is not of the known form.
    """
    identity = full_id(body, "Id")
    config, host = dictionary(body, "Config"), dictionary(body, "HostConfig")
    labels = dictionary(config, "Labels")
    image = text(config, "Image")
    mounts = [mount for mount in listing(body, "Mounts") if isinstance(mount, dict)]
    written = [mount for mount in mounts if mount.get("RW") is not False]
    names = [
        identity[:SHORT_ID_CHARACTERS],
        text(body, "Name").lstrip("/"),
        *(f"image:{name}" for name in (image, text(body, "Image")) if name),
        *label_names(labels),
        *(f"volume:{mount['Name']}" for mount in mounts if mount.get("Type") == "volume" and mount.get("Name")),
        *(f"network:{name}" for name in dictionary(dictionary(body, "NetworkSettings"), "Networks")),
        *(f"port:{port}" for port in _published(dictionary(host, "PortBindings"))),
    ]
    for path in (*(text(mount, "Source") for mount in written), *_devices(volumes, written)):
        names += [f"mount:{known}" for known in (path, *paths_of(path))] if path.startswith("/") else []
    names += [f"database:{kind}" for kind in databases_in(config, image, mounts, text(body, "Path"))]
    return Target(kind="container", id=identity, names=unique(names, besides=identity))


def image_target(body: Any) -> Target:
    """An image from `GET /images/NAME/json`."""
    identity = text(body, "Id")
    if not _FULL_ID.fullmatch(identity.removeprefix("sha256:")):
        what = "an image has no full id"
        raise _unreadable(what)
    tags = [str(tag) for key in ("RepoTags", "RepoDigests") for tag in listing(body, key)]
    short = identity.removeprefix("sha256:")[:SHORT_ID_CHARACTERS]
    return Target(kind="image", id=identity, names=unique([*sorted(tags), short], besides=identity))


def volume_target(body: Any, users: Iterable[Target], paths_of: Callable[[str], tuple[str, ...]]) -> Target:
    """A volume from `GET /volumes/NAME`, with what runs on it: the volume of a database is that database."""
    identity = text(body, "Name")
    if not identity:
        what = "a volume has no name"
        raise _unreadable(what)
    names = list(label_names(dictionary(body, "Labels"), services=False))
    for path in (text(body, "Mountpoint"), text(dictionary(body, "Options"), "device")):
        names += [f"mount:{known}" for known in (path, *paths_of(path))] if path.startswith("/") else []
    names += [name for user in users for name in user.names if name.startswith("database:")]
    return Target(kind="volume", id=identity, names=unique(names, besides=identity))


def network_target(body: Any) -> Target:
    """A network from `GET /networks/NAME`."""
    identity = text(body, "Id")
    if not identity:
        what = "a network has no id"
        raise _unreadable(what)
    names = [
        text(body, "Name"),
        identity[:SHORT_ID_CHARACTERS],
        *label_names(dictionary(body, "Labels"), services=False),
    ]
    return Target(kind="network", id=identity, names=unique(names, besides=identity))


def label_names(labels: dict[str, Any], *, services: bool = True) -> Iterator[str]:
    """`compose-project:shop`, `compose-service:shop/web` and `service:web` from the labels Compose writes."""
    project, service = text(labels, PROJECT_LABEL), text(labels, SERVICE_LABEL)
    if project:
        yield f"compose-project:{project}"
    if services and service:
        yield f"compose-service:{project}/{service}"
        yield f"service:{service}"


def databases_in(config: dict[str, Any], image: str, mounts: Iterable[Any], program: str) -> tuple[str, ...]:
    """Which databases a container runs, whatever it and its image are called: by the image's usual names, the program,
    the ports that the image declares, its settings, and the folders it keeps its data in."""
    found: set[str] = set()
    repository = posixpath.basename(image.partition("@")[0]).partition(":")[0].lower()
    is_server_image = repository in _IMAGES
    if is_server_image:
        found.add(repository)
    for word in (program, *(str(word) for key in ("Entrypoint", "Cmd") for word in listing(config, key)[:4])):
        found.update({_SERVERS[name]} if (name := posixpath.basename(word)) in _SERVERS else ())
    found.update(_PORTS[port] for port in dictionary(config, "ExposedPorts") if port in _PORTS)
    settings = {str(setting).partition("=")[0] for setting in listing(config, "Env")}
    found.update(
        kind
        for name, kind in _SETTINGS.items()
        if name in settings - (set() if is_server_image else _SETTINGS_NEED_SERVER_IMAGE)
    )
    places = [
        *dictionary(config, "Volumes"),
        *(text(mount, "Destination") for mount in mounts if mount.get("RW") is not False),
    ]
    for place in places:
        found.update(
            posixpath.basename(folder) for folder in _FOLDERS if place == folder or place.startswith(folder + "/")
        )
    return tuple(sorted(found))


def full_id(body: Any, key: str) -> str:
    """A full id. Raises Transient for anything else: an effect needs the whole of it."""
    found = text(body, key)
    if not _FULL_ID.fullmatch(found):
        what = f"{key} is not a full id"
        raise _unreadable(what)
    return found


def text(body: Any, key: str) -> str:
    """A text in JSON; empty where it is missing or null. Raises Transient where it is something else."""
    found = body.get(key) if isinstance(body, dict) else None
    if found is None:
        return ""
    if not isinstance(found, str) or "\0" in found:
        what = f"{key} is not a text"
        raise _unreadable(what)
    return found


def listing(body: Any, key: str) -> list[Any]:
    """A list in JSON; empty where it is missing or null. Raises Transient where it is something else."""
    found = body.get(key) if isinstance(body, dict) else None
    if found is None:
        return []
    if not isinstance(found, list):
        what = f"{key} is not a list"
        raise _unreadable(what)
    return found


def dictionary(body: Any, key: str) -> dict[str, Any]:
    """An object in JSON; empty where it is missing or null. Raises Transient where it is something else."""
    found = body.get(key) if isinstance(body, dict) else None
    if found is None:
        return {}
    if not isinstance(found, dict):
        what = f"{key} is not an object"
        raise _unreadable(what)
    return found


def _published(bindings: dict[str, Any]) -> Iterator[str]:
    for hosts in bindings.values():
        for host in hosts or ():
            yield text(host, "HostPort")


def _devices(volumes: Iterable[Any], written: list[dict[str, Any]]) -> Iterator[str]:
    """Folders of this machine behind volumes that are bind mounts by their driver's options."""
    names = {mount.get("Name") for mount in written}
    for volume in volumes:
        if text(volume, "Name") in names:
            yield text(dictionary(volume, "Options"), "device")


def _unreadable(what: str) -> Transient:
    msg = f"the Docker engine answered with something unknown: {what}"
    return Transient(msg, code="docker.unreadable", fix="docker info")
