"""The project in force, and the action that holds the library of its programs."""

from __future__ import annotations

from interlock.commands.actions import CommandExec
from interlock.core.errors import Conflict, InterlockError, Permanent
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.engine.catalog import Catalog
from interlock.engine.environment import recorded_environment
from interlock.engine.policy.load import PolicyBook, PolicySet
from interlock.engine.project_file import load_project
from interlock.lib.canonical import digest_of
from interlock.settings import Locations


class ProjectSource:
    """The project in force; a reload that fails keeps the old one and is loud."""

    def __init__(self, locations: Locations) -> None:
        self._locations = locations
        self._asked = recorded_environment(locations.environment_file)
        self.current = load_project(locations.project_file, self._asked)
        self.in_force = _in_force(self.current)
        """The environment, and the digest of all that interlock.yaml and its overlay say: each Run keeps it."""
        self.trouble: InterlockError | None = None
        """Why what is on disk could not be put in force the last time; None when it is."""

    def read(self) -> Project:
        """interlock.yaml with its overlay, as they are on disk. Raises as `load_project`.

        Raises:
            Conflict: Its key `environment` is another one than at the start, which is what a restart is for.
        """
        project = load_project(self._locations.project_file, self._asked)
        if project.environment != self.current.environment:
            now, then = self.current.environment or "none", project.environment or "none"
            msg = f"the environment cannot change while Interlock runs: it is {now}, and interlock.yaml says {then}"
            raise Conflict(msg, code="environment.changed", fix="interlock stop, then ask again: it starts by itself")
        return project

    def reload(self, catalog: Catalog, book: PolicyBook) -> PolicySet:
        """Put interlock.yaml, the programs and the policies in force as they are on disk: all of them, or none.

        Raises: InterlockError when one is not sound; then all stays as it was, and `trouble` says why.
        """
        before, execute = self.current, command_action(catalog)
        try:
            project = self.read()
            programs = execute.load(project)
            self.current = project
            found = book.reload()
        except InterlockError as error:
            self.current, self.trouble = before, error
            raise
        execute.put_in_force(project, programs)
        self.in_force = _in_force(project)
        self.trouble = None
        return found

    def __call__(self) -> Project:
        """What is in force."""
        return self.current


def _in_force(project: Project) -> JsonObject:
    environment: JsonObject = {} if project.environment is None else {"environment": project.environment}
    return {**environment, "configuration": digest_of(project.model_dump(mode="json"))}


def command_action(catalog: Catalog) -> CommandExec:
    """The action that holds the library of programs."""
    execute = catalog.action(CommandExec.name)
    if not isinstance(execute, CommandExec):
        msg = f"{CommandExec.name} is another action"
        raise Permanent(msg, code="bug")
    return execute
