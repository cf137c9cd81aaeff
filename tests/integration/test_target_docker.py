"""Containers, volumes and Compose services are known for what they are; an engine that misbehaves is a refusal."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from harness.docker_engine import RealEngine, real_engine, why_absent
from interlock.adapters.docker import DockerTargets
from interlock.adapters.files import FileTargets
from interlock.core.errors import InterlockError, Invalid, NotFound, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Target
from interlock.engine.policy.protected import Patterns
from interlock.engine.policy.target_classes import classes_of

NOTHING: JsonObject = {}
ID = "a1" * 32
OTHER_ID = "a2" * 32
Answer = Callable[[socket.socket, str, dict[str, Any]], None]


class FakeEngine:
    """Speaks HTTP on a Unix socket, one answer per connection, byte by byte where a test wants it so."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = str(path)
        self.asked: list[str] = []
        self._answer = answer
        self._ended = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            channel, _ = self._listener.accept()
            with channel:
                channel.settimeout(10)
                request = b""
                while b"\r\n\r\n" not in request and (part := channel.recv(65536)):
                    request += part
                if request and not self._ended.is_set():
                    target = urlsplit(request.split(b" ", 2)[1].decode())
                    self.asked.append(unquote(target.path))
                    query = {name: values[0] for name, values in parse_qs(target.query).items()}
                    try:
                        self._answer(channel, unquote(target.path), query)
                    except OSError:  # the client had enough
                        continue

    def close(self) -> None:
        """Stop serving."""
        self._ended.set()
        with socket.socket(socket.AF_UNIX) as wake:
            wake.connect(self.path)
        self._thread.join(15)
        self._listener.close()


def _send(channel: socket.socket, status: int, body: object) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    channel.sendall(b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%b" % (status, len(raw), raw))


def _hang(channel: socket.socket) -> None:
    channel.recv(1)  # until the client goes away


def _trickle(channel: socket.socket) -> None:
    channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    waiting = threading.Event()
    for _ in range(200):
        channel.sendall(b" ")
        waiting.wait(0.05)


def _trickle_headers(channel: socket.socket) -> None:
    waiting = threading.Event()
    for letter in b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100:
        channel.sendall(bytes([letter]))
        waiting.wait(0.05)


MISBEHAVIOURS: dict[str, tuple[Callable[[socket.socket], None], type[InterlockError]]] = {
    "429": (lambda channel: _send(channel, 429, {"message": "slow down"}), Transient),
    "500": (lambda channel: _send(channel, 500, {"message": "server error"}), Transient),
    "503 in HTML": (lambda channel: _send(channel, 503, b"<html>busy</html>"), Transient),
    "403": (lambda channel: _send(channel, 403, {"message": "authorization denied by plugin"}), Invalid),
    "301": (lambda channel: _send(channel, 301, b""), Invalid),
    "not JSON": (lambda channel: _send(channel, 200, b'{"Id": '), Transient),
    "not HTTP": (lambda channel: channel.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), Transient),
    "half a body": (lambda channel: channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), Transient),
    "nothing": (lambda channel: None, Transient),
    "null": (lambda channel: _send(channel, 200, None), Transient),
    "a list": (lambda channel: _send(channel, 200, [1]), Transient),
    "no id": (lambda channel: _send(channel, 200, {"Name": "/web"}), Transient),
    "a short id": (lambda channel: _send(channel, 200, {"Id": "abc"}), Transient),
    "deep JSON": (lambda channel: _send(channel, 200, b"[" * 200_000), Transient),
    "a flood": (lambda channel: _send(channel, 200, b'"' + b"x" * (17 * 1024 * 1024) + b'"'), Transient),
    "wrong types": (lambda channel: _send(channel, 200, {"Id": ID, "Mounts": {}, "Config": []}), Transient),
    "silence": (_hang, Transient),
    "a trickle": (_trickle, Transient),
    "trickling headers": (_trickle_headers, Transient),
}


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def fake(short_folder: Path) -> Iterator[Callable[[Answer], FakeEngine]]:
    started: list[FakeEngine] = []

    def start(answer: Answer) -> FakeEngine:
        engine = FakeEngine(short_folder / f"{len(started)}.sock", answer)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.close()


