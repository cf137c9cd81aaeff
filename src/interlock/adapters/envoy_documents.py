"""What Envoy is told, made from routings: clusters, a listener and a route configuration for each workload; pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from pydantic import JsonValue

from interlock.core.assignment import upper_bounds
from interlock.core.model import JsonObject
from interlock.core.traffic import CREDENTIAL_HEADERS, WHOLE, Address, Arm, Mirror, Routing, Sticky
from interlock.lib.canonical import digest_of

UNIT_HEADER = "x-interlock-unit"
REQUEST_HEADER = "x-interlock-request"
CHOSEN = "chosen"
"""The name of routes that a client asked for; all others have none."""
_TYPE = "type.googleapis.com/envoy."
_CLUSTER = f"{_TYPE}config.cluster.v3.Cluster"
_SAFE_METHODS = "GET|HEAD"
_CONNECT_SECONDS = 1
_SHADOW_REQUESTS_MAX = 32
_SHADOW_SECONDS = 2
_CONNECTIONS_MAX = 4096
_REQUESTS_MAX = 8192
_IDLE_SECONDS_MIN = 300.0
_HEADERS_SECONDS = 10
_KEPT_SECONDS = 75
"""Between two requests: longer than those in front of it keep a connection (a minute, mostly), who would otherwise send
a request on one that is just being closed."""
_LOG_FIELDS = (
    "%START_TIME(%s.%6f)%",
    "%CLUSTER_METADATA(interlock:arm)%",
    "%UPSTREAM_METADATA(interlock:arm)%",
    "%RESPONSE_CODE%",
    "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%",
    "%DURATION%",
    "%RESPONSE_FLAGS%",
    f"%REQ({UNIT_HEADER})%",
    f"%REQ({REQUEST_HEADER})%",
    "%ROUTE_NAME%",
)
_FLAGS_WITHOUT_ATTEMPT = ("DC", "UT", "UH", "NC", "SI", "DT")
"""What an attempt's own line does not tell: that the client left, that time was up, that there was nobody to ask."""


def document(resources: Iterable[JsonObject]) -> JsonObject:
    """A file of resources, whose version is a digest of them; Envoy shows it when it has taken them over."""
    shown: list[JsonValue] = [*resources]
    return {"version_info": digest_of(shown)[:20], "resources": shown}


# Clusters: one for each arm at one address, so that a change of routes never has to wait for a change of clusters.


def arm_clusters(workload: str, arm: str) -> str:
    """A pattern of the clusters in which requests to that arm are counted, whatever its address was."""
    return rf"{re.escape(f'{workload}/{arm}@')}[^>]*"


def clusters(routing: Routing) -> dict[str, JsonObject]:
    """Every cluster that the routes of this routing lead to, by name."""
    stable, *others = routing.arms
    plain = _arm_cluster(routing.workload, stable, guarded=False)
    found = [plain]
    for arm in others:
        own = _arm_cluster(routing.workload, arm, guarded=routing.fallback)
        found.append(own)
        if routing.fallback:
            found.append(_fallback_cluster(arm, str(own["name"]), stable, str(plain["name"])))
    if routing.mirror is not None:
        found.append(_shadow_cluster(routing.workload, routing.mirror.address))
    return {str(each["name"]): each for each in found}


def _leads_to(routing: Routing, arm: Arm) -> str:
    """The cluster that a request for this arm is sent to."""
    stable = routing.arms[0]
    name = f"{routing.workload}/{arm.name}@{arm.address}"
    return name if arm is stable or not routing.fallback else f"{name}>{stable.name}@{stable.address}"


