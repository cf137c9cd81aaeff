"""Says when interlock.yaml on disk is not what is in force: whoever deploys may think that it is."""

from __future__ import annotations

from interlock.core.errors import InterlockError
from interlock.engine.project_file import load_project
from interlock.engine.yaml_model import faults_of
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.messages import say
from interlock.lib.canonical import digest_of


def words_about_disk(caller: Caller) -> list[str]:
    """A warning, or none. An account that may not read the file is told nothing: it did not write it either."""
    told = caller.resident.hello.record("project")
    try:
        project = load_project(caller.locations().project_file, told.text("environment") or None)
    except InterlockError as error:
        if not faults_of(error):
            return []
        return [say("interlock.yaml is not sound; what was in force before counts: {fault}", fault=error.message)]
    if digest_of(project.model_dump(mode="json")) == told.text("configuration"):
        return []
    return [say("interlock.yaml was changed and is not in force yet: interlock policy reload")]
