"""What a target is by its well-known name (a database, a firewall, the way in), so that policies need not list names.

This only ever adds refusals: a database under a name that nobody would guess is declared under `protected`.
"""

from __future__ import annotations

from functools import lru_cache

from interlock.core.plan import Target
from interlock.engine.policy.protected import REMEMBERED_MAX, Patterns

_DATABASES = (
    *("postgres*", "pgsql*", "mysql*", "mariadb*", "mongo*", "redis*", "valkey*", "keydb*", "clickhouse*"),
    *("cassandra*", "scylla*", "couchdb*", "influxdb*", "elasticsearch*", "opensearch*", "etcd*", "cockroach*"),
    *("neo4j*", "rabbitmq*", "memcached*", "mssql*", "oracle-db*", "timescale*", "qdrant*", "milvus*"),
)
_DATA_FOLDERS = ("postgresql", "pgsql", "mysql", "mariadb", "mongodb", "redis", "elasticsearch", "clickhouse", "etcd")
_WORKLOADS = ("container", "service", "deployment", "statefulset")
_LOGIN_FILES = (
    *("ssh", "sudoers", "sudoers.d", "pam.d", "pam.conf", "security", "doas.conf", "polkit-1"),
    *("passwd*", "shadow*", "group*", "gshadow*", "subuid*", "subgid*"),
)
_WORKLOAD_DATABASES = (*(f"*{name}" for name in _DATABASES), "db", "*-db", "*_db", "*-db-*", "*_db_*", "database*")

CLASSES: dict[str, tuple[str, ...]] = {
    "database": (
        "database:*",
        *(f"unit:{name}" for name in _DATABASES),
        *(f"process:{name}" for name in _DATABASES),
        *(f"{kind}:{name}" for kind in _WORKLOADS for name in _WORKLOAD_DATABASES),
        *(f"file:/var/lib/{name}" for name in _DATA_FOLDERS),
    ),
    "firewall": (
        "firewall:*",
        *(f"unit:{name}" for name in ("nftables", "ufw", "firewalld", "iptables", "ip6tables", "netfilter-persistent")),
        "unit:fail2ban",
        *(f"file:/etc/{name}" for name in ("nftables*", "iptables", "ufw", "firewalld", "fail2ban")),
    ),
    "access": (
        "user:*",
        *(f"unit:{name}" for name in ("ssh", "sshd", "dropbear", "systemd-logind", "nslcd", "sssd")),
        *(f"file:/etc/{name}" for name in _LOGIN_FILES),
        "file:/**/.ssh",
    ),
}
"""Class -> patterns as `protected` takes them."""

_PATTERNS = {name: Patterns(patterns) for name, patterns in CLASSES.items()}


@lru_cache(maxsize=REMEMBERED_MAX)
def classes_of(target: Target) -> tuple[str, ...]:
    """The classes of a target, sorted."""
    return tuple(sorted(name for name, patterns in _PATTERNS.items() if patterns.match(target)))
