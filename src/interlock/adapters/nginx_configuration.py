"""What nginx is told, made from routings: upstreams, who has which version, and where requests go; pure.

Shares are not part of it. A request asks whether a file is there (`-f`) whose name says on which part of the line of
hashes (core/assignment.py) its user stands; so shares change by exchanging a folder, without a reload.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from interlock.core.model import JsonObject
from interlock.core.traffic import CREDENTIAL_HEADERS, WHOLE, Mirror, Routing, Sticky
from interlock.lib.canonical import digest_of

FORMAT = 1
"""Counted up when the same routing is told otherwise, so that an upgrade is put in force."""
ROUGH = 100
"""Parts of the line of hashes, in basis points: so shares of whole percents need no reload."""
TENTH = 1000
"""Parts of which one file gives all that lie within."""
CLOSING_STATUS = 590
"""Of no answer: it leads inside nginx to where connections are closed after the answer."""
SHUTDOWN_SECONDS = 3600
"""Old workers finish what is in flight, web sockets too, and are ended then."""

_COOKIE_SECONDS = 30 * 24 * 3600
_CONNECT_SECONDS_MAX = 5.0
_IDLE_UPSTREAM_SECONDS = 1
_MIRROR_CONNECT_SECONDS = 0.5
_MIRROR_SECONDS = 2
_MIRROR_CONNECTIONS_MAX = 32
_RECORD = re.compile(r"^# workload ([a-z0-9-]+) ([0-9a-f]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """Where workers find files, as they see it, and what stands before them.

    `inside` is the folder of shares and logs. `is_edge` is False when users come through a proxy of somebody else's
    on this machine, whose word on who they are counts.
    """

    inside: str
    is_edge: bool


@dataclass(frozen=True)
class Structure:
    """A routing without its shares: all that needs a reload when it changes.

    `fine` are those bounds between arms, in basis points, that are no whole percents.
    """

    routing: Routing
    fine: tuple[int, ...]

    @property
    def digest(self) -> str:
        """Names it, and the folder of its shares."""
        told: JsonObject = self.routing.model_dump(mode="json")
        told["arms"] = [[arm.name, arm.address] for arm in self.routing.arms]
        return digest_of({"format": FORMAT, "routing": told, "fine": [*self.fine]})[:16]

    @property
    def parts(self) -> tuple[int, ...]:
        """Where parts of the line begin, in basis points."""
        return tuple(sorted({*range(0, WHOLE, ROUGH), *self.fine}))

    def files_for(self, routing: Routing) -> tuple[str, ...] | None:
        """The files that give each arm its share; None where this structure cannot say it.

        A routing that only takes something away (an arm, the mirror) can be said in the structure before it.
        """
        places = {(arm.name, arm.address): index for index, arm in enumerate(self.routing.arms)}
        own, other = self.routing, routing
        known = all((arm.name, arm.address) in places for arm in other.arms if arm.share)
        if not known or (own.salt, own.sticky, own.listen) != (other.salt, other.sticky, other.listen):
            return None
        found, begin = [], 0
        for arm in reversed(other.arms):
            end = begin + arm.share
            if end not in self.parts and end != WHOLE:
                return None
            index = places.get((arm.name, arm.address), 0)
            if index and arm.share:
                found += self._files_of(index, begin, end)
            begin = end
        return tuple(found)

    def _files_of(self, index: int, begin: int, end: int) -> list[str]:
        """As few as may be, because making a file takes longer than looking for one."""
        if (begin, end) == (0, WHOLE):
            return [f"{index}-all"]
        found = []
        for tenth in range(0, WHOLE, TENTH):
            if begin <= tenth and tenth + TENTH <= end:
                found.append(f"{index}-{tenth // TENTH}xxx")
                continue
            inside = (part for part in self.parts if tenth <= part < tenth + TENTH)
            found += [f"{index}-{part:04d}" for part in inside if begin <= part < end]
        return found


def structure_of(routing: Routing, before: Structure | None = None) -> Structure:
    """What to tell nginx; what the structure before can say needs no other one."""
    fine, reached = set(before.fine if before is not None else ()), 0
    for arm in reversed(routing.arms[1:]):
        reached += arm.share
        fine |= {reached} if reached % ROUGH else set()
    wanted = Structure(routing, tuple(sorted(fine)))
    if before is None or before.digest == wanted.digest:
        return wanted
    return structure_of(routing)  # another one is needed anyway: without what only the one before needed


def structures_in(text: str) -> dict[str, str]:
    """The digest of each workload's structure, as a configuration says at its beginning."""
    return dict(_RECORD.findall(text))


