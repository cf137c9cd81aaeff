"""Which version is meant where only its code or only its configuration is named, and what then changes; pure."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from interlock.core.errors import Conflict, Invalid
from interlock.core.service_runtime import VersionSpec
from interlock.core.workload import ServiceWorkload
from interlock.services.configuration import JOINT, VersionParts, code_identity, parts_of

AskedVersion = Annotated[str, Field(pattern=r"^\+?[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]
"""v1.4+c8; or +c8 for another configuration of the code in force, or v1.5 for other code with the one in force."""


class Wanted(NamedTuple):
    """The version by its parts, and those that are kept of the version in force because nobody named them."""

    parts: VersionParts
    keeps_code: bool = False
    keeps_configuration: bool = False

    @property
    def name(self) -> str:
        """Its whole name."""
        return self.parts.name


def wanted_version(workload: str, asked: str, declared: ServiceWorkload, stable: str | None) -> Wanted:
    """What is not named stays as it is. Raises Invalid where there is nothing that could stay."""
    if declared.configuration is None:
        if asked.startswith(JOINT):
            msg = f"interlock.yaml declares no configuration of {workload}"
            raise Invalid(msg, code="release.parts", fix=f"say under workloads.{workload}.configuration where it lies")
        return Wanted(VersionParts(asked, None))
    code, _, configuration = asked.rpartition(JOINT)
    if code and configuration:
        return Wanted(VersionParts(code, configuration))
    if stable is None:
        msg = f"{workload} has no version yet, so its first one names both code and configuration"
        raise Invalid(msg, code="release.parts", fix=f"interlock deploy {workload} v1.4+c7")
    if not asked.startswith(JOINT):
        if JOINT not in stable:
            msg = f"{stable}, which users of {workload} have, was released without a configuration"
            raise Invalid(msg, code="release.parts", fix=f"name both: interlock deploy {workload} {asked}+c7")
        return Wanted(VersionParts(asked, parts_of(workload, stable, declared).configuration), keeps_configuration=True)
    before = stable if JOINT not in stable else parts_of(workload, stable, declared).code
    return Wanted(VersionParts(before, configuration), keeps_code=True)


def require_kept(workload: str, wanted: Wanted, before: VersionSpec | None, spec: VersionSpec) -> None:
    """What is kept is what users have, and not something else that took its name meanwhile. Raises Conflict."""
    if before is None:
        return
    was, now = before.configuration, spec.configuration
    if wanted.keeps_code and code_identity(before.identity) != code_identity(spec.identity):
        raise _moved(workload, f"code {wanted.parts.code}")
    if wanted.keeps_configuration and was is not None and now is not None and was.identity != now.identity:
        raise _moved(workload, f"configuration {wanted.parts.configuration}")


def _moved(workload: str, what: str) -> Conflict:
    msg = f"the {what} is not what users of {workload} have: it was changed since it was released"
    return Conflict(msg, code="release.part_moved", fix="give what is there now a name of its own, or name both parts")


def changes(before: VersionSpec | None, spec: VersionSpec) -> list[tuple[str, str]]:
    """Which part stays and which changes, for the plan; nothing for a workload without a configuration."""
    if spec.configuration is None:
        return []
    parts = parts_of(spec.workload, spec.version, spec.declared)
    was = before.configuration if before is not None else None
    code = before.version.rpartition(JOINT)[0] if was is not None and before is not None else None
    code = before.version if code is None and before is not None else code
    same_code = before is not None and code_identity(before.identity) == code_identity(spec.identity)
    same_configuration = was is not None and was.identity == spec.configuration.identity
    return [
        ("code", _change(code, parts.code, same=same_code)),
        ("configuration", _change(was.version if was else None, parts.configuration or "", same=same_configuration)),
    ]


def _change(before: str | None, after: str, *, same: bool) -> str:
    if before is None:
        return f"{after}, the first"
    if same:
        return f"{after} stays" if before == after else f"{before} -> {after}, which is the same"
    return f"{before} -> {after}" if before != after else f"{after}, which is not what it was"
