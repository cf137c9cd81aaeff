"""What a version of a service is made of: its code, and its configuration where the workload declares one; pure."""

from __future__ import annotations

from typing import NamedTuple

from interlock.core.errors import Invalid
from interlock.core.source_layout import LaidSource
from interlock.core.workload import ServiceWorkload

JOINT = "+"
SHORT_CHARACTERS = 12


class VersionParts(NamedTuple):
    """The name of a version's code, and of its configuration: v1.4 and c7 of v1.4+c7; None without one."""

    code: str
    configuration: str | None

    @property
    def name(self) -> str:
        """What people call both together."""
        return self.code if self.configuration is None else f"{self.code}{JOINT}{self.configuration}"


def parts_of(workload: str, version: str, declared: ServiceWorkload) -> VersionParts:
    """Both names; a `+` is part of the code's name but for the last one, and always where there is no configuration.

    Raises Invalid when one of the two is missing.
    """
    if declared.configuration is None:
        return VersionParts(version, None)
    code, _, configuration = version.rpartition(JOINT)
    if not code or not configuration:
        msg = f"{workload} is released with its configuration: {version} names only one of the two"
        raise Invalid(msg, code="service.parts", fix="name both, as v1.4+c7")
    return VersionParts(code, configuration)


def joined(code: str, configuration: str | None) -> str:
    """One identity for both, so that either of them that changed is noticed."""
    return code if configuration is None else f"{code}{JOINT}{configuration}"


def code_identity(identity: str) -> str:
    """The part of it that is the code's."""
    return identity.partition(JOINT)[0]


def layout_name(workload: str) -> str:
    """Under which name configurations are laid out: apart from code, which may be of the same commit, and is built."""
    return f"{workload}{JOINT}configuration"


def built_with(code: LaidSource, configuration: LaidSource, declared: ServiceWorkload) -> LaidSource:
    """The code's place: one for each configuration where a build reads it."""
    reads = any("{configuration}" in argument for command in declared.build for argument in command)
    if not reads:
        return code
    short = configuration.identity.partition(":")[2][:SHORT_CHARACTERS]
    return code.model_copy(update={"folder": f"{code.folder}{JOINT}{short}"})


def short(identity: str) -> str:
    """As people compare identities: `commit 1a2b3c4d5e6f`, and with a configuration both."""
    pairs = (part.partition(":") for part in identity.split(JOINT))
    return f" {JOINT} ".join(f"{kind} {value.removeprefix('sha256:')[:SHORT_CHARACTERS]}" for kind, _, value in pairs)