def generation_of(structures: Iterable[Structure]) -> str:
    """Names a configuration: workers whose connections are to be closed are called by it."""
    return digest_of(sorted(structure.digest for structure in structures))[:16]


def record_of(structures: Iterable[Structure]) -> str:
    """The first lines of a configuration."""
    lines = ["# Written by Interlock; what is changed here is lost.", f"# generation {generation_of(structures)}"]
    lines += sorted(f"# workload {structure.routing.workload} {structure.digest}" for structure in structures)
    return "\n".join(lines) + "\n"


def own_configuration(structures: Sequence[Structure], place: Place, user: str | None, files_max: int) -> str:
    """The whole configuration of an nginx of ours.

    Args:
        structures: What it carries.
        place: Where workers find files.
        user: Whom the workers become, where we are root.
        files_max: How many files and connections a worker may have open.
    """
    generation = generation_of(structures)
    servers = "".join(_server(structure, place, generation) for structure in structures)
    temporary = "".join(
        f"  {kind}_temp_path {place.inside}/temporary/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{record_of(structures)}"
        f"daemon off;\n{f'user {user};' if user else ''}\nworker_processes auto;\npid nginx.pid;\n"
        f"worker_rlimit_nofile {files_max};\n"
        f"error_log {place.inside}/logs/error.log warn;\nworker_shutdown_timeout {SHUTDOWN_SECONDS}s;\n"
        f"events {{\n  worker_connections {files_max // 2};\n}}\n"
        f"http {{\n{temporary}  access_log off;\n  default_type application/octet-stream;\n"
        "  large_client_header_buffers 8 32k;\n  variables_hash_max_size 4096;\n  map_hash_bucket_size 256;\n"
        f"{_indented(http_part(structures, place), '  ')}{servers}}}\n"
    )


def _server(structure: Structure, place: Place, generation: str) -> str:
    """Nothing is refused or changed that the service itself would take."""
    lines = (
        f"listen {numeric(structure.routing.listen)};\n"
        "server_tokens off;\nclient_header_timeout 10s;\nclient_max_body_size 0;\nuninitialized_variable_warn off;\n"
        "ignore_invalid_headers off;\nunderscores_in_headers on;\n"
        f"{_client(structure.routing, place)}{server_part(structure, place, generation)}"
    )
    return f"  server {{\n{_indented(lines, '    ')}  }}\n"


def included_configuration(structures: Sequence[Structure], place: Place) -> dict[str, str]:
    """Files for an operator's nginx: one for its `http` block, and one for a `server` block of each workload."""
    generation = generation_of(structures)
    return {
        "http.conf": record_of(structures) + http_part(structures, place),
        **{f"{structure.routing.workload}.conf": server_part(structure, place, generation) for structure in structures},
    }


def _client(routing: Routing, place: Place) -> str:
    """Where users come through a proxy on this machine, the address that counts is the one it tells."""
    host = routing.listen.rpartition(":")[0].strip("[]")
    is_behind = host == "localhost" or (_is_number(host) and ipaddress.ip_address(host).is_loopback)
    if place.is_edge or not (is_behind and routing.sticky.address):
        return ""
    return "set_real_ip_from 127.0.0.0/8;\nset_real_ip_from ::1;\nreal_ip_header X-Forwarded-For;\n"


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# What stands in the `http` block.


