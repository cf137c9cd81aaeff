"""Files reports: what a report is made from is brought together, and written once into the release's folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from interlock.comparison.written import replace_file
from interlock.releases.folders import ReleaseFolders
from interlock.releases.model import Release
from interlock.releases.plots import plot
from interlock.releases.report import Material, report, report_name
from interlock.releases.store import ReleaseStore

log = structlog.get_logger()

PLOT_NAME = "plot.svg"


class Filing:
    """`shadow_words`: what was compared in the shadow, in words and as a table; called in a thread."""

    def __init__(
        self, folders: ReleaseFolders, store: ReleaseStore, shadow_words: Callable[[Release], tuple[str, str]]
    ) -> None:
        self._folders = folders
        self._store = store
        self._shadow_words = shadow_words

    def files(self, release: Release) -> list[Path]:
        """What there is of its report."""
        folder = self._folders.path(release.number)
        return [path for path in (folder / report_name(release), folder / PLOT_NAME) if path.exists()]

    async def gather(self, release: Release) -> Material:
        """All that a report is made from."""
        lines = await self._store.timeline(release.number)
        ticks = await self._store.ticks(release.number)
        words, differences = await asyncio.to_thread(self._shadow_words, release)
        return Material(release, lines, ticks, words, differences, PLOT_NAME)

    async def file(self, release: Release) -> None:
        """Write it, unless it lies there; a disk that is full is told and tried again at the next start."""
        folder = self._folders.path(release.number)
        if (folder / report_name(release)).exists():
            return
        material = await self.gather(release)
        try:
            await asyncio.to_thread(self._write, material)
        except OSError as error:
            log.warning("release.report_not_written", release=release.number, reason=os.strerror(error.errno or 0))

    def _write(self, material: Material) -> None:
        """The report last: where it lies, all of it does."""
        release = material.release
        folder = self._folders.made(release.number)
        replace_file(folder / PLOT_NAME, plot(release, material.ticks, material.lines).encode())
        replace_file(folder / report_name(release), report(material).encode())
