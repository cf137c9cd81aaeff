"""Looks up what a recognised command would really touch: its binary, its paths after links, its targets."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from interlock.commands.binary import resolve_binary
from interlock.commands.history import Git, shows_secret
from interlock.commands.library import Library
from interlock.commands.model import Access, Operation, PathReference
from interlock.commands.repository import find_repository, is_out_of_reach, settings_at
from interlock.commands.trees import Unbounded, holds_secret, met_beneath
from interlock.core.errors import Denied, NotFound, Stale
from interlock.core.model import JsonObject
from interlock.core.plan import Target
from interlock.core.ports import ProgramContext, Resolvers
from interlock.core.project import Project
from interlock.lib.canonical import digest_of
from interlock.lib.reach import why_swappable

CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "HOME": "/dev/null",  # no folder, and not even root can make one there: what only looks leaves nothing behind
    "TERM": "dumb",
    "PAGER": "cat",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
    "GIT_PAGER": "cat",
    "DEBIAN_FRONTEND": "noninteractive",
}


@dataclass(frozen=True)
class Placed:
    """A command put into this machine: what is executed, where, and what that touches.

    `paths` maps each argument that is a path to where it leads; it is looked at again right before the effect.
    `context` is the digest of the operator-owned settings it runs under: they may hold what no asker should see, so
    that only their digest enters the plan, and they are read again when it runs.
    """

    operation: Operation
    binary: str
    argv: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    context: str
    paths: tuple[tuple[str, str], ...]
    targets: tuple[Target, ...]


def context_digest(context: ProgramContext) -> str:
    """What a plan says about the operator's settings without telling them."""
    return digest_of(context.model_dump(mode="json"))


def settings_for(project: Project, program: str, digest: str) -> dict[str, str]:
    """The operator's environment for a program, as it was when the plan was made.

    Raises: Stale when the operator changed it meanwhile.
    """
    context = project.contexts.get(program, ProgramContext())
    if context_digest(context) != digest:
        msg = f"the settings of {program} changed since the plan was made; nothing was run"
        raise Stale(msg, code="context.changed", fix="ask again to see the new plan")
    return context.environment


def why_others_reach(real: str) -> str | None:
    """Why somebody besides root and this account could let a real path lead elsewhere; None: nobody could.

    A program opens its arguments by name, and after our last look: what others can swap is never certain to be what
    was decided on.
    """
    return why_swappable(real, frozenset({0, os.geteuid()}), frozenset({0, os.getegid()}))


