"""Keeps processes running beyond Interlock's own end, each under a keeper, which is a small program of ours."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from interlock.adapters import keeper_tree
from interlock.adapters.keeper_start import KEEPER_MODULES, orders_for, start_keeper
from interlock.adapters.keeper_tree import (
    Seen,
    below,
    end_all,
    is_alive,
    look,
    look_at_all,
    marked,
    of_child,
    read_start,
)
from interlock.core.errors import Conflict, InterlockError, Invalid, NotFound, Permanent, Transient
from interlock.core.keeper import KeptPhase, KeptProcess, KeptState
from interlock.core.model import Frozen
from interlock.lib.clock import Clock
from interlock.lib.random_ids import random_hex

__all__ = ["KEEPER_MODULES", "OwnKeeper"]

TURN_SECONDS = 60.0
STOP_SECONDS = 25.0
"""Beyond the grace of what is stopped: the keeper kills a tree for 10 seconds before it tries again."""
LOOK_SECONDS = 0.005
RETRY_SECONDS, RETRY_SECONDS_MAX = 1.0, 60.0
"""Between two attempts to start the keeper of a process that cannot be started."""
STATE_BYTES_MAX = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,199}")
_FLOCK = "hhqqi4x"  # struct flock of fcntl(2), where file offsets have 64 bits


class _Told(Frozen):
    """What a keeper wrote about itself."""

    format: int
    phase: KeptPhase
    pid: int | None
    ticks: int | None
    boot: str
    started_at: float | None
    restarts: int
    last_exit: str | None
    orders_done: int = Field(ge=0)

    @property
    def child(self) -> tuple[int, int] | None:
        """The process itself, if it can still be there: numbers mean nothing after the machine was started anew."""
        boot = read_start("/proc/sys/kernel/random/boot_id", 64).strip().decode("ascii")
        if self.pid is None or self.ticks is None or self.boot != boot:
            return None
        return self.pid, self.ticks


@dataclass(frozen=True)
class _Failed:
    """Why a keeper could not be started, and when it is tried again (monotonic)."""

    error: InterlockError
    retry_at: float
    pause_seconds: float


class OwnKeeper:
    """One folder for each process: what it should be (`process.json`), what its keeper says, its logs.

    `program` gives the descriptor of the keeper's compiled program. Whatever changes something takes the turn of its
    folder, so that two threads, or two control planes for a moment, do one thing after the other.
    """

    def __init__(self, folder: Path, clock: Clock, program: Callable[[], int]) -> None:
        self._root = folder
        self._clock = clock
        self._program = program
        self._failed: dict[str, _Failed] = {}

    # What Actions and rooms ask for.

    def ensure(self, process: KeptProcess) -> KeptState:
        """Run it, or find it running."""
        name = process.name
        self._failed.pop(name, None)
        with self._turn(name, make=True):
            wanted, keeper = self._wanted(name), self._keeper_of(name)
            if keeper is not None and wanted is None:
                self._end_keeper(name, keeper, process.stop_grace_seconds)  # a stop that was broken off
                keeper = None
            if keeper is not None and wanted is not None:
                _require_same(wanted, process)
                if self._state(wanted).phase == "given_up":
                    self._tell_to_restart(wanted, keeper)
                return self._state(wanted)
            is_same = wanted is not None and _identity(wanted) == _identity(process)
            if not is_same:
                self._end_leftovers(name)
            self._write_wanted(process)
            try:
                self._launch(process, adopt=is_same)
            except InterlockError:
                if wanted is None:
                    self._place(name, "process.json").unlink()
                raise
            return self._state(process)

    def stop(self, name: str) -> None:
        """End it with its whole tree."""
        if not self._place(name).is_dir():
            return
        self._failed.pop(name, None)
        with self._turn(name):
            wanted, keeper = self._wanted(name), self._keeper_of(name)
            self._place(name, "process.json").unlink(missing_ok=True)  # first, so that nobody starts it again
            if keeper is not None:
                self._end_keeper(name, keeper, wanted.stop_grace_seconds if wanted is not None else 0.0)
            self._end_leftovers(name)
            self._place(name, "state.json").unlink(missing_ok=True)

    def restart(self, name: str) -> KeptState:
        """End it and start it again at once."""
        if not self._place(name).is_dir():
            raise _unknown(name)
        with self._turn(name):
            wanted, keeper = self._wanted(name), self._keeper_of(name)
            if wanted is None:
                raise _unknown(name)
            if keeper is None:
                self._end_leftovers(name)
                self._launch(wanted, adopt=False)
            else:
                self._tell_to_restart(wanted, keeper)
            return self._state(wanted)

    def state(self, name: str) -> KeptState | None:
        """How it fares."""
        wanted = self._wanted(name)
        return None if wanted is None else self._state(wanted)

    def members(self, name: str) -> frozenset[int]:
        """The tree below its keeper, which orphans fall to, and what carries its mark."""
        if not self._place(name).is_dir():
            return frozenset()
        keeper, told, processes = self._keeper_of(name), self._told(name), look_at_all()
        found = {seen.pid for seen in marked(self._mark(name), processes)}
        if keeper is not None:
            found |= {seen.pid for seen in below(keeper.pid, processes)}
        if told is not None and told.child is not None:
            found |= {seen.pid for seen in of_child(told.child, processes)}
        return frozenset(found)

    def states(self) -> tuple[KeptState, ...]:
        """All that are kept, by name."""
        found = (self.state(name) for name in self._names())
        return tuple(state for state in found if state is not None)

    def pids(self) -> tuple[int, ...]:
        """The keepers themselves: they are part of Interlock."""
        found = (self._keeper_of(name) for name in self._names())
        return tuple(keeper.pid for keeper in found if keeper is not None)

    def log_path(self, name: str) -> Path:
        """Where its output goes."""
        return self._place(name, "log")

    def revive(self) -> tuple[str, ...]:
        """Start a keeper for each process that should be kept and has none."""
        now, revived = self._clock.monotonic(), []
        for name in self._names():
            before = self._failed.get(name)
            if before is not None and now < before.retry_at:
                continue
            try:
                if self._revive(name):
                    revived.append(name)
                self._failed.pop(name, None)
            except InterlockError as error:
                pause = min(before.pause_seconds * 2, RETRY_SECONDS_MAX) if before is not None else RETRY_SECONDS
                self._failed[name] = _Failed(error, now + pause, pause)
        if self._failed:
            raise next(iter(self._failed.values())).error
        return tuple(revived)

    def forget(self, name: str) -> None:
        """Delete the logs of a process that is kept no longer."""
        folder = self._place(name)
        if not folder.is_dir():
            return
        with self._turn(name):
            if self._wanted(name) is not None or self._keeper_of(name) is not None:
                msg = f"{name} is still kept"
                raise Conflict(msg, code="keeper.kept", fix="stop it first")
            shutil.rmtree(folder)

    # What is known.

    def _names(self) -> list[str]:
        folders = self._root.iterdir() if self._root.is_dir() else ()
        return sorted(folder.name for folder in folders if _NAME.fullmatch(folder.name) and folder.is_dir())

    def _place(self, name: str, file: str = "") -> Path:
        if not _NAME.fullmatch(name):
            msg = f"{name!r} cannot be the name of a kept process"
            raise Invalid(msg, code="keeper.name")
        return self._root / name / file

    def _wanted(self, name: str) -> KeptProcess | None:
        """What should be kept; None when nothing should."""
        place = self._place(name, "process.json")
        try:
            return KeptProcess.model_validate_json(place.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValidationError as error:
            msg = f"{place} is damaged: {error.error_count()} fields of it are wrong"
            raise Permanent(msg, code="keeper.damaged", fix=f"look at it, then: rm {place}") from error

    def _write_wanted(self, process: KeptProcess) -> None:
        place = self._place(process.name, "process.json")
        new = place.with_suffix(".new")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                file.write(process.model_dump_json())
                file.flush()
                os.fsync(file.fileno())
            new.replace(place)
        except OSError as error:
            msg = f"{place} cannot be written: {error.strerror}"
            raise Transient(msg, code="keeper.disk", fix="make room on that disk", effect_sent=False) from error

    def _told(self, name: str) -> _Told | None:
        """None where its keeper wrote nothing (yet), or nothing that can be read: it is asked the kernel then."""
        try:
            with self._place(name, "state.json").open("rb") as file:
                return _Told.model_validate(json.loads(file.read(STATE_BYTES_MAX)))
        except (FileNotFoundError, ValueError):
            return None

    def _keeper_of(self, name: str) -> Seen | None:
        """Who holds the lock of its folder: the kernel knows, whatever files say."""
        place = self._place(name, "lock")
        try:
            lock = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
        finally:
            os.close(lock)
        if kind == fcntl.F_UNLCK:
            return None
        if pid <= 0:
            msg = f"the keeper of {name} runs where it cannot be seen from here (in another container?)"
            raise Permanent(msg, code="keeper.elsewhere", fix=f"fuser -v {place}   # where it runs")
        return look(pid)

    def _state(self, wanted: KeptProcess) -> KeptState:
        told = self._told(wanted.name)
        keeper = self._keeper_of(wanted.name)
        child = told.child if told is not None else None
        started = told.started_at if told is not None else None
        runs = child is not None and is_alive(*child)
        phase: KeptPhase = "starting" if keeper is not None else "stopped"
        if runs:
            phase = "running"  # also without a keeper, for the moment until it has one again
        elif keeper is not None and told is not None:
            phase = "waiting" if told.phase == "running" else told.phase
        return KeptState(
            process=wanted,
            phase=phase,
            pid=child[0] if runs and child is not None else None,
            started_at=datetime.fromtimestamp(started, UTC) if started is not None else None,
            restarts=0 if told is None else told.restarts,
            last_exit=None if told is None else told.last_exit,
        )

    # What has effects. The turn is ours.

    @contextlib.contextmanager
    def _turn(self, name: str, *, make: bool = False, seconds: float = TURN_SECONDS) -> Iterator[None]:
        folder = self._place(name)
        if make:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        try:
            turn = os.open(folder / "turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError as error:  # forgotten in this very moment
            raise _unknown(name) from error
        try:
            limit = self._clock.monotonic() + seconds
            while not _is_taken(turn):
                if self._clock.monotonic() >= limit:
                    msg = f"somebody else has been changing {name} for {seconds:.0f} seconds"
                    raise Transient(msg, code="keeper.busy", effect_sent=False)
                keeper_tree.pause(LOOK_SECONDS)
            yield
        finally:
            os.close(turn)

    def _mark(self, name: str) -> bytes:
        """Ours alone: another installation may have the same paths in another container on this machine."""
        place = self._root / "mark"
        if not place.exists():
            new = self._root / f"mark.{random_hex(8)}"
            new.write_bytes(random_hex(8).encode())
            with contextlib.suppress(FileExistsError):
                os.link(new, place)  # unlike a rename, the first one counts, and it is whole
            new.unlink()
        return place.read_bytes() + b":" + name.encode("ascii")

    def _launch(self, process: KeptProcess, *, adopt: bool) -> None:
        """A keeper, until it says that the process was started, or that it has it."""
        told = self._told(process.name) if adopt else None
        orders = orders_for(
            process,
            self._mark(process.name),
            adopt=told.child if told is not None else None,
            restarts=told.restarts if told is not None else 0,
            last_exit=told.last_exit if told is not None else None,
            started_at=told.started_at if told is not None else None,
        )
        start_keeper(self._program(), self._place(process.name), process, orders)

    def _revive(self, name: str) -> bool:
        """Whether it was necessary. What somebody is just changing is left to him."""
        wanted, keeper = self._wanted(name), self._keeper_of(name)
        if (wanted is None) == (keeper is None):
            return False
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._turn(name, seconds=0))
            except Transient:
                return False
            wanted, keeper = self._wanted(name), self._keeper_of(name)
            if wanted is not None and keeper is None:
                self._launch(wanted, adopt=True)
                return True
            if wanted is None and keeper is not None:
                self._end_keeper(name, keeper, 0.0)  # a stop that was broken off
                self._end_leftovers(name)
        return False

    def _tell_to_restart(self, wanted: KeptProcess, keeper: Seen) -> None:
        before = self._told(wanted.name)
        done = before.orders_done if before is not None else 0
        limit = self._clock.monotonic() + wanted.stop_grace_seconds + STOP_SECONDS
        keeper_tree.send(*keeper.key, signal.SIGHUP)
        while True:
            told = self._told(wanted.name)
            if told is not None and told.orders_done > done:
                return
            if not is_alive(*keeper.key) or self._clock.monotonic() >= limit:
                msg = f"the keeper of {wanted.name} does not say that it started the process again"
                raise Transient(msg, code="keeper.silent", fix=f"see {self.log_path(wanted.name)}")
            keeper_tree.pause(LOOK_SECONDS)

    def _end_keeper(self, name: str, keeper: Seen, grace_seconds: float) -> None:
        """Let it end what it keeps; one that does not is killed, and what it leaves is killed by us."""
        try:
            if keeper_tree.send(*keeper.key, signal.SIGTERM):
                keeper_tree.send(*keeper.key, signal.SIGCONT)  # somebody may have stopped it
                if not self._is_gone(keeper, grace_seconds + STOP_SECONDS):
                    keeper_tree.send(*keeper.key, signal.SIGKILL)
                    self._is_gone(keeper, STOP_SECONDS)
        except PermissionError as error:
            msg = f"the keeper of {name} (process {keeper.pid}) belongs to another account"
            raise Permanent(msg, code="keeper.not_permitted", fix="run Interlock as that account") from error

    def _is_gone(self, keeper: Seen, seconds: float) -> bool:
        limit = self._clock.monotonic() + seconds
        while is_alive(*keeper.key):
            if self._clock.monotonic() >= limit:
                return False
            keeper_tree.pause(LOOK_SECONDS)
        return True

    def _end_leftovers(self, name: str) -> None:
        """What is alive of a process that has no keeper."""
        told, mark = self._told(name), self._mark(name)
        child = told.child if told is not None else None

        def members() -> Iterator[Seen]:
            processes = look_at_all()
            if child is not None:
                yield from of_child(child, processes)
            yield from marked(mark, processes)

        survivors = end_all(members)
        if survivors:
            msg = f"{len(survivors)} processes of {name} do not die: {', '.join(map(str, survivors[:20]))}"
            raise Transient(msg, code="keeper.survivors", fix="look at them with ps; then ask again")


def _is_taken(turn: int) -> bool:
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identity(process: KeptProcess) -> tuple[object, ...]:
    return process.argv, process.environment, process.folder


def _require_same(wanted: KeptProcess, process: KeptProcess) -> None:
    if _identity(wanted) == _identity(process):
        return
    names = [name for name in ("argv", "environment", "folder") if getattr(wanted, name) != getattr(process, name)]
    msg = f"{process.name} is kept already, with another {' and another '.join(names)}"
    raise Conflict(msg, code="keeper.other", fix="stop it first")


def _unknown(name: str) -> NotFound:
    msg = f"nothing is kept under the name {name}"
    return NotFound(msg, code="keeper.unknown")
