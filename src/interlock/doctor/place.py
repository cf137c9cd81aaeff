"""Looks at the folders and files of an installation: who owns them, who may change them, how much room there is."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from interlock.core.errors import InterlockError
from interlock.doctor.model import Finding, doubtful, sound, wrong
from interlock.engine.trusted_file import read_trusted
from interlock.lib.strict_yaml import BYTES_MAX

FREE_BYTES_MIN = 512 * 1024 * 1024
FREE_BYTES_GOOD = 2 * 1024 * 1024 * 1024
FREE_INODES_MIN = 0.01
FREE_INODES_GOOD = 0.05
OTHERS = stat.S_IRWXG | stat.S_IRWXO

_WHY_PRIVATE = "keys, credentials and bodies lie there: whoever reads them can sign, decrypt and log in"
_WHY_ROOM = "without room nothing can be recorded, and what cannot be recorded does not happen"


def examine_files(files: tuple[Path, ...]) -> Iterator[Finding]:
    """interlock.yaml and its overlays: only the operator may write them."""
    for file in files:
        try:
            read_trusted(file, BYTES_MAX)
        except InterlockError as error:
            why = "whoever can change this file decides what is allowed"
            yield wrong("rights", error.message, why, error.fix or f"ls -l {file}")
        else:
            yield sound("rights", f"{file} is the operator's alone")


def examine_state(state_folder: Path) -> Iterator[Finding]:
    """The state folder and all keys and credentials in it belong to this account alone."""
    if not state_folder.exists():
        yield sound("rights", f"{state_folder} is not there yet: it is made at the first start")
        return
    loose = list(_loose(state_folder))
    yield from loose
    if not loose:
        yield sound("rights", f"{state_folder} belongs to this account alone")


def _loose(state_folder: Path) -> Iterator[Finding]:
    private = [state_folder]
    for name in ("keys", "credentials"):
        folder = state_folder / name
        private += [folder, *sorted(folder.iterdir())] if folder.is_dir() else []
    for path in private:
        facts = path.lstat()
        if path.suffix == ".vkey":
            continue  # the public half is there to be copied
        if facts.st_uid not in {0, os.geteuid()}:
            yield wrong(
                "rights", f"{path} belongs to account {facts.st_uid}", _WHY_PRIVATE, f"chown {os.geteuid()} {path}"
            )
        elif facts.st_mode & OTHERS and not stat.S_ISLNK(facts.st_mode):
            yield wrong("rights", f"others may use {path}", _WHY_PRIVATE, f"chmod go= {path}")


def examine_runtime(runtime_folder: Path, door: Path, *, shared: bool, running: bool) -> Iterator[Finding]:
    """The folder of sockets, and a socket that nobody answers at any more."""
    if not runtime_folder.exists():
        yield sound("socket", "no socket: Interlock does not run here")
        return
    facts = runtime_folder.lstat()
    allowed = 0o711 if shared else 0o700
    if not stat.S_ISDIR(facts.st_mode) or stat.S_IMODE(facts.st_mode) & ~allowed:
        why = "whoever can write there can put a door of his own in the place of ours"
        yield wrong("socket", f"{runtime_folder} is open to others", why, f"chmod {allowed:o} {runtime_folder}")
    if not door.exists():
        if running:
            why = "clients find the process by its socket"
            yield wrong("socket", f"{door} is gone while the process runs", why, "interlock stop; interlock status")
        return
    if _answers(door):
        yield sound("socket", f"{door} answers")
    elif running:
        why = "no ask is answered"
        yield wrong(
            "socket", f"the process that serves {door} does not answer", why, "interlock stop; interlock status"
        )
    else:
        why = "nothing listens there; the next start replaces it, and until then it only misleads"
        yield doubtful("socket", f"{door} is left over from a process that is gone", why, f"rm {door}")


def examine_left_sockets(base: Path, own: Path) -> Iterator[Finding]:
    """Sockets of other projects of this account whose process is gone."""
    for door in sorted(base.glob("*/door.sock")) if base.is_dir() else ():
        if door.parent != own and door.lstat().st_uid == os.geteuid() and not _answers(door):
            why = "nothing listens there any more; it was left by a process that was killed"
            yield doubtful("socket", f"{door} is left over", why, f"rm {door}")


def _answers(door: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(str(door))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True  # so many wait there that its queue is full, or it is closed to this account
    return True


def examine_room(state_folder: Path) -> Iterator[Finding]:
    """Bytes and inodes that are free where the state lies."""
    folder = next(each for each in (state_folder, *state_folder.parents) if each.exists())
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    text = f"{free / 2**30:.1f} GiB are free where {folder} lies"
    command = f"du -xh --max-depth=2 {folder} | sort -h | tail"
    if free < FREE_BYTES_MIN:
        yield wrong("disk", text, _WHY_ROOM, command)
    elif free < FREE_BYTES_GOOD:
        yield doubtful("disk", text, _WHY_ROOM, command)
    else:
        yield sound("disk", text)
    share = facts.f_favail / facts.f_files if facts.f_files else 1.0  # some file systems count none
    text = f"{share:.0%} of the inodes are free where {folder} lies"
    command = f"df -i {folder}; find {folder} -xdev -type d -size +1M"
    if share < FREE_INODES_MIN:
        yield wrong("disk", text, _WHY_ROOM, command)
    elif share < FREE_INODES_GOOD:
        yield doubtful("disk", text, _WHY_ROOM, command)
    else:
        yield sound("disk", text)
