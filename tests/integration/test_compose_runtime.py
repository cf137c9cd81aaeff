"""Versions as containers beside each other, made by a real Compose on a real engine; nobody else's is touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.databases import database
from harness.docker_engine import RealEngine, real_engine, why_absent
from harness.engine import open_engine, write_project
from harness.release_world import succeed
from harness.stand_in_service import free_port, until
from harness.step_context import Guarded
from interlock.adapters.compose_runtime import PATH, ComposeServices
from interlock.core.errors import Conflict, InterlockError, NotFound, Permanent, Transient
from interlock.core.service_runtime import VersionSpec
from interlock.core.workload import ServiceWorkload

COMPOSE = shutil.which("docker-compose", path=PATH)
pytestmark = pytest.mark.skipif(
    why_absent() is not None or COMPOSE is None,
    reason=why_absent() or "needs docker-compose: apt-get install docker-compose",
)
SECRET = "pa$$word"
PROJECT = """
services:
  web:
    image: shop:v1
    container_name: shop-web
    network_mode: host
    stop_signal: SIGKILL
    command: ["sh", "-c", "exec httpd -f -p 127.0.0.1:$${PORT:-%(port)s} -h /www"]
    env_file: secrets.env
    environment: {PLACE: "${PLACE:-here}"}
  beat: {image: "shop:v1", network_mode: host, command: celery -A shop beat}
"""


class Shop(NamedTuple):
    """An operator's project, and our runtime."""

    engine: RealEngine
    runtime: ComposeServices
    folder: Path
    kept: Path
    images: dict[str, str]
    own_port: int

    def declared(self, service: str = "web", **more: Any) -> ServiceWorkload:
        return ServiceWorkload.model_validate(
            {
                "compose": {"project": "shop", "file": "compose.yaml", "service": service, "port": 80},
                "source": {"image": "shop"},
                "traffic": {"listen": "127.0.0.1:80"},
                "stop_grace_seconds": 1,
                **more,
            }
        )

    def spec(self, version: str, port: int | None = None, **more: Any) -> VersionSpec:
        identity = f"image:{self.images[version]}"
        given = port if port is not None else free_port()
        return VersionSpec(
            workload="web", version=version, declared=self.declared(**more), identity=identity, port=given
        )

    def containers(self) -> set[str]:
        return {each["Names"][0] for each in self.engine.call("GET", "/containers/json?all=1")}


def page(spec: VersionSpec) -> str:
    with urllib.request.urlopen(f"http://{spec.address}/version", timeout=5) as answer:
        return str(answer.read().decode())


def answers(spec: VersionSpec) -> str | None:
    try:
        return page(spec)
    except (urllib.error.URLError, OSError):
        return None


@pytest.fixture(scope="module")
def opened() -> Iterator[Shop]:
    with real_engine() as engine, tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as name:
        links = {f"bin/{program}": "busybox" for program in ("sh", "httpd", "sleep", "wget")}
        images = {
            version: engine.import_image(f"shop:{version}", {**links, "www/version": version})
            for version in ("v1", "v2")
        }
        folder, port = Path(name), free_port()
        (folder / "compose.yaml").write_text(PROJECT % {"port": port})
        (folder / "secrets.env").write_text(f"SECRET={SECRET}\n")
        environment = {"DOCKER_HOST": f"unix://{engine.socket_path}"}
        runtime = ComposeServices(folder / "kept", lambda: str(folder), lambda: environment)
        subprocess.run(
            [str(COMPOSE), "-p", "shop", "up", "-d", "web"],
            cwd=folder,
            env={**environment, "PATH": PATH},
            check=True,
            capture_output=True,
            timeout=60,
        )
        yield Shop(engine, runtime, folder, folder / "kept", images, port)


@pytest.fixture
def shop(opened: Shop) -> Iterator[Shop]:
    """Only the operator's own container is there, before and after."""
    yield opened
    for container in opened.engine.call("GET", "/containers/json?all=1"):
        if container["Names"] != ["/shop-web"]:
            opened.engine.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    assert opened.containers() == {"/shop-web"}
    shutil.rmtree(opened.kept, ignore_errors=True)


def test_a_version_is_pinned_to_the_image_its_tag_means_now(shop: Shop) -> None:
    declared = shop.declared()
    assert shop.runtime.identify("web", "v1", declared) == f"image:{shop.images['v1']}"
    by_id = shop.images["v2"].removeprefix("sha256:")
    assert shop.runtime.identify("web", by_id, declared) == f"image:{shop.images['v2']}"
    shop.engine.call("POST", f"/images/{shop.images['v2']}/tag?repo=registry.example:5000/team/shop&tag=v2")
    far = shop.declared(source={"image": "registry.example:5000/team/shop"})
    assert shop.runtime.identify("web", "v2", far) == f"image:{shop.images['v2']}"
    with pytest.raises(NotFound) as unknown:
        shop.runtime.identify("web", "v9", declared)
    assert unknown.value.fix == "docker pull shop:v9"