def _arm_cluster(workload: str, arm: Arm, *, guarded: bool) -> JsonObject:
    name = f"{workload}/{arm.name}@{arm.address}{'|guarded' if guarded else ''}"
    made = _cluster(name, arm.address, arm.name)
    made["circuit_breakers"] = _breaker(_CONNECTIONS_MAX, _REQUESTS_MAX)
    if guarded:
        # The only host of a cluster stays in use when it is thrown out, unless panic is forbidden.
        made["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}
        made["outlier_detection"] = {
            "consecutive_5xx": 5,
            "interval": "0.5s",
            "base_ejection_time": "2s",
            "max_ejection_percent": 100,
            "enforcing_success_rate": 0,
        }
    return made


def _fallback_cluster(arm: Arm, own: str, stable: Arm, plain: str) -> JsonObject:
    kind: JsonObject = {"@type": f"{_TYPE}extensions.clusters.aggregate.v3.ClusterConfig", "clusters": [own, plain]}
    return {
        "@type": _CLUSTER,
        "name": f"{own.removesuffix('|guarded')}>{stable.name}@{stable.address}",
        "connect_timeout": f"{_CONNECT_SECONDS}s",
        "lb_policy": "CLUSTER_PROVIDED",
        "metadata": _arm_metadata(arm.name),
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": kind},
    }


def _shadow_name(workload: str, address: Address) -> str:
    return f"{workload}/~shadow@{address}"


def _shadow_cluster(workload: str, address: Address) -> JsonObject:
    made = _cluster(_shadow_name(workload, address), address, "~shadow")
    made["circuit_breakers"] = _breaker(_SHADOW_REQUESTS_MAX, _SHADOW_REQUESTS_MAX)
    made["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"max_stream_duration": f"{_SHADOW_SECONDS}s"},
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }
    return made


def _cluster(name: str, address: Address, arm: str) -> JsonObject:
    place = _socket_address(address)
    endpoint: JsonObject = {"endpoint": {"address": place}, "metadata": _arm_metadata(arm)}
    return {
        "@type": _CLUSTER,
        "name": name,
        "connect_timeout": f"{_CONNECT_SECONDS}s",
        "type": "STATIC" if _is_number(_host(address)) else "STRICT_DNS",
        "metadata": _arm_metadata(arm),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _arm_metadata(arm: str) -> JsonObject:
    return {"filter_metadata": {"interlock": {"arm": arm}}}


def _breaker(connections: int, requests: int) -> JsonObject:
    thresholds: JsonObject = {"max_connections": connections, "max_pending_requests": connections}
    return {"thresholds": [{**thresholds, "max_requests": requests, "max_retries": 64}]}


def _host(address: Address) -> str:
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    return "127.0.0.1" if host == "localhost" else host


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _socket_address(address: Address) -> JsonObject:
    port = int(address.rpartition(":")[2])
    return {"socket_address": {"address": _host(address), "port_value": port}}


# Routes: the arms lie on a line of hashes one after the other, and each has its stretch of it.


def route_configuration(routing: Routing) -> JsonObject:
    """Testers first, then each arm's stretch of the line, then the stable arm for the rest."""
    routes: list[JsonValue] = []
    if routing.testers is not None:
        for arm in routing.arms:
            named: JsonObject = {"name": routing.testers, "string_match": {"exact": arm.name}}
            routes.append({"name": CHOSEN, **_route(routing, arm, [named], retried=False, mirrored=False)})
    arms = {arm.name: arm for arm in routing.arms}
    begin = 0
    for name, bound in upper_bounds(routing)[:-1]:
        if bound > begin:
            stretch: JsonObject = {"name": UNIT_HEADER, "range_match": {"start": begin, "end": bound}}
            routes.extend(_routes_of(routing, arms[name], [stretch]))
            begin = bound
    routes.extend(_routes_of(routing, routing.arms[0], []))
    host: JsonObject = {"name": routing.workload, "domains": ["*"], "routes": routes}
    lua = "envoy.filters.http.lua"
    return {
        "@type": f"{_TYPE}config.route.v3.RouteConfiguration",
        "name": routing.workload,
        "validate_clusters": True,
        "virtual_hosts": [host],
        "typed_per_filter_config": {
            lua: {
                "@type": f"{_TYPE}extensions.filters.http.lua.v3.LuaPerRoute",
                "filter_context": {"salt": routing.salt, **_known_by(routing.sticky)},
            }
        },
    }


def _known_by(sticky: Sticky) -> JsonObject:
    if sticky.cookie is not None:
        name = sticky.cookie.replace("-", "%-")
        return {"cookie": sticky.cookie, "cookie_pattern": f";%s*{name}=([^;%s]+)"}
    return {"header": sticky.header.lower()} if sticky.header is not None else {}


def _routes_of(routing: Routing, arm: Arm, headers: list[JsonValue]) -> list[JsonValue]:
    """What may be repeated or copied has a route of its own."""
    retried = routing.fallback and arm is not routing.arms[0]
    mirrored = routing.mirror is not None and routing.mirror.share > 0
    rest = _route(routing, arm, headers, retried=False, mirrored=False)
    if not retried and not mirrored:
        return [rest]
    safe: JsonObject = {"name": ":method", "string_match": {"safe_regex": {"regex": _SAFE_METHODS}}}
    return [_route(routing, arm, [safe, *headers], retried=retried, mirrored=mirrored), rest]


def _route(routing: Routing, arm: Arm, headers: list[JsonValue], *, retried: bool, mirrored: bool) -> JsonObject:
    action: JsonObject = {
        "cluster": _leads_to(routing, arm),
        "timeout": _seconds(routing.timeout_seconds),
        "idle_timeout": _seconds(max(_IDLE_SECONDS_MIN, routing.timeout_seconds + 1)),
    }
    if retried:
        action["retry_policy"] = _RETRY
    if mirrored and routing.mirror is not None:
        action["request_mirror_policies"] = [_mirror(routing.workload, routing.mirror)]
    return {"match": {"prefix": "/", "headers": headers}, "route": action}


_RETRY: JsonObject = {
    "retry_on": "5xx,reset,connect-failure,refused-stream",
    "num_retries": 1,
    # What was tried is not tried again: the next one in line is the stable arm.
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {
            "@type": f"{_TYPE}extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": 1,
        },
    },
}


def _mirror(workload: str, mirror: Mirror) -> JsonObject:
    part: JsonObject = {"numerator": mirror.share, "denominator": "TEN_THOUSAND"}
    removed: list[JsonValue] = [{"remove": name} for name in CREDENTIAL_HEADERS]
    mark: JsonObject = {"append": {"header": {"key": "x-shadow", "value": "1"}, "append_action": _OVERWRITE}}
    return {
        "cluster": _shadow_name(workload, mirror.address),
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [mark, *removed],
        **({"runtime_fraction": {"default_value": part}} if mirror.share < WHOLE else {}),
    }


_OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"


def _seconds(value: float) -> str:
    return f"{value:.3f}s"


# The listener, which a release never changes.


def listener(routing: Routing, routes_folder: Path, log_path: Path, connections_max: int) -> JsonObject:
    """Where users of this workload come; its routes are read from `routes_folder`.

    `connections_max` (of all that Envoy takes) is its own bound, so that whoever fills it leaves some to the others.
    """
    bound: JsonObject = {
        "@type": f"{_TYPE}extensions.filters.network.connection_limit.v3.ConnectionLimit",
        "stat_prefix": routing.workload,
        "max_connections": connections_max,
    }
    return {
        "@type": f"{_TYPE}config.listener.v3.Listener",
        "name": routing.workload,
        "address": _socket_address(routing.listen),
        # Otherwise a second proxy would bind the same port as well, and get some of the connections.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.connection_limit", "typed_config": bound},
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _connection_manager(routing, routes_folder, log_path),
                    },
                ]
            }
        ],
    }