def http_part(structures: Sequence[Structure], place: Place) -> str:
    """Upstreams, maps and log formats."""
    shared = (
        _map("$http_upgrade", "$interlock_connection", {'""': '""', "default": "upgrade"})
        + _map("$http_x_request_id", "$interlock_request", {'""': "$request_id", "default": "$http_x_request_id"})
        + _map("$http_host", "$interlock_host", {'""': "$host", "default": "$http_host"})
        + _map('"$scheme $http_x_forwarded_proto"', "$interlock_secure", {'"~*https"': '"; Secure"', "default": '""'})
        + _map(
            "$http_x_forwarded_proto",
            "$interlock_scheme",
            {"default": "$scheme"} if place.is_edge else {'""': "$scheme", "default": "$http_x_forwarded_proto"},
        )
        if structures
        else ""
    )
    return shared + "".join(_http_part(structure) for structure in structures)


def _http_part(structure: Structure) -> str:
    routing, own = structure.routing, variable_prefix(structure.routing.workload)
    stable, *others = routing.arms
    found = [f"\n# {routing.workload}\n", _known_by(routing.sticky, own)]
    if others:
        found.append(_line(structure, own))
    found.append(_chosen(routing, own))
    found += [_upstream(f"{own}_{index}", arm.address) for index, arm in enumerate(routing.arms)]
    if routing.fallback:
        found += [_upstream(f"{own}_{index}_or_0", arm.address, stable.address) for index, arm in enumerate(others, 1)]
    if routing.mirror is not None:
        found.append(_mirror_http(routing.mirror, own))
    found.append(_log_format(routing, own))
    return "".join(found)


