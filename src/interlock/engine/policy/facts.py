"""What every decision needs to know about the project and about Interlock itself, compiled once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interlock.core.project import Project
from interlock.engine.policy.protected import Patterns, ResolvedPatterns
from interlock.engine.policy.target_classes import CLASSES
from interlock.engine.policy.windows import Calendar


@dataclass(frozen=True)
class OwnParts:
    """Patterns of what belongs to Interlock itself, on this machine.

    `changed`: nobody changes it through the door (database, socket, process, program, policies, configuration).
    `private`: nobody reads it through the door either, and so nobody changes it (keys, blobs, the database's files).
    """

    changed: tuple[str, ...] = ()
    private: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProjectFacts:
    """The facts as they stand now. `watched` covers whatever any of the other patterns, or a class, covers."""

    project: Project
    protected: Patterns
    own_changed: Patterns
    own_private: Patterns
    calendar: Calendar
    watched: Patterns


class FactsSource:
    """Keeps the facts of one project current: symbolic links may come to lead elsewhere."""

    def __init__(
        self,
        project: Project,
        own: OwnParts,
        *,
        realpath: Callable[[str], str],
        monotonic: Callable[[], float],
    ) -> None:
        self._protected = ResolvedPatterns(project.protected, realpath, monotonic)
        self._own_changed = ResolvedPatterns((*own.changed, *own.private), realpath, monotonic)
        self._own_private = ResolvedPatterns(own.private, realpath, monotonic)
        self._facts = self._compile(project, Calendar(project.windows))

    def current(self) -> ProjectFacts:
        """The facts; a new object only when something changed."""
        now = (self._protected.current(), self._own_changed.current(), self._own_private.current())
        facts = self._facts
        if now != (facts.protected, facts.own_changed, facts.own_private):
            facts = self._compile(facts.project, facts.calendar)
            self._facts = facts
        return facts

    def _compile(self, project: Project, calendar: Calendar) -> ProjectFacts:
        protected, changed, private = (
            self._protected.current(),
            self._own_changed.current(),
            self._own_private.current(),
        )
        classes = (text for patterns in CLASSES.values() for text in patterns)
        watched = Patterns((*protected.texts, *changed.texts, *private.texts, *classes))
        return ProjectFacts(project, protected, changed, private, calendar, watched)
