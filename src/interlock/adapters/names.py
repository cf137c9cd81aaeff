"""Targets whose name is their identity once it is spelled in the one canonical way."""

from __future__ import annotations

import grp
import ipaddress
import pwd
import re
import unicodedata
from collections.abc import Callable, Iterable

from interlock.core.errors import Invalid, NotFound
from interlock.core.model import JsonObject
from interlock.core.plan import Target

NAME_CHARACTERS_MAX = 512
LOCALHOST = "localhost"
SETTING_SEPARATORS = str.maketrans("/", ".")


def require_visible(kind: str, name: str, *, characters_max: int = NAME_CHARACTERS_MAX) -> None:
    """Refuse a name that a reader could not see or would misread.

    Raises: Invalid for empty or overlong text, control, invisible and unassigned characters, and text that is not in
    Unicode normal form C.
    """
    if not name or len(name) > characters_max:
        msg = f"a {kind} has a name of 1 to {characters_max} characters, not {len(name)}"
        raise Invalid(msg, code="target.name", fix="check the name")
    if not name.isprintable() or not unicodedata.is_normalized("NFC", name):
        msg = f"the {kind} {name!a} holds characters that a reader cannot see or tell apart"
        raise Invalid(msg, code="target.name", fix="type the name instead of pasting it")


def require_ascii(kind: str, name: str, pattern: re.Pattern[str], *, characters_max: int = NAME_CHARACTERS_MAX) -> None:
    """Refuse a name that is not wholly of `pattern`, whose classes spell out ASCII characters: look-alike letters of
    other scripts are none of them.

    Raises: Invalid.
    """
    require_visible(kind, name, characters_max=characters_max)
    if pattern.fullmatch(name) is None:
        msg = f"{name!a} is not the name of a {kind}"
        raise Invalid(msg, code="target.name", fix="check the name")


def unique(names: Iterable[str], *, besides: str = "") -> tuple[str, ...]:
    """Names in order, each once, without empty ones and without `besides` (the identity itself)."""
    return tuple(dict.fromkeys(name for name in names if name and name != besides))


class NamedTargets:
    """Things that need no look at the world, because what they are called is what they are.

    Args:
        host_names: What this machine is called (`gethostname`, the full name); all of them become `localhost`.
    """

    kinds: tuple[str, ...] = (
        *("host", "package", "user", "group", "firewall", "interface", "service", "database", "setting", "port"),
        *("domain", "zone", "table", "release", "lane", "policy", "program", "project", "agent", "schedule"),
    )

    def __init__(self, *, host_names: Iterable[str] = ()) -> None:
        self._host_names = frozenset({LOCALHOST, *(name.lower().rstrip(".") for name in host_names)})

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """One target. Raises Invalid (not such a name), NotFound (no such user or group)."""
        shape = {"host": self._host, "user": _user, "group": _group, "package": _package, "interface": _interface}
        read = shape.get(kind)
        if read is not None:
            return (read(name),)
        pattern, fold = _SHAPES.get(kind, (_PLAIN, _same))
        require_ascii(kind, name, pattern)
        identity = fold(name)
        return (Target(kind=kind, id=identity, names=unique([name], besides=identity)),)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """Nothing that a name could tell."""
        return ()

    def _host(self, name: str) -> Target:
        require_ascii("host", name, _HOST)
        identity = name.lower().rstrip(".") or name
        try:
            address = ipaddress.ip_address(identity)
        except ValueError:
            here = identity in self._host_names
        else:
            identity, here = str(address), address.is_loopback
        if here:
            return Target(
                kind="host", id=LOCALHOST, names=unique(sorted({name, identity, *self._host_names}), besides=LOCALHOST)
            )
        return Target(kind="host", id=identity, names=unique([name, identity.partition(".")[0]], besides=identity))


def _same(name: str) -> str:
    return name


def _dotted(name: str) -> str:
    return name.translate(SETTING_SEPARATORS)


def _user(name: str) -> Target:
    require_ascii("user", name, _ACCOUNT)
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        msg = f"there is no user {name}"
        raise NotFound(msg, code="user.unknown", fix="getent passwd") from None
    return Target(kind="user", id=entry.pw_name, names=(str(entry.pw_uid),))


def _group(name: str) -> Target:
    require_ascii("group", name, _ACCOUNT)
    try:
        entry = grp.getgrgid(int(name)) if name.isdigit() else grp.getgrnam(name)
    except (KeyError, OverflowError):
        msg = f"there is no group {name}"
        raise NotFound(msg, code="group.unknown", fix="getent group") from None
    return Target(kind="group", id=entry.gr_name, names=(str(entry.gr_gid),))


def _package(name: str) -> Target:
    """`nginx:amd64=1.2-3`, `nginx/stable` and `nginx` are one package."""
    require_ascii("package", name, _PACKAGE)
    bare = re.split(r"[:=/]", name.lower(), maxsplit=1)[0]
    return Target(kind="package", id=bare, names=unique([name], besides=bare))


def _interface(name: str) -> Target:
    """A label (`eth0:1`) and the peer of a pair (`veth1@if2`) belong to the interface itself."""
    require_ascii("interface", name, _INTERFACE)
    bare = re.split(r"[:@]", name, maxsplit=1)[0]
    return Target(kind="interface", id=bare, names=unique([name], besides=bare))


_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@/+-]*")
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?|[0-9]{1,10}")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*(?:[:=/][A-Za-z0-9+.:~_-]+){0,2}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}(?:[:@][A-Za-z0-9_.-]{1,15})?")
_SHAPES: dict[str, tuple[re.Pattern[str], Callable[[str], str]]] = {
    "domain": (
        re.compile(r"[A-Za-z0-9_*](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?"),
        lambda name: name.lower().rstrip("."),
    ),
    "setting": (re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}"), _dotted),
    "port": (re.compile(r"[0-9]{1,5}(?:/(?:tcp|udp|sctp))?"), _same),
}