def numeric(address: str) -> str:
    """`localhost` by number: it may be two addresses, and nobody would know which of them answered."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host == "localhost" else address


def variable_prefix(workload: str) -> str:
    """How variables and upstreams of a workload begin; two workloads never have the same one."""
    return f"interlock_{workload.replace('-', '_')}"


def _map(source: str, target: str, values: Mapping[str, str]) -> str:
    lines = "".join(f"  {value} {result};\n" for value, result in values.items())
    return f"map {source} {target} {{\n{lines}}}\n"


def _known_by(sticky: Sticky, own: str) -> str:
    if sticky.cookie is None:
        given = "$remote_addr" if sticky.header is None else f"$http_{sticky.header.lower().replace('-', '_')}"
        return _map(given, f"${own}_unit", {'""': "$remote_addr", "default": given})
    pattern = rf'"~(?:^|;)[ \t]*{re.escape(sticky.cookie)}=(?<{own}_cookie>[^;\s]+)"'
    attributes = f"Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Lax$interlock_secure"
    return (
        _map("$http_cookie", f"${own}_known", {pattern: f"${own}_cookie", "default": '""'})
        + _map(f"${own}_known", f"${own}_unit", {'""': "$request_id", "default": f"${own}_known"})
        + _map(
            f"${own}_known",
            f"${own}_new",
            {'""': f'"{sticky.cookie}=$request_id; {attributes}"', "default": '""'},
        )
    )


def _line(structure: Structure, own: str) -> str:
    """On which part of the line a user stands. nginx rounds each part down, which moves a bound by 2e-8 at most."""
    parts = structure.parts
    shown = [f"{(after - part) / 100:g}% {part:04d};" for part, after in pairwise(parts)] + [f"* {parts[-1]:04d};"]
    rows = "".join(f"  {' '.join(shown[start : start + 10])}\n" for start in range(0, len(shown), 10))
    split = f'split_clients "{structure.routing.salt}:${own}_unit" ${own}_part {{\n{rows}}}\n'
    return split + _map(f"${own}_part", f"${own}_tenth", {f'"~^(?<{own}_digit>.)"': f'"${{{own}_digit}}xxx"'})


def _chosen(routing: Routing, own: str) -> str:
    """The arm: the one that a tester asks for, or the one that was picked; and the upstream that answers for it."""
    asked = (
        {f'"~^{re.escape(arm.name)}$"': str(index) for index, arm in enumerate(routing.arms)}
        if routing.testers is not None
        else {}
    )
    header = f"$http_{routing.testers.lower().replace('-', '_')}" if routing.testers is not None else '""'
    pools = {"default": f"{own}_0"}
    for index, _ in enumerate(routing.arms[1:], 1):
        # Who tests a version wants to see its failures.
        pools[f'"~^[^/]*/{index}/"'] = f"{own}_{index}"
        if routing.fallback:
            pools = {f'"~^/{index}/(?:GET|HEAD)$"': f"{own}_{index}_or_0", **pools}
    names = {str(index): f'"{arm.name}"' for index, arm in enumerate(routing.arms)}
    picked = f"${own}_picked" if routing.arms[1:] else '"0"'
    return (
        _map(header, f"${own}_asked", {**asked, "default": '""'})
        + _map(f"${own}_asked", f"${own}_index", {'""': picked, "default": f"${own}_asked"})
        + _map(f'"${own}_asked/${own}_index/$request_method"', f"${own}_pool", pools)
        + _map(f"${own}_index", f"${own}_arm", {**names, "default": '""'})
    )


def _upstream(name: str, address: str, backup: str | None = None) -> str:
    # A server that failed is tried again by the next request: otherwise nobody would count its failures. Idle
    # connections are closed before the version closes them, which would fail a request that is not repeated.
    second = f"  server {numeric(backup)} backup max_fails=0;\n" if backup is not None else ""
    return (
        f"upstream {name} {{\n  server {numeric(address)} max_fails=0;\n{second}"
        f"  keepalive 64;\n  keepalive_timeout {_IDLE_UPSTREAM_SECONDS}s;\n}}\n"
    )


def _mirror_http(mirror: Mirror, own: str) -> str:
    share = f"  {mirror.share / 100:g}% 1;\n" if 0 < mirror.share < WHOLE else ""
    rest = "1" if mirror.share == WHOLE else '""'
    return (
        f'split_clients "mirror:$request_id" ${own}_drawn {{\n{share}  * {rest};\n}}\n'
        + _map(
            f'"$request_method/${own}_drawn/${own}_asked/$http_upgrade"',
            f"${own}_mirrored",
            {'"~^(?:GET|HEAD)/1//$"': "1", "default": '""'},
        )
        + f"upstream {own}_mirror {{\n  server {numeric(mirror.address)} max_conns={_MIRROR_CONNECTIONS_MAX};\n"
        "  keepalive 16;\n  keepalive_timeout 1s;\n}\n"
    )


def _log_format(routing: Routing, own: str) -> str:
    """One line for a request, of fields between tabs; what users write is escaped."""
    fields = (
        *("2", "$msec", "$request_time", "$status", "$request_completion", "$request_method", "$request_id"),
        f"${own}_arm",
        f"${own}_pool",
        f"{routing.arms[0].name} {numeric(routing.arms[0].address)}",
        *("$upstream_addr", "$upstream_status", "$upstream_header_time", "$upstream_response_time"),
        *("$upstream_response_length", "$upstream_http_content_length"),
        f"{routing.salt}:${own}_unit",
        f"${own}_asked",
    )
    rows = "\n".join(f'  "{field}"' for field in (*(f"{field}\\t" for field in fields[:-1]), fields[-1]))
    return f"log_format {own} escape=json\n{rows};\n"


# What stands in a `server` block.


def server_part(structure: Structure, place: Place, generation: str) -> str:
    """The location that answers users, its twin whose connections are closed after the answer, and the mirror."""
    routing, own = structure.routing, variable_prefix(structure.routing.workload)
    shares = f"{place.inside}/shares/{routing.workload}-{structure.digest}"
    cookie = f"add_header Set-Cookie ${own}_new always;\n" if routing.sticky.cookie is not None else ""
    picks = "".join(
        f'  if (-f "{shares}/{index}-{part}") {{ set ${own}_picked {index}; }}\n'
        for index, _ in enumerate(routing.arms[1:], 1)
        for part in ("all", f"${own}_tenth", f"${own}_part")
    )
    chosen = f"  set ${own}_picked 0;\n{picks}" if picks else ""
    proxy = _indented(_proxy(routing, own), "  ")
    return (
        f"access_log {place.inside}/logs/{routing.workload}.log {own};\n{cookie}"
        f"error_page {CLOSING_STATUS} = @{own}_closing;\n"
        f"location / {{\n  open_file_cache off;\n{chosen}"
        f'  if (-f "{place.inside}/shares/closing-{generation}") {{ return {CLOSING_STATUS}; }}\n{proxy}}}\n'
        f"location @{own}_closing {{\n  keepalive_timeout 0;\n{proxy}}}\n"
        f"{_mirror_location(routing, own)}"
    )


def _proxy(routing: Routing, own: str) -> str:
    connect = min(routing.timeout_seconds, _CONNECT_SECONDS_MAX)
    mirror = f"mirror {_mirror_uri(own)};\nmirror_request_body off;\n" if routing.mirror is not None else ""
    return (
        f"proxy_pass http://${own}_pool$request_uri;\n"
        "proxy_http_version 1.1;\nproxy_redirect off;\nproxy_cache off;\n"  # a cache would mix versions
        "proxy_set_header Host $interlock_host;\n"
        "proxy_set_header Connection $interlock_connection;\n"
        "proxy_set_header Upgrade $http_upgrade;\n"
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "proxy_set_header X-Forwarded-Proto $interlock_scheme;\n"
        "proxy_set_header X-Request-Id $interlock_request;\n"
        'proxy_set_header X-Shadow "";\n'
        f"proxy_connect_timeout {_milliseconds(connect)};\n"
        f"proxy_send_timeout {_milliseconds(routing.timeout_seconds)};\n"
        f"proxy_read_timeout {_milliseconds(routing.timeout_seconds)};\n"
        # Where there is one server only, this repeats what failed on a connection that had been idle.
        "proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;\n"
        "proxy_next_upstream_tries 2;\n"
        "proxy_buffer_size 32k;\nproxy_buffers 16 16k;\nproxy_busy_buffers_size 64k;\n"
        "proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Charset;\n"
        f"{mirror}"
    )


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _mirror_uri(own: str) -> str:
    return f"/{own}_mirror"


def _mirror_location(routing: Routing, own: str) -> str:
    """A copy without body, credentials and patience: until it is answered, its user's next request has to wait."""
    if routing.mirror is None:
        return ""
    stripped = "".join(f'  proxy_set_header {name} "";\n' for name in CREDENTIAL_HEADERS)
    return (
        f"location = {_mirror_uri(own)} {{\n  internal;\n  access_log off;\n"
        f'  if (${own}_mirrored = "") {{ return 204; }}\n'
        f"  proxy_pass http://{own}_mirror$request_uri;\n  proxy_http_version 1.1;\n  proxy_pass_request_body off;\n"
        f"{stripped}"
        '  proxy_set_header Content-Length "";\n  proxy_set_header Connection "";\n'
        "  proxy_set_header Host $interlock_host;\n  proxy_set_header X-Request-Id $interlock_request;\n"
        "  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n  proxy_set_header X-Shadow 1;\n"
        f"  proxy_connect_timeout {_milliseconds(_MIRROR_CONNECT_SECONDS)};\n"
        f"  proxy_send_timeout {_MIRROR_SECONDS}s;\n  proxy_read_timeout {_MIRROR_SECONDS}s;\n"
        "  proxy_next_upstream off;\n}\n"
    )


def _indented(text: str, margin: str) -> str:
    return "".join(f"{margin}{line}\n" if line else "\n" for line in text.splitlines())
