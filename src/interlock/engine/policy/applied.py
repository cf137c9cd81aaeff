"""Which texts are in force: what lies on disk until a set was put in force, and from then on that set."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from interlock.core.errors import InterlockError, Permanent
from interlock.core.project import Project
from interlock.engine.policy.load import (
    PolicyLoader,
    PolicySet,
    PolicySource,
    built_in_sources,
    read_layers,
    require_one_preset,
)
from interlock.lib.canonical import digest_of


@dataclass(frozen=True)
class AppliedSet:
    """A set that a Run put in force: the texts of all layers but the built-in one, which comes with the program.

    `pinned` False: the Run said that what lies on disk is in force again.
    """

    digest: str
    sources: tuple[PolicySource, ...]
    pinned: bool


class AppliedPolicies:
    """Makes the set in force of what was put in force, or of what lies on disk where nothing was."""

    def __init__(self, current: AppliedSet | None) -> None:
        self.current = current

    @property
    def pinned(self) -> bool:
        """Whether what lies on disk is only a proposal."""
        return self.current is not None and self.current.pinned

    def load(self, loader: PolicyLoader, project: Project) -> PolicySet:
        """What is in force by this project's declarations.

        Raises:
            Invalid: the set is not sound (any more), with file and line.
        """
        if self.current is None or not self.current.pinned:
            return loader.load(project)
        return load_applied(loader, project, self.current.sources)


def load_applied(loader: PolicyLoader, project: Project, sources: tuple[PolicySource, ...]) -> PolicySet:
    """A set of kept texts. Raises Invalid when it is not sound."""
    require_one_preset(sources, project)
    return replace(loader.load_sources(project, (*built_in_layer(project), *sources)), pinned=True)


def built_in_layer(project: Project) -> tuple[PolicySource, ...]:
    """The layer that comes with the program."""
    return built_in_sources(project.preset)[:1]


def read_layers_or_trouble(project: Project) -> tuple[str, InterlockError | None]:
    """The digest of the texts on disk, or why they cannot be read."""
    try:
        sources, _ = read_layers(project)
    except InterlockError as error:
        return "", error
    return digest_of_texts(sources), None


def own_texts(sources: Iterable[PolicySource]) -> tuple[PolicySource, ...]:
    """All layers but the built-in one."""
    return tuple(source for source in sources if source.layer != "invariant")


def digest_of_texts(sources: Iterable[PolicySource]) -> str:
    """SHA-256 (hex) of layers, names and texts in order, without the built-in layer."""
    return digest_of([[source.layer, source.name, source.text] for source in own_texts(sources)])


def sources_to_json(sources: Iterable[PolicySource]) -> str:
    """For keeping; `sources_from_json` reads it."""
    return json.dumps([[source.layer, source.name, source.text] for source in own_texts(sources)])


def sources_from_json(text: str, digest: str) -> tuple[PolicySource, ...]:
    """Kept texts. Raises Permanent when they are not those that were kept under this digest."""
    sources = tuple(PolicySource(layer, name, body) for layer, name, body in json.loads(text))
    if digest_of_texts(sources) != digest:
        msg = f"the policies kept as {digest[:12]} were changed in the database"
        raise Permanent(msg, code="policy.kept_changed", fix="restore a backup: interlock restore")
    return sources
