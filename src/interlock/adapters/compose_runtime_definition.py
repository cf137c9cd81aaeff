"""What becomes of a Compose service so that a second container can run beside the first, and what forbids it; pure.

A version is a Compose project of its own with one service. It joins the networks and volumes of the project it comes
from, under another name: whoever asks there for `web` still gets the container that was there before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from interlock.core.errors import Permanent
from interlock.core.model import JsonObject
from interlock.core.service_runtime import RuntimeFinding, VersionSpec
from interlock.core.workload import ComposeService, ServiceWorkload, filled
from interlock.lib.canonical import digest_of

NAME_LABEL = "dev.interlock.version"
IDENTITY_LABEL = "dev.interlock.identity"
DEFINITION_LABEL = "dev.interlock.definition"
PORT_LABEL = "dev.interlock.port"
ONCE_LABEL = "dev.interlock.once"
"""An operator's own word that a service must not run twice."""

_LEFT_OUT = frozenset(
    {
        *("build", "container_name", "depends_on", "external_links", "links", "ports", "profiles", "pull_policy"),
        *("scale", "deploy", "develop", "volumes_from", "hostname", "mac_address", "labels"),
    }
)
_RESOURCES = frozenset({"cpus", "mem_limit", "memswap_limit", "pids_limit"})
_OF_ANOTHER = ("service:", "container:")
_SCHEDULER = re.compile(
    r"(?:^|[\s/])(?:celery\s(?:[^;&|]*\s)?(?:beat|-B)\b|celerybeat|crond?\b|supercronic|clockwork|rqscheduler"
    r"|airflow\s+scheduler|sidekiq-scheduler|dkron|ofelia|django[-_]?cron|runcrons|anacron)"
)
_CONSUMER = re.compile(
    r"(?:^|[\s/])(?:celery\s(?:[^;&|]*\s)?worker\b|rq\s+worker|rqworker|sidekiq\b|dramatiq\b|huey_consumer"
    r"|bin/rake\s+jobs:work|artisan\s+queue:work|faktory|resque)"
)
_NOT_IN_NAME = re.compile(r"[^a-z0-9]+")


def project_of(spec: VersionSpec) -> str:
    """The Compose project of a version: two versions never share one."""
    plain = _NOT_IN_NAME.sub("-", spec.name.lower())[:40].strip("-")
    return f"interlock-{plain}-{digest_of(spec.name)[:8]}"


def service_name(spec: VersionSpec) -> str:
    """Its only service; other containers on the same networks know it by this name."""
    plain = _NOT_IN_NAME.sub("-", spec.version.lower()).strip("-") or "v"
    return f"{spec.workload}-{plain}"


def beside(spec: VersionSpec, compose: ComposeService, config: Mapping[str, Any]) -> JsonObject:
    """The Compose file of a version, from what `compose config` says of the project it comes from.

    Raises Permanent when a second container cannot run beside the first.
    """
    found = _service(compose, config)
    wrong = [each for each in findings(spec.workload, spec.declared, config) if each.level == "error"]
    if wrong:
        raise Permanent(wrong[0].message, code="compose.not_beside", fix=wrong[0].fix)
    places = {"port": str(spec.port), "version": spec.version, "workload": spec.workload}
    on_host = found.get("network_mode") == "host"
    given = dict(
        zip(spec.declared.environment, filled(spec.declared.environment.values(), places), strict=True),
        **({"PORT": str(spec.port)} if on_host else {}),
    )
    service: dict[str, Any] = {name: value for name, value in found.items() if name not in _LEFT_OUT}
    service |= _limits(found)
    service["image"] = spec.identity.removeprefix("image:")
    service["environment"] = {**_environment(found), **{name: _plain(value) for name, value in given.items()}}
    service["stop_grace_period"] = f"{ceil(spec.declared.stop_grace_seconds)}s"
    if found.get("restart") in {None, "", "no"}:
        service["restart"] = "unless-stopped"
    if not on_host:
        service["ports"] = [f"127.0.0.1:{spec.port}:{compose.port}"]
    networks = _networks(found, config, compose.project)
    volumes = _volumes(found, config, compose.project)
    if "network_mode" not in found:
        service["networks"] = [*networks]
    labels = {NAME_LABEL: spec.name, IDENTITY_LABEL: spec.identity, PORT_LABEL: str(spec.port)}
    body: dict[str, Any] = {"services": {service_name(spec): service}}
    body |= {"networks": networks} if networks and "network_mode" not in found else {}
    body |= {"volumes": volumes} if volumes else {}
    body |= {key: config[key] for key in ("secrets", "configs") if key in config and key in found}
    service["labels"] = {**labels, DEFINITION_LABEL: digest_of(body)[:32]}
    return body


def findings(workload: str, declared: ServiceWorkload, config: Mapping[str, Any]) -> Iterator[RuntimeFinding]:
    """What would keep two containers of this service from running beside each other, or would surprise."""
    compose = declared.compose
    if compose is None:
        return
    found = _service(compose, config)
    name = f"the Compose service {compose.service}"
    yield from _twice(name, found)
    mode = str(found.get("network_mode") or "")
    if mode.startswith(_OF_ANOTHER):
        yield RuntimeFinding(
            level="error",
            message=f"{name} lives in the network of another ({mode}), where its port is taken",
            fix="give it a network of its own",
        )
    elif mode == "host":
        yield RuntimeFinding(
            level="warning",
            message=f"{name} uses the host's network: it must listen on 127.0.0.1 at the variable PORT",
            fix="let it read PORT, or give it a network of its own",
        )
    if found.get("container_name"):
        yield RuntimeFinding(
            level="warning",
            message=f"{name} has container_name {found['container_name']}, which no second container can have: "
            "versions are called by Compose instead",
            fix="remove container_name",
        )
    yield from _ports(name, found, mode)
    yield from _written(name, found)
    shared = [
        other
        for other, settings in _services(config).items()
        if other != compose.service and isinstance(settings, Mapping) and settings.get("image") == found.get("image")
    ]
    if shared and found.get("image"):
        yield RuntimeFinding(
            level="warning",
            message=f"{', '.join(sorted(shared))} run the same image as {workload}, and stay on the version they have",
            fix="declare a workload for each that must change with it",
        )