def test_two_versions_run_beside_each_other_and_beside_the_operators_own(shop: Shop) -> None:
    context, one, two = Guarded(), shop.spec("v1"), shop.spec("v2")
    # What the tag means by now does not matter.
    shop.engine.call("POST", f"/images/{shop.images['v2']}/tag?repo=shop&tag=v1")
    before = shop.engine.call("GET", "/containers/shop-web/json")
    for spec in (one, two):
        state = shop.runtime.start(spec, context)
        assert (state.identity, state.address, state.phase) == (spec.identity, spec.address, "running")
        assert state.pid
        assert state.started_at is not None
        assert until(lambda spec=spec: answers(spec)) == spec.version
    shop.engine.call("POST", f"/images/{shop.images['v1']}/tag?repo=shop&tag=v1")
    assert shop.containers() > {"/shop-web"}
    assert len(shop.containers()) == 3
    assert shop.engine.call("GET", "/containers/shop-web/json")["State"] == before["State"]
    shop.runtime.stop(one, context)
    assert shop.runtime.state(one) is None
    assert [path.stem for path in shop.kept.iterdir()] == [two.name]
    assert answers(one) is None
    assert answers(two) == "v2"
    shop.runtime.stop(one, context)
    assert len(shop.containers()) == 2
    assert shop.engine.call("GET", "/containers/shop-web/json")["State"] == before["State"]
    assert context.held


def test_starting_twice_is_starting_once_and_a_restart_is_another_process(shop: Shop) -> None:
    context, spec = Guarded(), shop.spec("v1")
    with pytest.raises(NotFound):
        shop.runtime.restart(spec, context)
    first = shop.runtime.start(spec, context)
    ran = len(context.ran)
    assert shop.runtime.start(spec, context).pid == first.pid
    assert len(context.ran) == ran
    with pytest.raises(Conflict) as other:
        shop.runtime.start(spec.model_copy(update={"port": free_port()}), context)
    assert "port" in other.value.message
    again = shop.runtime.restart(spec, context)
    assert (again.phase, again.identity, again.pid == first.pid) == ("running", first.identity, False)
    assert again.pid
    os.kill(again.pid, 9)
    shop.runtime.said(spec, 10)  # raises where Compose does not show a log
    until(lambda: (state := shop.runtime.state(spec)) and state.restarts and state.pid not in {None, again.pid})
    assert until(lambda: answers(spec)) == "v1", "the engine starts it again"


def test_a_version_that_was_stopped_by_hand_is_started_again_and_ended_though_its_file_was_lost(shop: Shop) -> None:
    context, spec = Guarded(), shop.spec("v1")
    shop.runtime.start(spec, context)
    (name,) = shop.containers() - {"/shop-web"}
    shop.engine.call("POST", f"/containers{name}/stop?t=0")
    state = shop.runtime.state(spec)
    assert state is not None
    assert (state.phase, state.pid) == ("stopped", None)
    assert state.last_exit is not None
    shutil.rmtree(shop.kept)
    assert shop.runtime.start(spec, context).phase == "running"
    shutil.rmtree(shop.kept)
    shop.runtime.stop(spec, context)
    assert shop.containers() == {"/shop-web"}


