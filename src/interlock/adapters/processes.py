"""Turns a process id or a pattern of names into the processes meant, and tells to what each of them belongs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from interlock.adapters.names import require_ascii, require_visible, unique
from interlock.core.errors import Invalid, NotFound, Permanent
from interlock.core.model import JsonObject
from interlock.core.plan import Target

PROC = Path("/proc")
OWN_MARK = "interlock:process"
PROCESSES_MAX = 256
FILE_BYTES_MAX = 64 * 1024
ANCESTORS_MAX = 64

_PID = re.compile(r"(?P<pid>[0-9]{1,10})(?::(?P<start>[0-9]{1,20}))?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .:@/=-]{0,254}")
_EXACT_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .:@/+=-]{0,254}")
_CONTAINER = re.compile(r"(?:^|[/:-])(?:docker-|libpod-|cri-containerd-|crio-)?([0-9a-f]{64})(?:\.scope)?(?:$|/)")
_UNIT = re.compile(r"[^/]+\.(?:service|scope|socket|mount|swap)")
_PARENT_FIELD = 1  # fields of /proc/PID/stat, counted from the one after the command name (proc_pid_stat(5))
_START_FIELD = 19
_COMMAND_NAME_CHARACTERS = 15


@dataclass(frozen=True)
class Process:
    """One process as /proc shows it; what may not be read is empty.

    `start_ticks` is the start in clock ticks after boot: a pid alone may be given to another process. `unit` and
    `container` come from its cgroup. `working_folder` is read for recognising Interlock's own processes only.
    """

    pid: int
    start_ticks: int
    parent: int
    name: str
    arguments: tuple[str, ...]
    executable: str
    working_folder: str
    unit: str
    container: str

    @property
    def id(self) -> str:
        """`1234:56789`: pid and start."""
        return f"{self.pid}:{self.start_ticks}"

    @property
    def words(self) -> tuple[str, ...]:
        """The names a person would call it by."""
        first = self.arguments[0] if self.arguments else ""
        # A server writes what it does into its first argument: `postgres: checkpointer`, `nginx: master process`.
        title = first.partition(":")[0] if ":" in first else PurePosixPath(first).name
        executable = self.executable.removesuffix(" (deleted)")
        return unique((self.name, title, PurePosixPath(executable).name, executable))

    @property
    def places(self) -> tuple[str, ...]:
        """The unit and the container it runs in."""
        return unique((self.unit and f"unit:{self.unit}", self.container and f"container:{self.container}"))

    def target(self, marks: Iterable[str] = ()) -> Target:
        """Its identity and all its names."""
        return Target(kind="process", id=self.id, names=unique((str(self.pid), *self.words, *self.places, *marks)))


class ProcessTargets:
    """Processes of this machine.

    Args:
        own_pids: The pids of Interlock's resident process and of its database's postmaster, asked for anew each time.
        own_folders: Where Interlock's state, sockets and programs lie; whoever runs from or works in one is its own.
        proc: The proc file system.

    Context key `match`: `exact` (the whole name), `full` (the command line too), else any part of the name.
    """

    kinds: tuple[str, ...] = ("process",)

    def __init__(
        self,
        own_pids: Callable[[], Iterable[int]] = tuple,
        own_folders: Iterable[str] = (),
        *,
        proc: Path = PROC,
    ) -> None:
        self._own_pids = own_pids
        self._own_folders = tuple(os.path.realpath(folder) for folder in own_folders)
        self._proc = proc

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """The process with that pid (`1234`, or `1234:56789` with its start), or all whose name holds a word.

        A word is searched without regard to case and to a program's own filters (user, terminal), and a dot is any
        character, so that nothing is missed that `pkill` would hit. Other regular expressions are refused: two programs
        read them differently.

        Raises: Invalid (a process group, a pattern, more than a plan can show), NotFound, Permanent (/proc cannot be
        read).
        """
        require_visible(kind, name)
        if name.startswith("-") or (name.isascii() and name.isdecimal() and int(name) == 0):
            msg = f"{name} stands for a group of processes"
            raise Invalid(msg, code="process.group", fix="name each process by its pid")
        found_pid = _PID.fullmatch(name)
        if found_pid is not None:
            process = self._read(int(found_pid["pid"]))
            if process is None or (found_pid["start"] and process.id != name):
                msg = f"there is no process {name}"
                raise NotFound(msg, code="process.unknown", fix="ps -e")
            return (self._target(process, self._marks()),)
        how = str(context.get("match", ""))
        require_ascii(kind, name, _EXACT_WORD if how == "exact" else _WORD)
        marks = self._marks()
        found = [process for process in self._all() if _is_meant(process, name.lower(), how)]
        if not found:
            msg = f"there is no process called {name}"
            raise NotFound(msg, code="process.unknown", fix="ps -e")
        _require_few(len(found), name)
        return tuple(self._target(process, marks) for process in found)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """Descendants that run another program than the process itself: what a supervisor runs ends with it.

        Workers of the same program come and go, and are the process itself as far as anybody is concerned.

        Raises: Invalid (more than a plan can show), Permanent.
        """
        pid = int(target.id.partition(":")[0])
        processes = {process.pid: process for process in self._all()}
        root = processes.get(pid)
        if root is None or root.id != target.id:
            return ()
        marks = self._marks()
        found: dict[tuple[str, str], Process] = {(root.executable, root.name): root}
        for process in _descendants(pid, processes):
            found.setdefault((process.executable, process.name), process)
        _require_few(len(found), target.id)
        return tuple(self._target(process, marks) for process in found.values() if process is not root)

    def everything(self, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """Interlock's own processes and nothing else: a machine's processes are too many to show."""
        marks = self._marks()
        own = (process for process in self._all() if self._is_own(process, marks))
        return tuple(process.target([OWN_MARK]) for process in own)

    def own_places(self) -> frozenset[str]:
        """The keys (`unit:interlock.service`, `container:ID`) of what Interlock's own processes run in: to stop one of
        those is to stop Interlock."""
        found = (self._read(pid) for pid in self._marks())
        places = (place for process in found if process is not None for place in process.places)
        return frozenset(places)

    def _target(self, process: Process, own: frozenset[int]) -> Target:
        return process.target([OWN_MARK] if self._is_own(process, own) else [])

    def _marks(self) -> frozenset[int]:
        return frozenset(self._own_pids())

    def _is_own(self, process: Process, own: frozenset[int]) -> bool:
        """By pid or descent, by the folder it works in or runs from, or by a folder of ours on its command line."""
        places = (process.working_folder, process.executable, *process.arguments[1:])
        if any(_lies_within(place.rpartition("=")[2], folder) for place in places for folder in self._own_folders):
            return True
        current: Process | None = process
        for _ in range(ANCESTORS_MAX):
            if current is None or current.pid in own:
                break
            current = self._read(current.parent)
        return current is not None and current.pid in own

    def _all(self) -> Iterator[Process]:
        try:
            pids = sorted(int(name) for name in os.listdir(self._proc) if name.isdecimal())  # noqa: PTH208 - names only
        except OSError as error:
            msg = f"{self._proc} cannot be read: {error.strerror}"
            raise Permanent(msg, code="process.unreadable", fix="mount /proc") from error
        for pid in pids:
            process = self._read(pid)
            if process is not None:
                yield process

    def _read(self, pid: int) -> Process | None:
        """One process; None when there is none, and for a zombie, which nothing can touch any more."""
        folder = self._proc / str(pid)
        line = _content(folder / "stat")
        if line is None:
            return None
        name = line[line.find("(") + 1 : line.rfind(")")]
        fields = line[line.rfind(")") + 2 :].split()
        if fields[0] in {"Z", "X", "x"}:
            return None
        groups = _content(folder / "cgroup") or ""
        return Process(
            pid=pid,
            start_ticks=int(fields[_START_FIELD]),
            parent=int(fields[_PARENT_FIELD]),
            name=_visible(name),
            arguments=tuple(_visible(part) for part in (_content(folder / "cmdline") or "").split("\0") if part),
            executable=_link(folder / "exe"),
            working_folder=_link(folder / "cwd"),
            unit=_unit_of(groups),
            container=_container_of(groups),
        )


def _is_meant(process: Process, word: str, how: str) -> bool:
    names = [name.lower() for name in process.words]
    if how == "exact":
        # The kernel keeps only the beginning of a name; killall compares that far.
        return word in names or (len(word) > _COMMAND_NAME_CHARACTERS and word[:_COMMAND_NAME_CHARACTERS] in names)
    if how == "full":
        names.append(" ".join(process.arguments).lower())
    # What may stand in a word is what it says in every kind of regular expression; only a dot is any character.
    pattern = re.compile(re.escape(word).replace(r"\.", "."))
    return any(pattern.search(name) for name in names)


def _descendants(pid: int, processes: Mapping[int, Process]) -> Iterator[Process]:
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    waiting = [pid]
    while waiting:
        for process in children.pop(waiting.pop(), ()):
            waiting.append(process.pid)
            yield process


def _content(path: Path) -> str | None:
    """The beginning of a file of /proc; None when the process is gone or does not show it."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return None


def _link(path: Path) -> str:
    """Where a link of /proc leads, as the kernel spells it; empty when that may not be read."""
    try:
        return _visible(str(path.readlink()))
    except OSError:
        return ""


def _visible(text: str) -> str:
    """The same text without what a reader cannot see: a process chooses its own name."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _unit_of(groups: str) -> str:
    """The unit of the system manager: of `/user.slice/user@1000.service/app.service` it is the first."""
    for line in groups.splitlines():
        hierarchy, _, path = line.partition(":")[2].partition(":")
        if hierarchy in {"", "name=systemd"}:
            for part in path.split("/"):
                if _UNIT.fullmatch(part) and not _CONTAINER.search(part):
                    return part
    return ""


def _container_of(groups: str) -> str:
    found = [match for line in groups.splitlines() for match in _CONTAINER.findall(line.rpartition(":")[2])]
    return found[-1] if found else ""


def _lies_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _require_few(count: int, name: str) -> None:
    if count > PROCESSES_MAX:
        msg = f"{name} stands for {count} processes, more than a plan can show"
        raise Invalid(msg, code="process.too_wide", fix="name them by pid")
