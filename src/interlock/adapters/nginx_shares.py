"""Shares as nginx's workers read them: a folder of empty files for each structure, exchanged as a whole by one rename.

`shares/web-DIGEST` is a link to a folder that nobody changes any more. It holds a file for each part of the line of
hashes that an arm other than the stable one has, and the routing itself, so that what is in force and what is known
about it are one thing. Where a folder or a file is missing the stable version answers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pydantic import Field

from interlock.core.errors import Permanent
from interlock.core.model import Frozen
from interlock.core.traffic import Routing
from interlock.lib.random_ids import random_hex

RECORD_BYTES_MAX = 64 * 1024
_RECORD = "routing.json"
_CLOSING = "closing-"


class Share(Frozen):
    """What is in force for one workload: the routing, and which bounds its structure was made for."""

    routing: Routing
    structure: Routing
    """The routing for which nginx was told where requests can go; its shares say nothing."""
    fine: tuple[int, ...] = Field(max_length=1000)


class ShareFolder:
    """All shares of one nginx. Workers need to enter it, but not to list it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder

    def make(self) -> None:
        """Make it where it is missing."""
        self.path.mkdir(mode=0o711, exist_ok=True)
        self.path.chmod(0o711)

    def read(self, workload: str, digest: str) -> Share | None:
        """What is in force. Raises Permanent when it cannot be read."""
        path = self.path / f"{workload}-{digest}" / _RECORD
        try:
            with path.open("rb") as file:
                return Share.model_validate_json(file.read(RECORD_BYTES_MAX))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            msg = f"{path} cannot be read: {error}"
            raise Permanent(msg, code="traffic.record", fix="put the routing in force anew") from error

    def write(self, workload: str, digest: str, share: Share, files: Collection[str]) -> None:
        """Put these in force: for requests that come from now on, everything at once.

        Raises OSError when the disk is full. Then nothing has changed, but that everybody has the stable version where
        that was wanted: to take files away needs no room.
        """
        made = self.path / f".{workload}-{digest}.{random_hex(6)}"
        link = self.path / f".{workload}-{digest}.{random_hex(6)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            made.mkdir(mode=0o711)
            made.chmod(0o711)
            for name in files:
                os.close(os.open(made / name, flags, 0o644))
            with open(os.open(made / _RECORD, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(share.model_dump_json().encode())
            link.symlink_to(made.name)
            link.replace(self.path / f"{workload}-{digest}")
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            link.unlink(missing_ok=True)
            if not files:
                self._take_away(self.path / f"{workload}-{digest}")
            raise

    def _take_away(self, folder: Path) -> None:
        """All shares of other versions, and not the record: it is what was planned, and the next try writes it."""
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name != _RECORD:
                path.unlink(missing_ok=True)

    def close_connections(self, generation: str) -> None:
        """From now on workers of this generation close a connection after its answer."""
        (self.path / f"{_CLOSING}{generation}").touch(mode=0o644)

    def keep_connections(self, generation: str) -> None:
        """They no longer do."""
        (self.path / f"{_CLOSING}{generation}").unlink(missing_ok=True)

    def all_of(self, workload: str) -> Iterator[Share]:
        """What is in force, and what was before the last reload: requests may still be on their way in it."""
        for link in self.links():
            name, _, digest = link.rpartition("-")
            if name == workload and (share := self.read(workload, digest)) is not None:
                yield share

    def links(self) -> set[str]:
        """The names of all that workers may look at."""
        return {path.name for path in self.path.iterdir() if path.is_symlink() and not path.name.startswith(".")}

    def clean(self, wanted: Iterable[str]) -> None:
        """Delete what belongs to none of these links (`web-DIGEST`): no worker looks at it any more."""
        kept = set(wanted)
        kept |= {(self.path / name).readlink().name for name in kept if (self.path / name).is_symlink()}
        for entry in self.path.iterdir():
            if entry.name in kept or entry.name.startswith(_CLOSING):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