def test_the_operators_secrets_stay_in_files_of_ours_alone(shop: Shop) -> None:
    context, spec = Guarded(), shop.spec("v1", environment={"RELEASE": "{version} for $5"})
    shop.runtime.start(spec, context)
    (file,) = [path for path in shop.kept.iterdir() if path.suffix == ".json"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(shop.kept.stat().st_mode) == 0o700
    (name,) = shop.containers() - {"/shop-web"}
    settings = shop.engine.call("GET", f"/containers{name}/json")["Config"]["Env"]
    assert {f"PORT={spec.port}", "PLACE=here", "RELEASE=v1 for $5"} <= {*settings}
    assert any(each.startswith("SECRET=pa") for each in settings)
    assert "pa$" not in json.dumps(context.ran) + context.said


def test_a_container_that_says_it_is_ours_and_is_not_stays(shop: Shop) -> None:
    spec = shop.spec("v1")
    shop.engine.create("liar", Labels={"dev.interlock.version": spec.name, "com.docker.compose.project": "other"})
    assert shop.runtime.state(spec) is None
    shop.runtime.stop(spec, Guarded())
    assert "/liar" in shop.containers()


def test_a_scheduler_is_not_run_twice(shop: Shop) -> None:
    declared = shop.declared("beat")
    found = [each for each in shop.runtime.inspect("beat", declared) if each.level == "error"]
    assert "every job would be started twice" in found[0].message
    spec = VersionSpec(
        workload="beat", version="v1", declared=declared, identity=f"image:{shop.images['v1']}", port=free_port()
    )
    with pytest.raises(Permanent) as refused:
        shop.runtime.start(spec, Guarded())
    assert refused.value.code == "compose.not_beside"


def test_check_says_what_would_surprise(shop: Shop) -> None:
    found = " ".join(each.message for each in shop.runtime.inspect("web", shop.declared()))
    for words in ("container_name shop-web", "the variable PORT", "beat run the same image"):
        assert words in found
    with pytest.raises(Permanent, match="has no service nothing"):
        [*shop.runtime.inspect("web", shop.declared("nothing"))]


def test_compose_as_a_plug_in_of_docker_is_taken_as_well(shop: Shop, tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\nshift\nexec {COMPOSE} "$@"\n')
    program.chmod(0o755)
    environment = {"DOCKER_HOST": f"unix://{shop.engine.socket_path}"}
    runtime = ComposeServices(
        shop.kept, lambda: str(shop.folder), lambda: environment, path=f"{tmp_path}:/usr/bin:/bin"
    )
    assert [*runtime.inspect("web", shop.declared())]
    assert runtime._program() == (str(program), "compose")


def test_without_compose_or_without_an_engine_it_is_said(shop: Shop, tmp_path: Path) -> None:
    none = ComposeServices(shop.kept, lambda: str(shop.folder), dict, path=str(tmp_path))
    with pytest.raises(Permanent) as absent:
        none.inspect("web", shop.declared())
    assert absent.value.code == "compose.absent"
    silent = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    gone = ComposeServices(shop.kept, lambda: str(shop.folder), lambda: silent)
    with pytest.raises(InterlockError) as caught:
        gone.state(shop.spec("v1"))
    assert isinstance(caught.value, NotFound | Transient)


def test_what_compose_does_not_want_is_told_in_its_words(shop: Shop) -> None:
    file = shop.folder / "compose.yaml"
    whole = file.read_text()
    file.write_text("services: {web: {image: 'shop:v1', nonsense: 1}}")
    try:
        with pytest.raises(Permanent, match="nonsense"):
            shop.runtime.inspect("web", shop.declared())
    finally:
        file.write_text(whole)


NETWORKED = """
services:
  web:
    image: shop:v1
    command: [httpd, -f, -p, "80", -h, /www]
    volumes: ["data:/data"]
    networks: {back: {aliases: [www]}}
  client: {image: "shop:v1", command: [sleep, "1000"], networks: [back]}
networks: {back: {}}
volumes: {data: {}}
"""


def test_on_a_network_of_its_project_a_version_takes_no_name_of_another(shop: Shop) -> None:
    file = shop.folder / "networked.yaml"
    file.write_text(NETWORKED)
    settings = {"DOCKER_HOST": f"unix://{shop.engine.socket_path}", "PATH": PATH}
    compose = [str(COMPOSE), "-f", str(file), "-p", "net"]
    given = {"project": "net", "file": "networked.yaml", "service": "web", "port": 80}
    context, spec = Guarded(), shop.spec("v2", compose=given)
    subprocess.run([*compose, "up", "-d"], env=settings, check=True, capture_output=True, timeout=60)
    shop.runtime.start(spec, context)
    assert until(lambda: answers(spec)) == "v2"
    look = "for name in web www web-v2; do wget -qO- http://$name/version; done"
    ask = [*compose, "exec", "-T", "client", "sh", "-c", look]
    said = subprocess.run(ask, env=settings, check=True, capture_output=True, timeout=30)
    assert said.stdout == b"v1v1v2"
    shop.runtime.stop(spec, context)
    assert {each["Name"] for each in shop.engine.call("GET", "/networks")} >= {"net_back"}
    assert [each["Name"] for each in shop.engine.call("GET", "/volumes")["Volumes"]] == ["net_data"]


@pytest.mark.asyncio
async def test_a_container_is_started_and_stopped_through_the_door(
    shop: Shop, postgres_endpoint: Any, migrated: str, tmp_path: Path
) -> None:
    """Under the real guard, with the operator's own settings, and probed."""
    workload = shop.declared(health={"path": "/version", "interval_seconds": 0.1}).model_dump(mode="json")
    workload["compose"]["file"] = str(shop.folder / "compose.yaml")
    contexts = {"docker": {"environment": {"DOCKER_HOST": f"unix://{shop.engine.socket_path}"}}}
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        locations = write_project(tmp_path, "small-team", workloads={"web": workload}, contexts=contexts)
        async with open_engine(app, owner, locations) as engine:
            started = await succeed(engine, "service.start", workload="web", version="v1")
            assert len(shop.containers()) == 2, started.state_reason
            (row,) = await engine.query("select stage from service_instance")
            assert row["stage"] == "running"
            await succeed(engine, "service.stop", workload="web", version="v1")
    assert shop.containers() == {"/shop-web"}