def _container(name: str, identity: str = ID, **settings: Any) -> dict[str, Any]:
    body = {
        "Id": identity,
        "Name": f"/{name}",
        "Path": "run",
        "Image": f"sha256:{'b' * 64}",
        "Mounts": [],
        "Config": {},
    }
    return {**body, **settings}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_an_engine_that_misbehaves_is_a_refusal_in_time(name: str, fake: Callable[[Answer], FakeEngine]) -> None:
    behave, error = MISBEHAVIOURS[name]
    engine = fake(lambda channel, _path, _query: behave(channel))
    begin = time.monotonic()
    with pytest.raises(error):
        DockerTargets(engine.path, timeout_seconds=1.0).resolve("container", "web", NOTHING)
    assert time.monotonic() - begin < 4


def test_no_engine_is_not_found_and_a_dead_one_is_transient(short_folder: Path) -> None:
    with pytest.raises(NotFound):
        DockerTargets(str(short_folder / "none.sock")).resolve("container", "web", NOTHING)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(short_folder / "dead.sock"))
    with pytest.raises(Transient):
        DockerTargets(str(short_folder / "dead.sock")).resolve("container", "web", NOTHING)


def test_an_engine_on_another_machine_is_refused() -> None:
    for address in ("tcp://10.0.0.1:2375", "ssh://host", "unix://relative.sock"):
        with pytest.raises(Invalid):
            DockerTargets().resolve("container", "web", {"DOCKER_HOST": address})


def test_a_container_of_podman_is_not_one_of_docker(fake: Callable[[Answer], FakeEngine]) -> None:
    docker = fake(lambda channel, _path, _query: _send(channel, 200, _container("web")))
    podman = fake(lambda channel, _path, _query: _send(channel, 200, _container("web", OTHER_ID)))
    targets = DockerTargets(docker.path, podman_path=podman.path)
    assert [found.id for found in targets.resolve("container", "web", NOTHING)] == [ID]
    assert [found.id for found in targets.resolve("container", "web", {"engine": "podman"})] == [OTHER_ID]
    host = {"engine": "podman", "DOCKER_HOST": f"unix://{docker.path}", "CONTAINER_HOST": f"unix://{podman.path}"}
    assert [found.id for found in DockerTargets().resolve("container", "web", host)] == [OTHER_ID]


def test_an_answer_without_end_is_not_read_to_its_end(fake: Callable[[Answer], FakeEngine]) -> None:
    engine = fake(lambda channel, _path, _query: MISBEHAVIOURS["a flood"][0](channel))
    with pytest.raises(Transient) as refusal:
        DockerTargets(engine.path).resolve("container", "web", NOTHING)
    assert refusal.value.code == "docker.too_much"


@pytest.mark.parametrize("name", ["", "-v", "../x", "web/json?x", "web\0", "w\u0435b", "a b", "x" * 300])
def test_what_is_no_name_never_reaches_the_engine(name: str, fake: Callable[[Answer], FakeEngine]) -> None:
    engine = fake(lambda channel, _path, _query: _send(channel, 200, _container("web")))
    for kind in ("container", "volume", "network", "image", "compose-service"):
        if kind != "image" or name != "web/json?x":
            with pytest.raises(Invalid):
                DockerTargets(engine.path).resolve(kind, name, {"folder": "/srv/shop"})
    assert not [path for path in engine.asked if path != "/containers/json"]


@pytest.mark.parametrize(
    ("settings", "database"),
    [
        ({"Config": {"Image": "registry.example.org/team/postgres:15@sha256:ab"}}, "database:postgres"),
        ({"Config": {"Image": "team/store:1", "Cmd": ["postgres", "-c", "x=1"]}}, "database:postgresql"),
        ({"Config": {"Image": "store", "Entrypoint": ["/usr/sbin/mysqld"]}}, "database:mysql"),
        ({"Config": {"Image": "store", "ExposedPorts": {"6379/tcp": {}}}}, "database:redis"),
        ({"Config": {"Image": "store", "Env": ["PGDATA=/x"]}}, "database:postgresql"),
        (
            {"Config": {}, "Mounts": [{"Type": "bind", "Source": "/x", "Destination": "/var/lib/mysql"}]},
            "database:mysql",
        ),
        ({"Config": {"Image": "store", "Volumes": {"/var/lib/postgresql/data": {}}}}, "database:postgresql"),
    ],
)
def test_a_database_is_a_database_under_any_name(
    settings: dict[str, Any], database: str, fake: Callable[[Answer], FakeEngine]
) -> None:
    engine = fake(lambda channel, _path, _query: _send(channel, 200, _container("shop-cache", **settings)))
    (target,) = DockerTargets(engine.path).resolve("container", "shop-cache", NOTHING)
    assert database in target.names
    assert "database" in classes_of(target)


