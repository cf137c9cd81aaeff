"""Lays the files of versions out in folders of Interlock's own, each for one identity, and never changes one."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from interlock.adapters.folder_digest import (
    HISTORIES,
    WRITTEN_BY_PYTHON,
    copy_folder,
    folder_digest,
    require_links_inside,
)
from interlock.adapters.program_output import CLEAN_ENVIRONMENT
from interlock.core.errors import Invalid, NotFound, Permanent, Stale, Transient
from interlock.core.git import GitRepositories
from interlock.core.ports import ProcessSpec, StepContext
from interlock.core.source_layout import LaidSource, SourceFiles
from interlock.core.workload import Source
from interlock.lib.clock import Clock

COPY_SECONDS = 600.0
IDENTITY_CHARACTERS = 12
YOUNG_SECONDS = 3600.0
READY = ".ready"
READ_FILES_MAX = 100
READ_FILE_BYTES_MAX = 128 * 1024


class OwnLayouts:
    """`folder`/WORKLOAD/VERSION-IDENTITY; beside it VERSION-IDENTITY.ready once it was laid out and built."""

    def __init__(self, folder: Path, git: GitRepositories, clock: Clock) -> None:
        self._folder = folder
        self._git = git
        self._clock = clock

    def identify(self, workload: str, version: str, source: Source, base: str) -> LaidSource:
        """By the commit, or by the content."""
        if source.git is not None:
            origin = os.path.realpath(Path(base, source.git))
            identity = f"commit:{self._git.commit_of(self._git.stored(origin), version)}"
        elif source.folder is not None:
            origin = os.path.realpath(Path(base, source.folder.replace("{version}", version)))
            identity = f"sha256:{folder_digest(Path(origin))}"
        else:
            msg = "a container image has no files to lay out"
            raise Invalid(msg, code="source.image")
        short = identity.partition(":")[2][:IDENTITY_CHARACTERS]
        return LaidSource(
            workload=workload,
            version=version,
            source=source,
            origin=origin,
            identity=identity,
            folder=str(self._folder / workload / f"{version}-{short}"),
            own=True,
        )

    def read(self, laid: LaidSource) -> SourceFiles:
        """As it was laid out, if it was; else from the commit, or from the declared folder."""
        place = Path(laid.folder)
        if laid.own and not (Path(laid.folder + READY).exists() and place.is_dir()):
            if laid.identity.startswith("commit:"):
                commit, stored = laid.identity.removeprefix("commit:"), self._git.stored(laid.origin)
                bounds = {"files_max": READ_FILES_MAX, "file_bytes_max": READ_FILE_BYTES_MAX}
                return SourceFiles(*self._git.files_of(stored, commit, **bounds))
            place = Path(laid.origin)
        return _read_folder(place)

    def lay_out(self, laid: LaidSource, context: StepContext) -> bool:
        """Into a folder beside it first, which then takes its place: half of a version never has its name."""
        if not laid.own:
            self._require_same(laid, Path(laid.folder))
            return False
        place = Path(laid.folder)
        if Path(laid.folder + READY).exists() and place.is_dir():
            return False
        context.hold()
        new = place.with_name(f".new-{place.name}")
        try:
            new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for stale in (place, new):
                if stale.exists():  # of an attempt that broke off, perhaps in the middle of a build
                    shutil.rmtree(stale)
            if laid.identity.startswith("commit:"):
                self._export(laid, new, context)
                require_links_inside(new)
            else:
                copy_folder(Path(laid.origin), new)
                self._require_same(laid, new)
            new.rename(place)
        except OSError as error:
            msg = f"{laid.workload} {laid.version} cannot be laid out in {place}: {error.strerror or error}"
            raise Transient(msg, code="source.disk", fix="make room on that disk") from error
        return True

    def finish(self, laid: LaidSource) -> None:
        """An empty file says it."""
        if laid.own:
            Path(laid.folder + READY).touch(mode=0o600)

    def discard(self, workload: str, keep: Collection[str]) -> tuple[str, ...]:
        """What is not kept, and not about to be used."""
        removed = []
        before, own = self._clock.now().timestamp() - YOUNG_SECONDS, self._folder / workload
        for place in sorted(own.iterdir()) if own.is_dir() else ():
            if place.is_dir() and str(place) not in keep and place.stat().st_mtime < before:
                Path(str(place) + READY).unlink(missing_ok=True)  # first: half of it is never ready
                shutil.rmtree(place)
                removed.append(str(place))
        return tuple(removed)

    def _require_same(self, laid: LaidSource, folder: Path) -> None:
        found = f"sha256:{folder_digest(folder)}"
        if found != laid.identity:
            msg = f"{laid.origin} changed since this was planned: it was {laid.identity[:19]}, and is {found[:19]}"
            raise Stale(msg, code="source.changed", fix="ask again, and read the new plan")

    def _export(self, laid: LaidSource, new: Path, context: StepContext) -> None:
        """Without submodules and without what the attributes of the commit keep from exports."""
        commit = laid.identity.removeprefix("commit:")
        archive = new.with_name(f"{new.name}.tar")
        new.mkdir(mode=0o700)
        unpack = ("tar", "-x", "-f", str(archive), "-C", str(new), "--no-same-owner")
        try:
            with self._git.effects(self._git.stored(laid.origin)) as look:
                result = context.execute(look.archive(commit, str(archive)))
            if result.exit_code == 0:
                result = context.execute(_program(unpack))
            if result.exit_code != 0:
                msg = f"{laid.version} cannot be exported from {laid.origin}: {result.tail.strip()[-300:]}"
                raise Permanent(msg, code="source.export", fix=f"git -C {laid.origin} fsck; df {new.parent}")
        finally:
            archive.unlink(missing_ok=True)


def _read_folder(folder: Path) -> SourceFiles:
    """Links are told by where they lead, and nothing is read through them. Raises Transient."""
    files: dict[str, str] = {}
    left_out = 0
    try:
        for here, folders, names in os.walk(folder):
            left = {WRITTEN_BY_PYTHON} | (HISTORIES if Path(here) == folder else set())
            folders[:] = sorted(set(folders) - left)
            for path in (Path(here, name) for name in sorted(names)):
                found = path.lstat()
                plain = stat.S_ISREG(found.st_mode) and found.st_size <= READ_FILE_BYTES_MAX
                if len(files) >= READ_FILES_MAX or not (plain or stat.S_ISLNK(found.st_mode)):
                    left_out += 1
                    continue
                text = path.read_bytes().decode("utf-8", "backslashreplace") if plain else str(path.readlink())
                files[str(path.relative_to(folder))] = text
    except OSError as error:
        msg = f"{error.filename or folder} cannot be read: {error.strerror}"
        raise Transient(msg, code="source.unreadable", fix="check its permissions", effect_sent=False) from error
    return SourceFiles(files, left_out)


def _program(argv: tuple[str, ...]) -> ProcessSpec:
    """One of the programs that every system has. Raises NotFound."""
    path = shutil.which(argv[0], path=CLEAN_ENVIRONMENT["PATH"])
    if path is None:
        msg = f"there is no {argv[0]} on this machine"
        raise NotFound(msg, code="program.absent", fix=f"install {argv[0]}")
    return ProcessSpec(path=path, argv=argv, environment=CLEAN_ENVIRONMENT, timeout_seconds=COPY_SECONDS)