def _twice(name: str, found: Mapping[str, Any]) -> Iterator[RuntimeFinding]:
    words = " ".join(_words(found.get("entrypoint")) + _words(found.get("command")))
    labels = _mapping(found.get("labels"))
    if str(labels.get(ONCE_LABEL, "")).lower() in {"true", "1", "yes"}:
        yield RuntimeFinding(
            level="error",
            message=f"{name} is labelled {ONCE_LABEL}: it must not run twice",
            fix="stop the old one and start the new one by yourself",
        )
    elif _SCHEDULER.search(words):
        yield RuntimeFinding(
            level="error",
            message=f"{name} runs a scheduler: twice, every job would be started twice",
            fix="give the scheduler a service of its own, which is not released beside itself",
        )
    elif _CONSUMER.search(words):
        yield RuntimeFinding(
            level="warning",
            message=f"{name} takes jobs from a queue: a second one takes its part at once, whatever its share of users",
            fix="give the worker a service of its own, which is not released beside itself",
        )


def _ports(name: str, found: Mapping[str, Any], mode: str) -> Iterator[RuntimeFinding]:
    published = [port for port in found.get("ports") or () if _is_published(port)]
    if published and mode != "host":
        shown = ", ".join(_shown_port(port) for port in published)
        yield RuntimeFinding(
            level="warning",
            message=f"{name} publishes {shown}: versions get a port of 127.0.0.1 each; users come through the proxy",
            fix="let `traffic.listen` be where users come",
        )


def _written(name: str, found: Mapping[str, Any]) -> Iterator[RuntimeFinding]:
    written = sorted({place for volume in found.get("volumes") or () if (place := _written_place(volume)) is not None})
    if written:
        yield RuntimeFinding(
            level="warning",
            message=f"{name} writes {', '.join(written)}: two versions would write there at the same time",
            fix="mount it read-only (`:ro`) if it is only read",
        )


def _service(compose: ComposeService, config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = _services(config).get(compose.service)
    if not isinstance(found, Mapping):
        known = ", ".join(sorted(_services(config))) or "none"
        msg = f"{compose.file} has no service {compose.service}; it has {known}"
        raise Permanent(msg, code="compose.unknown_service", fix="correct `compose.service`")
    return found


def _services(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(config.get("services"))


def _mapping(value: object) -> Mapping[str, Any]:
    """A mapping, or a list of KEY=VALUE as one."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list):
        return {str(item).partition("=")[0]: str(item).partition("=")[2] for item in value}
    return {}


def _environment(found: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_mapping(found.get("environment")))


def _plain(value: str) -> str:
    """As Compose reads it: a dollar sign begins a variable."""
    return value.replace("$", "$$")


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else [str(value)] if value else []


def _limits(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of `deploy`, only what a container may use."""
    resources = _mapping(_mapping(found.get("deploy")).get("resources"))
    return {"deploy": {"resources": dict(resources)}} if resources else {}


def _networks(found: Mapping[str, Any], config: Mapping[str, Any], project: str) -> dict[str, Any]:
    """Those that the first container is in; its addresses and other names stay its own."""
    used = found.get("networks")
    names = [*used] if isinstance(used, Mapping | list) and used else ["default"]
    return {str(name): _outside(str(name), _mapping(config.get("networks")), project) for name in names}


def _volumes(found: Mapping[str, Any], config: Mapping[str, Any], project: str) -> dict[str, Any]:
    named = [name for volume in found.get("volumes") or () if (name := _volume_name(volume)) is not None]
    return {name: _outside(name, _mapping(config.get("volumes")), project) for name in dict.fromkeys(named)}


def _outside(key: str, declared: Mapping[str, Any], project: str) -> dict[str, Any]:
    """It is there already, and is not ours to make or to remove."""
    settings = _mapping(declared.get(key))
    external = settings.get("external")
    name = settings.get("name") or (external.get("name") if isinstance(external, Mapping) else None)
    return {"external": True, "name": str(name or (key if external else f"{project}_{key}"))}


def _volume_name(volume: object) -> str | None:
    if isinstance(volume, Mapping):
        source = volume.get("source")
        return str(source) if volume.get("type") == "volume" and source else None
    first, separator, _ = str(volume).partition(":")
    return first if separator and not first.startswith(("/", ".", "~")) else None


def _written_place(volume: object) -> str | None:
    """What a container can write that outlives it."""
    if isinstance(volume, Mapping):
        if volume.get("type") == "tmpfs" or volume.get("read_only") or not volume.get("source"):
            return None
        return str(volume["source"])
    parts = str(volume).split(":")
    return None if len(parts) < 2 or parts[-1].split(",")[0] == "ro" else parts[0]  # noqa: PLR2004 - source, target


def _is_published(port: object) -> bool:
    if isinstance(port, Mapping):
        return bool(port.get("published"))
    return ":" in str(port)


def _shown_port(port: object) -> str:
    if isinstance(port, Mapping):
        return f"{port.get('published')}:{port.get('target')}"
    return str(port)
