"""Looks for what is wrong with an installation; each finding names the fix."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from interlock.core.errors import InterlockError
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.role import BUILT_IN_ROLES
from interlock.engine.policy.load import PolicySet

PROJECT_FILE = "interlock.yaml"
DISK_BYTES_MIN = 512 * 1024 * 1024
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def finding(level: str, area: str, message: str, fix: str | None = None) -> JsonObject:
    """`level` is ok, warning or error."""
    return {"level": level, "area": area, "message": message, "fix": fix}


def _unbound(project: Project) -> Iterable[JsonObject]:
    """Where roles bind, somebody none of whose roles has codes, be it mistyped, is bound by none. An agent without a
    role is bound by those of whom he works for."""
    if project.roles is None:
        return
    known = {*BUILT_IN_ROLES, *project.roles}
    roles = {f"people.{name}": person.roles for name, person in project.people.items()}
    roles |= {f"agents.{name}": agent.roles for name, agent in project.agents.items() if agent.roles}
    for place, held in sorted(roles.items()):
        if known.isdisjoint(held):
            yield finding(
                "warning",
                "roles",
                f"{place} has no role that has codes ({', '.join(held) or 'none at all'}): codes bind it to nothing",
                f"name one of {', '.join(sorted(known))}",
            )


def inspect_project(project: Project) -> Iterable[JsonObject]:
    """What is odd about interlock.yaml although it can be read."""
    yield finding("ok", "project", f"interlock.yaml is sound (preset {project.preset})")
    if not project.people:
        yield finding(
            "warning",
            "people",
            "nobody is declared, so that whoever runs Interlock may do everything a person may",
            "name the people under `people` in interlock.yaml",
        )
    if not project.protected:
        yield finding(
            "warning",
            "protected",
            "nothing is protected",
            "list what must never be touched under `protected`, for example unit:postgresql*",
        )
    for kind, roots in (("read", project.roots.read), ("write", project.roots.write)):
        for root in roots:
            if not Path(project.folder, root).is_dir():
                yield finding(
                    "warning", "roots", f"the {kind} root {root} does not exist", f"mkdir -p {root}, or remove it"
                )
            elif Path(project.folder, root).stat().st_mode & stat.S_IWOTH:
                yield finding(
                    "warning",
                    "roots",
                    f"every account may write in the {kind} root {root}, past the door",
                    f"chmod o-w {root}",
                )
    yield from _unbound(project)
    with_environment = sorted(name for name, context in project.contexts.items() if context.environment)
    file = Path(project.folder, PROJECT_FILE)
    if with_environment and file.exists() and file.stat().st_mode & stat.S_IROTH:
        yield finding(
            "warning",
            "contexts",
            f"every account may read {file}, and contexts.{with_environment[0]}.environment in it may hold secrets",
            f"chmod o-r {file}",
        )


def inspect_policies(found: PolicySet | InterlockError, in_force: PolicySet) -> Iterable[JsonObject]:
    """Whether what is on disk is sound, and in force."""
    if isinstance(found, InterlockError):
        yield finding("error", "policies", found.message, found.fix)
        return
    yield finding("ok", "policies", f"{len(found.rules)} policies are sound")
    for warning in found.warnings:
        yield finding("warning", "policies", warning)
    if found.digest != in_force.digest:
        fix = "interlock policy apply" if in_force.pinned else "interlock policy reload"
        yield finding("warning", "policies", "what is on disk is not in force yet", fix)


def inspect_adopted(troubles: Iterable[InterlockError]) -> Iterable[JsonObject]:
    """Whether somebody else wrote into the table of adopted programs."""
    found = [finding("error", "programs", trouble.message, trouble.fix) for trouble in troubles]
    yield from found or [finding("ok", "programs", "every adopted program is one that Interlock wrote down")]


def inspect_state(state_folder: Path) -> Iterable[JsonObject]:
    """Permissions and room of the state folder."""
    loose = [
        path
        for path in (state_folder, state_folder / "keys", *sorted((state_folder / "keys").glob("*.key")))
        if path.exists() and path.stat().st_mode & OTHERS
    ]
    for path in loose:
        yield finding("error", "state", f"{path} can be read by others", f"chmod go-rwx {path}")
    if not loose:
        yield finding("ok", "state", "keys and state belong to Interlock alone")
    free = shutil.disk_usage(state_folder).free
    if free < DISK_BYTES_MIN:
        yield finding("error", "disk", f"only {free // 2**20} MiB are free for the state", "make room on that disk")
    else:
        yield finding("ok", "disk", f"{free / 2**30:.1f} GiB are free")
