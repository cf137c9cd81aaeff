"""The files of a version: which they are, whatever its name points to later, and where they lie."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey
from interlock.core.ports import StepContext
from interlock.core.workload import Source


class LaidSource(Frozen):
    """A version's files, pinned.

    `identity` is `commit:...` of a git ref or `sha256:...` of a folder's content. `folder` is where the version runs:
    a folder of Interlock's own that `lay_out` fills (`own`), of this identity alone. A version that an earlier
    Interlock started where its files lay is still known by that folder.
    """

    workload: str
    version: str
    source: Source
    origin: str
    """The absolute folder, or repository, that the files come from."""
    identity: str
    folder: str
    own: bool


class SourceFiles(NamedTuple):
    """Files by their paths below a folder, with escapes for what is not text; `left_out` were too many or too large."""

    files: dict[str, str]
    left_out: int


class SourceLayouts(Protocol):
    """Finds out what a version is, and lays it out."""

    def identify(self, workload: str, version: str, source: Source, base: str) -> LaidSource:
        """What the version is now; no effect. Sources of images have no files and are not asked for.

        `base` is the folder that relative paths start from.

        Raises NotFound (no such folder, repository or ref), Invalid (too large, a link that leads out of the folder,
        or nothing that can be laid out).
        """
        ...

    def read(self, laid: LaidSource) -> SourceFiles:
        """Its files as they are where they come from, or where they were laid out; within bounds, and no effect.

        Raises NotFound, Transient (it cannot be read).
        """
        ...

    def lay_out(self, laid: LaidSource, context: StepContext) -> bool:
        """Put the files there; returns whether they were new, and so have to be built. Doing it twice is doing it once.

        Raises Stale when the declared folder changed since it was looked at, Invalid when a link leads out of it,
        Transient when the disk is full.
        """
        ...

    def finish(self, laid: LaidSource) -> None:
        """Say that it was built, so that `lay_out` finds it ready the next time."""
        ...

    def discard(self, workload: str, keep: Collection[str]) -> tuple[str, ...]:
        """Remove all own folders of a workload but these; returns which. A folder younger than an hour stays."""
        ...


SOURCE_LAYOUTS: OutsideKey[SourceLayouts] = OutsideKey("the files of versions")
