"""All target resolvers behind one face: chooses by kind, and follows what belongs to another outside system."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from interlock.core.errors import Invalid, NotFound
from interlock.core.model import JsonObject
from interlock.core.plan import Target
from interlock.core.ports import TargetResolver

OWN_MARK = "interlock:place"
TARGETS_MAX = 2000

POWER = frozenset({"power.off", "host.reboot", "host.poweroff"})
PRUNES = frozenset({"container.remove", "image.remove", "network.remove", "volume.remove"})
_STOPS = frozenset({"stop", "restart", "kill", "signal", "isolate", "reload_or_restart", "freeze"})
_ENGINE_UNITS = frozenset({"docker.service", "docker.socket", "containerd.service"})
_ENGINE_PROGRAMS = frozenset({"dockerd", "containerd"})
_FIRST_PROCESS = "1:"


@runtime_checkable
class Sweeping(Protocol):
    """A resolver that can list all it has: what falls when the machine itself does."""

    def everything(self, context: JsonObject) -> tuple[Target, ...]:
        """Everything that would be touched. Raises NotFound where this machine has no such system at all."""
        ...


class ResolverSet:
    """The resolvers of one installation; nothing is remembered between calls, because facts must be fresh.

    Args:
        resolvers: One or more per outside system; no two may claim the same kind.
        own_places: Keys of units and containers that Interlock itself runs in (`ProcessTargets.own_places`); such
            targets get the name `interlock:place`, so that they are known as Interlock's own.
    """

    def __init__(self, resolvers: Sequence[TargetResolver], *, own_places: Callable[[], Iterable[str]] = tuple) -> None:
        self._resolvers = tuple(resolvers)
        self._own_places = own_places
        self._by_kind: dict[str, TargetResolver] = {}
        for resolver in self._resolvers:
            for kind in resolver.kinds:
                if kind in self._by_kind:
                    msg = f"two resolvers claim the kind {kind}"
                    raise ValueError(msg)
                self._by_kind[kind] = resolver

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind that can be resolved, sorted."""
        return tuple(sorted(self._by_kind))

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """The identities behind a name, at least one.

        Raises: Invalid (no such kind, no such kind of name), NotFound, Transient, Permanent: all of them are refusals.
        """
        found = self._resolver(kind).resolve(kind, name, context)
        if not found:
            msg = f"there is no {kind} {name}"
            raise NotFound(msg, code="target.unknown", fix="check the name")
        return self._marked(found)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:
        """What an operation on a target would touch besides it, in every system that is concerned.

        Raises: Invalid (no such kind, or more than a plan can show), NotFound, Transient, Permanent.
        """
        found = {other.key: other for other in self._resolver(target.kind).pulled_along(target, operation, context)}
        for other in self._elsewhere((target, *found.values()), operation, context):
            found.setdefault(other.key, other)
        found.pop(target.key, None)
        if len(found) > TARGETS_MAX:
            msg = f"{operation} on {target.key} would touch {len(found)} things, more than a plan can show"
            raise Invalid(msg, code="target.too_wide", fix="name less")
        return self._marked(found[key] for key in sorted(found))

    def _resolver(self, kind: str) -> TargetResolver:
        resolver = self._by_kind.get(kind)
        if resolver is None:
            msg = f"nobody knows what a {kind!a} is"
            raise Invalid(msg, code="target.kind", fix=f"use one of {', '.join(self.kinds)}")
        return resolver

    def _elsewhere(self, touched: Sequence[Target], operation: str, context: JsonObject) -> Iterator[Target]:
        """The machine carries everything, an engine its containers, a unit or container is what its processes are."""
        if operation in POWER or (touched[0].kind == "process" and touched[0].id.startswith(_FIRST_PROCESS)):
            for resolver in self._resolvers:
                yield from _sweep(resolver, context)
            return
        if touched[0].kind == "host" and operation in PRUNES and "container" in self._by_kind:
            yield from self._prune(touched[0], operation, context)
        for target in touched:
            if target.kind == "process":
                yield from self._places_of(target, context)
            if operation.rpartition(".")[2] in _STOPS and _is_engine(target):
                yield from _sweep(self._by_kind.get("container"), context)

    def _prune(self, host: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:
        return self._by_kind["container"].pulled_along(host, operation, context)

    def _places_of(self, process: Target, context: JsonObject) -> Iterator[Target]:
        """The unit and the container that a process runs in, by the names that people know them by."""
        for name in process.names:
            kind, colon, identity = name.partition(":")
            if colon and kind in {"unit", "container"} and kind in self._by_kind:
                try:
                    yield from self._by_kind[kind].resolve(kind, identity, context)
                except NotFound:
                    # Another engine's container or a user's own unit: what its cgroup calls it is all there is to know,
                    # and the process has that among its names.
                    continue

    def _marked(self, targets: Iterable[Target]) -> tuple[Target, ...]:
        own = frozenset(self._own_places())
        return tuple(
            target.model_copy(update={"names": (*target.names, OWN_MARK)}) if target.key in own else target
            for target in targets
        )


def _sweep(resolver: object, context: JsonObject) -> tuple[Target, ...]:
    if not isinstance(resolver, Sweeping):
        return ()
    try:
        return resolver.everything(context)
    except NotFound:
        return ()  # this machine has no such system, so nothing of it falls


def _is_engine(target: Target) -> bool:
    if target.kind == "unit":
        return target.id in _ENGINE_UNITS
    return target.kind == "process" and bool(_ENGINE_PROGRAMS & set(target.names))
