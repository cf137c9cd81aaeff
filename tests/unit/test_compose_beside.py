"""What becomes of a Compose service so that a second container can run beside the first."""

from __future__ import annotations

from typing import Any

import pytest

from interlock.adapters.compose_runtime_definition import beside, findings, project_of, service_name
from interlock.core.errors import Permanent
from interlock.core.service_runtime import VersionSpec
from interlock.core.workload import ServiceWorkload

IMAGE = "image:sha256:" + "a1" * 32


def spec(version: str = "v1.4", **compose: Any) -> VersionSpec:
    declared = ServiceWorkload.model_validate(
        {
            "compose": {"project": "shop", "file": "compose.yaml", "service": "web", "port": 8080, **compose},
            "source": {"image": "shop"},
            "environment": {"VERSION": "{version}"},
            "traffic": {"listen": "127.0.0.1:80"},
        }
    )
    return VersionSpec(workload="web", version=version, declared=declared, identity=IMAGE, port=20_001)


def made(service: dict[str, Any], **top: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its only service, and the whole file."""
    wanted = spec()
    assert wanted.declared.compose is not None
    body: Any = beside(wanted, wanted.declared.compose, {"services": {"web": service}, **top})
    (found,) = body["services"].values()
    return found, body


def said(service: dict[str, Any], **others: Any) -> dict[str, str]:
    """Level by message."""
    config = {"services": {"web": service, **others}}
    return {each.message: each.level for each in findings("web", spec().declared, config)}


def test_it_is_pinned_and_gets_one_port_of_this_machine_alone() -> None:
    found, _ = made({"image": "shop:latest", "ports": ["80:8080", "443:8443"], "container_name": "shop", "build": "."})
    assert found["image"] == "sha256:" + "a1" * 32
    assert found["ports"] == ["127.0.0.1:20001:8080"]
    assert not {"container_name", "build"} & {*found}


def test_it_joins_the_networks_of_its_project_under_another_name() -> None:
    found, body = made(
        {"networks": {"back": {"aliases": ["web"], "ipv4_address": "10.1.2.3"}, "front": None}},
        networks={"back": {"name": "shop_back"}, "front": {"external": True, "name": "edge"}},
    )
    assert found["networks"] == ["back", "front"]
    assert body["networks"] == {
        "back": {"external": True, "name": "shop_back"},
        "front": {"external": True, "name": "edge"},
    }
    assert [*body["services"]] == ["web-v1-4"]


def test_without_a_network_of_its_own_it_joins_the_projects() -> None:
    found, body = made({})
    assert (found["networks"], body["networks"]) == (
        ["default"],
        {"default": {"external": True, "name": "shop_default"}},
    )


def test_on_the_hosts_network_it_is_told_its_port() -> None:
    found, body = made({"network_mode": "host", "environment": ["PORT=80", "DEBUG=1"]})
    assert found["environment"] == {"PORT": "20001", "DEBUG": "1", "VERSION": "v1.4"}
    assert "ports" not in found
    assert "networks" not in body


def test_volumes_are_those_of_its_project_and_are_never_made_anew() -> None:
    _, body = made(
        {"volumes": ["data:/data", "./site:/www:ro", {"type": "volume", "source": "cache", "target": "/c"}]},
        volumes={"cache": {"external": {"name": "big"}}},
    )
    assert body["volumes"] == {
        "data": {"external": True, "name": "shop_data"},
        "cache": {"external": True, "name": "big"},
    }


def test_what_a_container_may_use_is_kept_and_how_many_there_are_is_not() -> None:
    limits = {"resources": {"limits": {"memory": "64M"}}}
    found, _ = made({"deploy": {"replicas": 3, **limits}, "depends_on": ["db"], "labels": {"traefik.enable": "true"}})
    assert found["deploy"] == limits
    assert "depends_on" not in found
    assert "traefik.enable" not in found["labels"], "another proxy would send users to it"


def test_it_comes_back_when_it_dies() -> None:
    assert made({})[0]["restart"] == "unless-stopped"
    assert made({"restart": "on-failure:3"})[0]["restart"] == "on-failure:3"


def test_another_definition_is_told_by_its_label() -> None:
    labels = [made({"command": command})[0]["labels"]["dev.interlock.definition"] for command in ("a", "a", "b")]
    assert labels[0] == labels[1] != labels[2]


def test_each_version_is_a_project_of_its_own() -> None:
    names = [project_of(spec(version)) for version in ("v1.4", "v1-4", "V1.4")]
    assert len({*names}) == 3
    assert all(name.startswith("interlock-web-v1-4-") for name in names)
    assert service_name(spec("V1.4+b")) == "web-v1-4-b"


@pytest.mark.parametrize(
    "command",
    ["celery -A shop beat", ["celery", "-A", "shop", "worker", "-B"], "/usr/sbin/crond -f", "supercronic /etc/crontab"],
)
def test_a_scheduler_must_not_run_twice(command: Any) -> None:
    assert "error" in said({"command": command}).values()
    with pytest.raises(Permanent):
        made({"command": command})


@pytest.mark.parametrize(
    ("service", "level"),
    [
        ({"labels": ["dev.interlock.once=true"]}, "error"),
        ({"network_mode": "service:vpn"}, "error"),
        ({"command": "celery -A shop worker"}, "warning"),
        ({"container_name": "web"}, "warning"),
        ({"ports": ["80:8080"]}, "warning"),
        ({"ports": [{"published": 80, "target": 8080}]}, "warning"),
        ({"volumes": ["data:/data"]}, "warning"),
        ({"network_mode": "host"}, "warning"),
    ],
)
def test_what_stands_against_it_is_found(service: dict[str, Any], level: str) -> None:
    assert [*said(service).values()] == [level]


@pytest.mark.parametrize(
    "service",
    [
        {"command": "gunicorn shop:app"},
        {"command": "python -m celery_dashboard"},
        {"volumes": ["./site:/www:ro", "/tmp", {"type": "tmpfs", "target": "/t"}]},
        {"ports": ["8080"]},
        {"labels": {"dev.interlock.once": "false"}},
    ],
)
def test_what_stands_not_against_it_is_not_told(service: dict[str, Any]) -> None:
    assert not said(service)


def test_others_of_the_same_image_stay_on_the_version_they_have() -> None:
    (message,) = said({"image": "shop:v1"}, worker={"image": "shop:v1"}, db={"image": "postgres"})
    assert message.startswith("worker run the same image")