def test_a_client_of_a_database_is_none(fake: Callable[[Answer], FakeEngine]) -> None:
    config = {"Image": "shop/web:3", "Env": ["POSTGRES_PASSWORD=x", "DATABASE_URL=y"], "Cmd": ["gunicorn"]}
    engine = fake(lambda channel, _path, _query: _send(channel, 200, _container("web", Config=config)))
    (target,) = DockerTargets(engine.path).resolve("container", "web", NOTHING)
    assert classes_of(target) == ()
    assert "POSTGRES_PASSWORD" not in target.model_dump_json()


def test_a_volume_that_is_a_folder_of_this_machine_is_that_folder(fake: Callable[[Answer], FakeEngine]) -> None:
    mounts = [{"Type": "volume", "Name": "data", "Source": "/var/lib/docker/volumes/data/_data", "RW": True}]

    def answer(channel: socket.socket, path: str, _query: dict[str, Any]) -> None:
        volume = {"Name": "data", "Options": {"type": "none", "o": "bind", "device": "/srv/db"}}
        _send(channel, 200, volume if path == "/volumes/data" else _container("web", Mounts=mounts))

    (target,) = DockerTargets(fake(answer).path).resolve("container", "web", NOTHING)
    assert Patterns(["file:/srv/db/**"]).match(target)


def test_a_container_in_anothers_network_falls_with_it(fake: Callable[[Answer], FakeEngine]) -> None:
    def answer(channel: socket.socket, path: str, _query: dict[str, Any]) -> None:
        if path == "/containers/json":
            listed = [{"Id": OTHER_ID, "HostConfig": {"NetworkMode": f"container:{ID}"}}, {"Id": ID, "HostConfig": {}}]
            _send(channel, 200, listed)
        else:
            _send(channel, 200, _container("vpn") if ID in path or "vpn" in path else _container("app", OTHER_ID))

    docker = DockerTargets(fake(answer).path)
    (target,) = docker.resolve("container", "vpn", NOTHING)
    assert [found.id for found in docker.pulled_along(target, "container.restart", NOTHING)] == [OTHER_ID]


def test_a_container_that_vanishes_meanwhile_is_left_out(fake: Callable[[Answer], FakeEngine]) -> None:
    def answer(channel: socket.socket, path: str, _query: dict[str, Any]) -> None:
        if path == "/containers/json":
            _send(channel, 200, [{"Id": ID}, {"Id": OTHER_ID}])
        else:
            _send(channel, 404 if OTHER_ID in path else 200, _container("web"))

    assert [found.id for found in DockerTargets(fake(answer).path).everything(NOTHING)] == [ID]


def test_more_containers_than_a_plan_can_show_are_refused(fake: Callable[[Answer], FakeEngine]) -> None:
    listed = [{"Id": f"{number:064x}"} for number in range(600)]
    engine = fake(lambda channel, _path, _query: _send(channel, 200, listed))
    with pytest.raises(Invalid, match="more than a plan can show"):
        DockerTargets(engine.path).everything(NOTHING)


@pytest.mark.skipif(os.geteuid() != 0, reason="root may use every socket; only root can become somebody else here")
def test_a_socket_that_may_not_be_used_is_permanent(short_folder: Path, fake: Callable[[Answer], FakeEngine]) -> None:
    engine = fake(lambda channel, _path, _query: _send(channel, 200, []))
    Path(engine.path).chmod(0o600)
    short_folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(Permanent):
            DockerTargets(engine.path).resolve("container", "web", NOTHING)
    finally:
        os.seteuid(0)


# From here on with a real engine, where there is one.


@pytest.fixture(scope="session")
def real() -> Iterator[RealEngine]:
    """Started where dockerd is installed and this is root; else skipped."""
    if (reason := why_absent()) is not None:
        pytest.skip(reason)
    with real_engine() as engine:
        engine.import_image("shop:v1", {"bin/sleep": "busybox"})
        yield engine


@pytest.fixture
def engine(real: RealEngine) -> Iterator[RealEngine]:
    """The engine, without containers and volumes before and after."""
    yield real
    for container in real.call("GET", "/containers/json?all=1"):
        real.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    for volume in real.call("GET", "/volumes")["Volumes"] or ():
        real.call("DELETE", f"/volumes/{volume['Name']}?force=1")


def _one(docker: DockerTargets, kind: str, name: str, context: JsonObject | None = None) -> Target:
    (target,) = docker.resolve(kind, name, context or NOTHING)
    return target