def _connection_manager(routing: Routing, routes_folder: Path, log_path: Path) -> JsonObject:
    host = _host(routing.listen)
    # On the loopback address somebody else ends TLS and says who the client is.
    hops = 1 if _is_number(host) and ipaddress.ip_address(host).is_loopback else 0
    lua: JsonObject = {
        "@type": f"{_TYPE}extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": unit_program()},
    }
    router: JsonObject = {
        "@type": f"{_TYPE}extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": True,
        "upstream_log": [_file_log("A", log_path)],
    }
    without_attempt = _file_log("E", log_path)
    without_attempt["filter"] = {"response_flag_filter": {"flags": [*_FLAGS_WITHOUT_ATTEMPT]}}
    return {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": routing.workload,
        "rds": {"route_config_name": routing.workload, "config_source": watched(routes_folder / "rds.json")},
        "http_filters": [
            {"name": "envoy.filters.http.lua", "typed_config": lua},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
        "access_log": [without_attempt],
        "use_remote_address": True,
        "xff_num_trusted_hops": hops,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "drain_timeout": "5s",
        # Whoever begins requests and ends none holds places that others need. An upgraded connection, and an answer
        # that takes long, are bounded by the route's own time.
        "request_headers_timeout": f"{_HEADERS_SECONDS}s",
        "common_http_protocol_options": {"idle_timeout": f"{_KEPT_SECONDS}s"},
    }


def unit_program() -> str:
    """The program that says who is asking."""
    return files(__package__).joinpath("envoy_unit.lua").read_text(encoding="utf-8")


def _file_log(tag: str, path: Path) -> JsonObject:
    line = " ".join((tag, *_LOG_FIELDS))
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"text_format_source": {"inline_string": f"{line}\n"}},
        },
    }


# What Envoy starts with, and never changes while it runs.


def watched(path: Path) -> JsonObject:
    """A file that is read again when another one takes its name; each lies in a folder of its own."""
    source: JsonObject = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"resource_api_version": "V3", "path_config_source": source}


def connections_max_of(found: JsonObject) -> int | None:
    """How many connections an Envoy takes that was started with this; None where it does not say."""
    match found:
        case {
            "overload_manager": {
                "resource_monitors": [{"typed_config": {"max_active_downstream_connections": int(count)}}]
            }
        }:
            return count
    return None


def bootstrap(node: str, admin_socket: Path, cds: Path, lds: Path, connections_max: int) -> JsonObject:
    """Where Envoy is administered (a Unix socket of ours alone), and where everything else is read from."""
    limit: JsonObject = {
        "@type": f"{_TYPE}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": connections_max,
    }
    monitor: JsonObject = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": limit,
    }
    return {
        "node": {"id": node, "cluster": "interlock"},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": watched(cds), "lds_config": watched(lds)},
        "overload_manager": {"resource_monitors": [monitor]},
    }