class Surroundings:
    """The machine around a command: roots, contexts, resolvers, and who may own a binary."""

    def __init__(self, project: Project, resolvers: Resolvers, library: Library) -> None:
        self._project = project
        self._resolvers = resolvers
        self._library = library

    def place(self, operation: Operation, asked_folder: str | None) -> Placed:
        """Find everything a command names.

        Raises: NotFound (no such program, path, repository or target), Denied (a binary anybody could have planted, a
        revision that is a path too, more beneath a folder than can be looked at), Transient.
        """
        context = self._project.contexts.get(operation.program, ProgramContext())
        folder = posixpath.normpath(posixpath.join(self._project.folder, asked_folder or "."))
        binary = str(resolve_binary(operation.program, operation.path_candidates, owners=frozenset({0, os.geteuid()})))
        argv = list(operation.argv)
        paths: list[tuple[str, str]] = []
        reals: dict[str, str] = {}
        targets: list[Target] = []
        uses_folder = False
        self._require_revisions(operation, folder)
        for reference in operation.paths:
            if reference.access == "revision":
                continue
            asked = _asked(reference, folder)
            # Looked at once: what is decided on below is what is executed, though a link leads elsewhere meanwhile.
            real = reals.setdefault(asked, self._real(asked, reference, folder))
            operation = self._with_access(operation, reference.access, real)
            paths.append((asked, real))
            if reference.index is None:
                uses_folder = True
            else:
                argv[reference.index] = argv[reference.index][: reference.start] + real
            if reference.access == "write":
                targets.append(self._file(asked, real))
        for asked, real in self._overwritten(operation, folder, reals):
            operation = self._with_access(operation, "write", real)
            paths.append((asked, real))
            targets.append(self._file(asked, real))
        if operation.changes:
            targets += self._touched(operation, folder, context)
        where = os.path.realpath(folder) if uses_folder else context.folder
        operation = self._with_history(operation, Git(binary, where, self._environment(operation)), tuple(argv), paths)
        return Placed(
            operation=operation,
            binary=binary,
            argv=tuple(argv),
            folder=where,
            environment=self._environment(operation),
            context=context_digest(context),
            paths=tuple(paths),
            targets=tuple({target.key: target for target in targets}.values()),
        )

    def _file(self, asked: str, real: str) -> Target:
        """The file that is there, by all its names and by the one it was asked for."""
        (target,) = self._resolvers.resolve("file", real, {})
        names = target.names if asked == real else tuple(dict.fromkeys((f"file:{asked}", *target.names)))
        return target.model_copy(update={"names": names})

    def _real(self, asked: str, reference: PathReference, folder: str) -> str:
        """Where a path leads; the resolver refuses those that mean another file for each process (/proc/self/root)."""
        (target,) = self._resolvers.resolve("file", asked, {"folder": folder})
        if reference.access in {"read", "certificate"} and not os.path.lexists(target.id):
            msg = f"there is no {asked}"
            fix = (
                "check the path; there is no shell here, which would expand it"
                if _is_pattern(asked)
                else "check the path"
            )
            raise NotFound(msg, code="path.unknown", fix=fix)
        return target.id

    def _require_revisions(self, operation: Operation, folder: str) -> None:
        """Raises Denied where the name of a revision is a path as well: a program could read it as that."""
        # Each -C is made absolute from the same folder, so that the last one counts.
        places = [reference.text for reference in operation.paths if reference.access == "repository"]
        where = posixpath.join(folder, *places[-1:])
        for reference in operation.paths:
            if reference.access == "revision" and os.path.lexists(posixpath.join(where, reference.text)):
                msg = f"{reference.text} is a path in {where}, and not only a revision"
                raise Denied(msg, code="revision.is_path", fix=f"write -- before a path: ... -- {reference.text}")

    def _overwritten(self, operation: Operation, folder: str, reals: dict[str, str]) -> list[tuple[str, str]]:
        """What is written within a folder that is named as destination, and where each of it leads.

        Raises: Denied when more lies there than is looked at.
        """
        found: list[str] = []
        for into, source in operation.into.items():
            sources = [reals[_asked(item, folder)] for item in operation.paths if item.name == source]
            for destination in (reals[_asked(item, folder)] for item in operation.paths if item.name == into):
                if Path(destination).is_dir():
                    found += _met(sources, destination, tree=operation.tree)
        return [(asked, self._resolvers.resolve("file", asked, {"folder": folder})[0].id) for asked in found]

    def _with_access(self, operation: Operation, access: Access, real: str) -> Operation:
        """What a path does to a command: reading outside the roots may disclose anything; writing there is refused by
        policy as a change of that file; settings that others can write may run their code."""
        if access in {"read", "certificate"}:
            return self._with_read(operation, real, access)
        if access == "write":
            _require_unswappable(real)
            if self._inside(real, self._project.roots.write):
                return operation
            operations = tuple(dict.fromkeys((*operation.operations, "file.outside_roots")))
            return operation.model_copy(update={"risk": "high", "operations": operations})
        if access == "repository":
            return self._with_repository(operation, real)
        if self._is_secret(real):
            operation = operation.disclosing("secret")
        trusted = self._inside(real, self._readable()) and is_out_of_reach(real, settings_at(real))
        return operation if trusted else operation.untrusted()

    def _with_read(self, operation: Operation, real: str, access: Access) -> Operation:
        kind = self._library.classify_path(real, access)
        if kind == "secret":
            return operation.disclosing("secret")
        # What tells only names and sizes (ls, df, du) may look outside the roots; what shows content may not.
        if kind != "open" and operation.discloses != "nothing":
            if not self._inside(real, self._readable()):
                return operation.disclosing("secret")
            why = why_others_reach(real)
            if why is not None:
                return _could_read_anything(operation, real, why)
        if operation.tree and operation.discloses != "secret" and holds_secret(real, self._is_secret):
            return operation.disclosing("secret")
        return operation

    def _with_repository(self, operation: Operation, real: str) -> Operation:
        """Raises NotFound outside of a repository, where git would compare any two files."""
        repository = find_repository(real)
        if repository is None:
            msg = f"{real} is not inside a git repository"
            raise NotFound(msg, code="repository.absent", fix="name a folder inside a repository")
        if operation.tree and holds_secret(repository.top, self._is_secret, besides=".git"):
            operation = operation.disclosing("secret")
        inside = self._inside(repository.top, self._readable())
        trusted = inside and repository.plain and is_out_of_reach(real, repository.places)
        return operation if trusted else operation.untrusted()

    def _with_history(
        self, operation: Operation, git: Git, argv: tuple[str, ...], paths: list[tuple[str, str]]
    ) -> Operation:
        """What git shows of commits; in a repository whose settings may run code it is not even asked."""
        if operation.program != "git" or not operation.tree or not operation.only_reads:
            return operation
        places = [real for asked, real in paths if Path(real).is_dir() and find_repository(real) is not None]
        repository = find_repository(places[0]) if places else None
        revisions = tuple(reference.text for reference in operation.paths if reference.access == "revision")
        if repository is not None and shows_secret(
            git, argv, revisions, lambda name: self._is_secret(f"{repository.top}/{name}")
        ):
            return operation.disclosing("secret")
        return operation

    @staticmethod
    def _environment(operation: Operation) -> dict[str, str]:
        return {**CLEAN_ENVIRONMENT, **operation.environment}

    def _is_secret(self, real: str) -> bool:
        return self._library.classify_path(real) == "secret"

    def _readable(self) -> tuple[str, ...]:
        return (*self._project.roots.read, *self._project.roots.write)

    def _inside(self, real: str, roots: tuple[str, ...]) -> bool:
        places = (os.path.realpath(Path(self._project.folder, root)) for root in roots)
        return any(PurePosixPath(real).is_relative_to(place) for place in places)

    def _touched(self, operation: Operation, folder: str, context: ProgramContext) -> list[Target]:
        """Every identity behind the names, and what the operation pulls along."""
        found: list[Target] = []
        for reference in operation.targets:
            where: JsonObject = {"folder": folder, **context.environment, **reference.context}
            for target in self._resolvers.resolve(reference.kind, reference.name, where):
                found.append(target)
                for effect in operation.operations:
                    found += self._resolvers.pulled_along(target, effect, where)
        return found