def test_a_container_is_one_by_name_id_and_prefix(engine: RealEngine) -> None:
    identity = engine.create("web")
    docker = DockerTargets(engine.socket_path)
    found = {_one(docker, "container", name) for name in ("web", identity, identity[:12], identity[:5])}
    assert {target.key for target in found} == {f"container:{identity}"}


def test_the_beginning_of_several_ids_is_refused(engine: RealEngine) -> None:
    seen: set[str] = set()
    for number in range(17):
        first = engine.create(f"c{number}")[0]
        if first in seen:
            break
        seen.add(first)
    with pytest.raises(Invalid) as refusal:
        DockerTargets(engine.socket_path).resolve("container", first, NOTHING)
    assert refusal.value.code == "docker.ambiguous"


def test_a_container_that_was_made_anew_is_another_one(engine: RealEngine) -> None:
    docker = DockerTargets(engine.socket_path)
    first = engine.create("web")
    precondition = _one(docker, "container", "web")
    engine.call("DELETE", f"/containers/{first}")
    engine.create("web")
    assert _one(docker, "container", "web") != precondition


def test_protecting_a_folder_protects_the_container_that_writes_it(engine: RealEngine, tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "link").symlink_to("db")
    patterns = Patterns([f"file:{tmp_path}/db/**"])
    docker = DockerTargets(engine.socket_path, paths_of=FileTargets().paths_of)
    for name, bind, covered in (
        ("direct", f"{tmp_path}/db:/data", True),
        ("linked", f"{tmp_path}/link:/data", True),
        ("reader", f"{tmp_path}/db:/data:ro", False),
        ("above", f"{tmp_path}:/all", True),
    ):
        engine.create(name, HostConfig={"Binds": [bind]})
        assert bool(patterns.match(_one(docker, "container", name))) is covered, name


def test_a_volume_falls_with_those_who_use_it_and_is_the_database_they_are(engine: RealEngine) -> None:
    identity = engine.create("store", HostConfig={"Binds": ["rows:/var/lib/postgresql/data"]})
    docker = DockerTargets(engine.socket_path)
    volume = _one(docker, "volume", "rows")
    assert classes_of(volume) == ("database",)
    assert [found.id for found in docker.pulled_along(volume, "volume.remove", NOTHING)] == [identity]
    assert "volume:rows" in _one(docker, "container", "store").names


def test_removing_a_container_with_its_volumes_takes_those_without_a_name(engine: RealEngine) -> None:
    engine.create("web", Volumes={"/cache": {}}, HostConfig={"Binds": ["kept:/data"]})
    docker = DockerTargets(engine.socket_path)
    (found,) = docker.pulled_along(_one(docker, "container", "web"), "volume.remove", NOTHING)
    assert found.kind == "volume"
    assert found.id != "kept"


def test_removing_an_image_takes_its_containers(engine: RealEngine) -> None:
    identity = engine.create("web")
    docker = DockerTargets(engine.socket_path)
    image = _one(docker, "image", "shop:v1")
    assert image.id.startswith("sha256:")
    assert _one(docker, "image", "shop:v1").names == _one(docker, "image", image.id).names
    assert [found.id for found in docker.pulled_along(image, "image.remove", NOTHING)] == [identity]
    assert docker.pulled_along(image, "image.pull", NOTHING) == ()


def test_an_image_that_is_not_here_yet_is_what_it_is_called(engine: RealEngine) -> None:
    assert _one(DockerTargets(engine.socket_path), "image", "nginx:1.25").key == "image:nginx:1.25"


def test_a_prune_takes_what_is_at_rest_and_its_volumes(engine: RealEngine) -> None:
    stopped = engine.create("stopped", HostConfig={"Binds": ["old:/data"]})
    running = engine.create("running", HostConfig={"Binds": ["used:/data"]})
    engine.call("POST", f"/containers/{running}/start")
    docker = DockerTargets(engine.socket_path)
    host = Target(kind="host", id="localhost")
    assert [found.id for found in docker.pulled_along(host, "container.remove", NOTHING)] == [stopped]
    assert [found.id for found in docker.pulled_along(host, "volume.remove", NOTHING)] == ["old"]
    assert [found.id for found in docker.everything(NOTHING)] == [running]


COMPOSE = """
services:
  web: {image: "shop:v1", command: sleep 1000, depends_on: [db]}
  db: {image: "shop:v1", command: sleep 1000}
  mail: {image: "shop:v1", command: sleep 1000}
"""