def _is_pattern(path: str) -> bool:
    return "/~" in path or any(character in path for character in "*?[{$")


def _asked(reference: PathReference, folder: str) -> str:
    return posixpath.normpath(posixpath.join(folder, reference.text))


def _met(sources: list[str], destination: str, *, tree: bool) -> list[str]:
    """The places in a folder at which something is overwritten. Raises Denied beyond the bounds of the look."""
    found: list[str] = []
    for source in sources:
        place = posixpath.join(destination, posixpath.basename(source))
        try:
            found += [place, *(met_beneath(source, place) if tree else ())]
        except Unbounded:
            msg = f"more lies beneath {source} than can be looked at before it is copied over {destination}"
            raise Denied(msg, code="path.unbounded", fix="copy fewer files at once, or into a new folder") from None
    return found


def _could_read_anything(operation: Operation, real: str, why: str) -> Operation:
    """What reading a path is worth that others can let lead to any file at the very moment it is read."""
    summary = f"{operation.summary} - or any other file: others could put a link at {real} meanwhile ({why})"
    return operation.model_copy(update={"summary": summary}).disclosing("secret")


def _require_unswappable(real: str) -> None:
    """Raises Denied when somebody could let a path that is written to lead elsewhere at the very moment."""
    why = why_others_reach(real)
    if why is not None:
        msg = f"others could put a link at {real} while it is changed ({why})"
        fix = "use file.write, which never follows a link, or let the folder belong to the operator"
        raise Denied(msg, code="path.swappable", fix=fix)


def require_same_paths(paths: list[list[str]]) -> str | None:
    """The first path that no longer leads where it did when the plan was made, or None."""
    return next((asked for asked, real in paths if os.path.realpath(asked) != real), None)


def require_kept_paths(reals: list[str]) -> str | None:
    """The first path, out of others' reach when the plan was made, that they can let lead elsewhere now, or None."""
    return next((real for real in reals if why_others_reach(real) is not None), None)