@pytest.fixture
def project(engine: RealEngine, tmp_path: Path) -> Path:
    """A Compose project with its containers, labelled as Compose labels them."""
    folder = tmp_path / "Shop App"
    folder.mkdir()
    (folder / "compose.yaml").write_text(COMPOSE)
    for service in ("web", "db", "mail"):
        labels = {
            "com.docker.compose.project": "shopapp",
            "com.docker.compose.service": service,
            "com.docker.compose.project.working_dir": str(folder),
        }
        engine.create(f"shopapp-{service}-1", Labels=labels)
    return folder


def _services(targets: tuple[Target, ...]) -> set[str]:
    return {found.id for found in targets if found.kind == "compose-service"}


def test_a_service_is_its_containers(engine: RealEngine, project: Path) -> None:
    docker = DockerTargets(engine.socket_path)
    service, container = docker.resolve("compose-service", "db", {"folder": str(project)})
    assert service.key == "compose-service:shopapp/db"
    assert "shopapp-db-1" in container.names
    assert "database" in classes_of(service)
    assert "database" in classes_of(container)


def test_bringing_a_service_up_touches_what_it_depends_on_and_no_more(engine: RealEngine, project: Path) -> None:
    docker, context = DockerTargets(engine.socket_path), {"folder": str(project)}
    web = docker.resolve("compose-service", "web", context)[0]
    assert _services(docker.pulled_along(web, "compose.up", context)) == {"shopapp/db"}
    assert docker.pulled_along(web, "container.restart", context) == ()


def test_a_project_is_all_of_its_services_unless_some_are_named(engine: RealEngine, project: Path) -> None:
    docker, context = DockerTargets(engine.socket_path), {"folder": str(project)}
    whole = _one(docker, "compose-project", ".", context)
    found = docker.pulled_along(whole, "container.stop", context)
    assert _services(found) == {"shopapp/web", "shopapp/db", "shopapp/mail"}
    assert sum(target.kind == "container" for target in found) == 3
    assert docker.pulled_along(whole, "container.stop", {**context, "services": "web"}) == ()


def test_a_file_that_cannot_be_understood_touches_the_whole_project(engine: RealEngine, project: Path) -> None:
    (project / "compose.yaml").write_text("services: &x [")
    docker, context = DockerTargets(engine.socket_path), {"folder": str(project)}
    web = docker.resolve("compose-service", "web", context)[0]
    found = docker.pulled_along(web, "compose.up", context)
    assert {name for target in found for name in target.names if name.startswith("shopapp-")} == {
        "shopapp-web-1",
        "shopapp-db-1",
        "shopapp-mail-1",
    }


def test_taking_a_project_down_with_volumes_takes_its_volumes(engine: RealEngine, project: Path) -> None:
    labels = {"com.docker.compose.project": "shopapp"}
    engine.call("POST", "/volumes/create", {"Name": "shopapp_rows", "Labels": labels})
    docker, context = DockerTargets(engine.socket_path), {"folder": str(project)}
    whole = _one(docker, "compose-project", ".", context)
    assert [found.id for found in docker.pulled_along(whole, "volume.remove", context)] == ["shopapp_rows"]
    assert docker.pulled_along(whole, "network.remove", context) == ()


@pytest.mark.parametrize(
    ("context", "name"),
    [
        ({"project": "other"}, "other"),
        ({"COMPOSE_PROJECT_NAME": "fromenv"}, "fromenv"),
        ({"project": "other", "COMPOSE_PROJECT_NAME": "fromenv"}, "other"),
        ({"file": "sub/compose.yaml"}, "sub"),
    ],
)
def test_a_project_is_named_in_composes_own_order(
    engine: RealEngine, project: Path, context: JsonObject, name: str
) -> None:
    docker = DockerTargets(engine.socket_path)
    assert _one(docker, "compose-project", ".", {"folder": str(project), **context}).id == name


def test_a_project_named_in_its_files_is_known_by_that_name_and_by_its_containers(
    engine: RealEngine, project: Path
) -> None:
    (project / ".env").write_text("# x\nCOMPOSE_PROJECT_NAME='renamed'\n")
    docker = DockerTargets(engine.socket_path)
    target = _one(docker, "compose-project", ".", {"folder": str(project)})
    assert (target.id, target.names) == ("renamed", ("shopapp",))
    (project / ".env").unlink()
    (project / "compose.yaml").write_text("name: infile\n" + COMPOSE)
    assert _one(docker, "compose-project", ".", {"folder": str(project)}).id == "infile"
