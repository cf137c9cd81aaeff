"""The two nginx there can be: one of ours, kept running by the keeper, and an operator's that includes our files."""

from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import signal
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from interlock.adapters.keeper_tree import Seen
from interlock.adapters.nginx_configuration import Place, Structure, included_configuration, own_configuration
from interlock.adapters.nginx_processes import Worker, master_of, orphans_in, tell, workers_of
from interlock.adapters.open_files import has_open
from interlock.adapters.program_output import CLEAN_ENVIRONMENT, ProgramOutput, read_program
from interlock.core.errors import Conflict, InterlockError, NotFound, Permanent, Transient
from interlock.core.keeper import Keeper, KeptProcess
from interlock.lib.random_ids import random_hex

KEPT_NAME = "nginx"
TEST_SECONDS = 20.0
DUMP_BYTES_MAX = 32 * 1024 * 1024
WORDS_CHARACTERS_MAX = 2000
ERROR_BYTES_MAX = 256 * 1024
FILES_MAX = 16_384
LOG_BYTES_MAX = 64 * 1024 * 1024
_HERE = "/proc/self/cwd"
"""The folder in which nginx was started: workers that became another account can enter it, whatever lies above it."""
_EMERGENCY = re.compile(r"\[emerg\](?: \d+#\d+:)? (?P<words>.*)")
_STILL_TRYING = re.compile(r"bind\(\) to ")
_CONFIGURATION_FILE = re.compile(r"^# configuration file (.+):$", re.MULTILINE)
_COMMENT = re.compile(r"#.*$", re.MULTILINE)
_PID_LINE = re.compile(r"(?:^|[\s;}])pid\s+([^;\s]+)\s*;")
_INCLUDE = re.compile(r"(?:^|[\s;{}])include\s+([^;]+?)\s*;")
_UNKNOWN_OF_OURS = re.compile(r'unknown "interlock_\w+" variable')
_BUILT_PID = re.compile(r"--pid-path=(\S+)")
_BUILT_PREFIX = re.compile(r"--prefix=(\S+)")

Restore = Callable[[], None]


class NginxHost(Protocol):
    """An nginx that takes our configuration. Calls raise Transient and Permanent as `DataPlane` says."""

    folder: Path
    """Where shares and logs lie."""
    is_ours: bool
    """Whether it is for us to start and to stop."""

    def render(self, structures: Sequence[Structure]) -> Mapping[str, str]:
        """The files that tell it so."""
        ...

    def installed(self) -> Mapping[str, str]:
        """The files that it was told last; none before the first time."""
        ...

    def install(self, files: Mapping[str, str]) -> Restore:
        """Let nginx test these, and put them where it reads them next. Returns how to take that back."""
        ...

    def require_read(self, names: Sequence[str]) -> None:
        """Raises Permanent when files of these names would not be read."""
        ...

    def master(self) -> Seen | None:
        """The process that reads the configuration; None when there is none."""
        ...

    def workers(self) -> list[Worker]:
        """All workers, those without a master too."""
        ...

    def start(self) -> None:
        """Let it run, with what is installed. Returns when it was started."""
        ...

    def stop(self) -> None:
        """Let it run no more, where it is ours."""
        ...

    def forget(self) -> None:
        """What it was told last: nothing is installed any more."""
        ...

    def reload(self, master: Seen) -> None:
        """Let it read its files anew. Returns before it has."""
        ...

    def complaints(self, since: int) -> str | None:
        """Why it does not take what it read after it had said so much; None as long as it has not refused."""
        ...

    def said(self) -> int:
        """How much it has said."""
        ...

    def rotate(self, log: Path) -> None:
        """Begin a log anew that has grown too long."""
        ...


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Whole or not at all, also when the machine fails."""
    new = path.with_name(f".{path.name}.{random_hex(6)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


class OwnNginx:
    """An nginx of ours, below a folder of ours; it goes on when Interlock ends.

    Args:
        folder: Its prefix.
        keeper: Keeps it running.
        program: The absolute path of nginx, asked for when it is needed; None where there is none.
    """

    is_ours = True

    def __init__(self, folder: Path, keeper: Keeper, program: Callable[[], str | None]) -> None:
        self.folder = folder
        self._keeper = keeper
        self._program = program
        self._place = Place(_HERE, is_edge=False)

    def render(self, structures: Sequence[Structure]) -> Mapping[str, str]:
        """One file."""
        files_max = min(FILES_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        return {"nginx.conf": own_configuration(structures, self._place, _worker_account(), files_max)}

    def installed(self) -> Mapping[str, str]:
        """As the Protocol says."""
        try:
            return {"nginx.conf": (self.folder / "nginx.conf").read_text(encoding="utf-8")}
        except FileNotFoundError:
            return {}

    def install(self, files: Mapping[str, str]) -> Restore:
        """As the Protocol says."""
        (self.folder / "temporary").mkdir(mode=0o711, exist_ok=True)
        before, path = self.installed(), self.folder / "nginx.conf"
        candidate = self.folder / f"candidate-{random_hex(6)}.conf"
        write_whole(candidate, files["nginx.conf"])
        try:
            argv = [self._required_program(), "-t", "-q", "-p", f"{self.folder}/", "-c", str(candidate)]
            answer = read_program(argv, timeout_seconds=TEST_SECONDS, folder=str(self.folder), decode_errors="replace")
            if answer.exit_code != 0:
                raise refusal(answer)
            candidate.replace(path)
        finally:
            candidate.unlink(missing_ok=True)

        def restore() -> None:
            if before:
                write_whole(path, before["nginx.conf"])
            else:
                path.unlink(missing_ok=True)

        return restore

    def require_read(self, names: Sequence[str]) -> None:
        """It is told where its one file lies."""

    def master(self) -> Seen | None:
        """As the Protocol says."""
        return master_of(self.folder / "nginx.pid")

    def workers(self) -> list[Worker]:
        """As the Protocol says."""
        return workers_of(self.master(), self.folder)

    def start(self) -> None:
        """Workers without a master keep the port; they finish what they have begun."""
        for worker in orphans_in(self.folder):
            if not worker.is_leaving:
                tell(worker, signal.SIGQUIT)
        argv = (self._required_program(), "-p", f"{self.folder}/", "-c", f"{self.folder}/nginx.conf")
        process = KeptProcess(
            name=KEPT_NAME,
            argv=argv,
            folder=str(self.folder),
            stop_signal="SIGQUIT",
            stop_grace_seconds=10.0,
            restart_pause_seconds=0.05,
            restart_pause_seconds_max=2.0,
            restarts_per_hour_max=1000,
        )
        try:
            self._keeper.ensure(process)
        except Conflict:  # nginx lies elsewhere since; nothing of the one before runs any more
            self._keeper.stop(KEPT_NAME)
            self._keeper.ensure(process)

    def stop(self) -> None:
        """As the Protocol says."""
        self._keeper.stop(KEPT_NAME)

    def forget(self) -> None:
        """As the Protocol says."""
        (self.folder / "nginx.conf").unlink(missing_ok=True)

    def reload(self, master: Seen) -> None:
        """As the Protocol says."""
        tell(master, signal.SIGHUP)

    def complaints(self, since: int) -> str | None:
        """From its error log; while it tries to bind again it has not refused."""
        try:
            with (self.folder / "logs" / "error.log").open("rb") as file:
                file.seek(since)
                text = file.read(ERROR_BYTES_MAX).decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        found = [match["words"] for match in _EMERGENCY.finditer(text)]
        if all(_STILL_TRYING.match(words) for words in found):
            return None
        return "; ".join(dict.fromkeys(found))[:WORDS_CHARACTERS_MAX]

    def said(self) -> int:
        """The length of its error log."""
        try:
            return (self.folder / "logs" / "error.log").stat().st_size
        except FileNotFoundError:
            return 0

    def rotate(self, log: Path) -> None:
        """The file is renamed; nginx begins a new one when it is told so, as it is when somebody else took it away."""
        master = self.master()
        if master is None:
            return
        if _is_long(log):
            log.replace(log.with_name(f"{log.name}.1"))
        elif has_open(master.pid, log):
            return
        tell(master, signal.SIGUSR1)

    def _required_program(self) -> str:
        program = self._program()
        if program is None:
            msg = "there is no nginx on this machine"
            raise Permanent(
                msg, code="traffic.no_nginx", fix="apt install nginx-light (or your system's nginx package)"
            )
        return program


class IncludedNginx:
    """An operator's nginx, whose configuration includes `FOLDER/current/http.*` and `FOLDER/current/WORKLOAD.*`.

    It is never started or stopped by us, and none of its other files is touched.

    Args:
        folder: Ours to write, his workers' to enter.
        command: nginx as he runs it, by its absolute path, with sudo before it where that is needed.
    """

    is_ours = False

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder
        self._command = tuple(command)
        self._pid_file: Path | None = None

    def render(self, structures: Sequence[Structure]) -> Mapping[str, str]:
        """One file for all, and one for each workload."""
        return included_configuration(structures, Place(str(self.folder), is_edge=True))

    def installed(self) -> Mapping[str, str]:
        """As the Protocol says."""
        current = self.folder / "current"
        if not current.is_dir():
            return {}
        return {path.name: path.read_text(encoding="utf-8") for path in current.iterdir()}

    def install(self, files: Mapping[str, str]) -> Restore:
        """What nginx would read is looked at as well: a file that is not included has no effect."""
        self._require_open()
        current, before = self.folder / "current", self._generation()
        made = self.folder / f".generation-{random_hex(6)}"
        made.mkdir(mode=0o755)
        made.chmod(0o755)
        for name, text in files.items():
            write_whole(made / name, text, 0o644)
        self._lead_to(made.name)

        def restore() -> None:
            if before is not None:
                self._lead_to(before)
            else:
                current.unlink(missing_ok=True)

        try:
            dump = self._dump()
            read = set(_CONFIGURATION_FILE.findall(dump))
            unread = [
                name for name in files if not any(path.endswith(f"/{self.folder.name}/current/{name}") for path in read)
            ]
            if unread:
                raise self._not_included(unread)
        except InterlockError as error:
            restore()
            if _UNKNOWN_OF_OURS.search(error.message):  # half of it is not read
                unread = _unincluded(self.folder, files, self._dump())  # as it was before, so that it is shown
                raise self._not_included(unread or [*files]) from error
            raise
        self._clean({made.name, before})
        return restore

    def require_read(self, names: Sequence[str]) -> None:
        """As the Protocol says: by the include lines of his configuration, as long as there is nothing to include."""
        unread = _unincluded(self.folder, names, self._dump())
        if unread:
            raise self._not_included(unread)

    def master(self) -> Seen | None:
        """As the Protocol says."""
        if self._pid_file is None:
            self._dump()
        return master_of(self._pid_file) if self._pid_file is not None else None

    def workers(self) -> list[Worker]:
        """As the Protocol says."""
        return workers_of(self.master())

    def start(self) -> None:
        """Not ours to do. Raises Transient."""
        msg = f"the nginx that includes {self.folder} does not run"
        raise Transient(msg, code="traffic.proxy_silent", effect_sent=False, fix="systemctl start nginx")

    def stop(self) -> None:
        """Not ours to do."""

    def forget(self) -> None:
        """It stays: his nginx may include it."""

    def reload(self, master: Seen) -> None:
        """With his own command."""
        del master
        answer = read_program([*self._command, "-s", "reload"], timeout_seconds=TEST_SECONDS, decode_errors="replace")
        if answer.exit_code != 0:
            raise refusal(answer)

    def complaints(self, since: int) -> str | None:
        """He knows where its error log is; that it takes nothing is known by its workers."""
        del since
        return None

    def said(self) -> int:
        """As above."""
        return 0

    def rotate(self, log: Path) -> None:
        """Cut off, because his nginx would give a new file to another account; what nobody has read by then is lost."""
        if _is_long(log):
            os.truncate(log, 0)

    def _generation(self) -> str | None:
        current = self.folder / "current"
        return current.readlink().name if current.is_symlink() else None

    def _lead_to(self, name: str) -> None:
        link = self.folder / f".current-{random_hex(6)}"
        link.symlink_to(name)
        link.replace(self.folder / "current")

    def _clean(self, kept: set[str | None]) -> None:
        for path in self.folder.glob(".generation-*"):
            if path.name not in kept:
                for file in path.iterdir():
                    file.unlink(missing_ok=True)
                path.rmdir()

    def _dump(self) -> str:
        """His whole configuration, tested. Raises Permanent with nginx's words."""
        answer = read_program(
            [*self._command, "-T"],
            timeout_seconds=TEST_SECONDS,
            output_bytes_max=DUMP_BYTES_MAX,
            environment=CLEAN_ENVIRONMENT,
            decode_errors="replace",
        )
        if answer.exit_code != 0:
            raise refusal(answer)
        if found := _PID_LINE.search(_COMMENT.sub("", answer.stdout)):
            self._pid_file = Path(found[1])
        if found is None or not Path(found[1]).is_absolute():
            self._pid_file = self._built_pid_file(found[1] if found else None)
        return answer.stdout

    def _built_pid_file(self, name: str | None) -> Path:
        built = read_program([*self._command, "-V"], timeout_seconds=TEST_SECONDS, decode_errors="replace").stderr
        prefix = _BUILT_PREFIX.search(built)
        path = Path(name) if name else Path(found[1] if (found := _BUILT_PID.search(built)) else "logs/nginx.pid")
        return Path(prefix[1] if prefix else "/usr/local/nginx") / path

    def _not_included(self, names: Sequence[str]) -> Permanent:
        """The message names the lines as well: it is what a release tells of it."""
        lines = " and ".join(
            f"`include {self.folder}/current/{name.removesuffix('conf')}*;` "
            f"in its {'http' if name == 'http.conf' else 'server'} block"
            for name in names
        )
        msg = f"nginx does not read {self.folder}/current: it lacks {lines}; nothing was changed"
        return Permanent(msg, code="nginx.not_included", fix=f"write {lines}, and reload it: nginx -s reload")

    def _require_open(self) -> None:
        """Its workers, of another account, look for shares here."""
        for place in (self.folder, *self.folder.parents):
            if not place.stat().st_mode & stat.S_IXOTH:
                msg = f"workers of nginx cannot enter {place}"
                raise Permanent(msg, code="nginx.closed_folder", fix=f"chmod o+x {place}, or choose another folder")


def refusal(answer: ProgramOutput) -> Permanent:
    """It does not want it, in its own words."""
    said = [match["words"] for match in _EMERGENCY.finditer(answer.stderr)] or answer.stderr.splitlines()[-3:]
    msg = f"nginx refuses the configuration: {'; '.join(said)[:WORDS_CHARACTERS_MAX]}"
    return Permanent(msg, code="traffic.refused", fix="mend what it names; what was in force before still is")


def _unincluded(folder: Path, names: Iterable[str], configuration: str) -> list[str]:
    """Which of these files in its folder `current` no include line speaks of; a relative one may lie anywhere."""
    patterns = [each.strip("\"'") for each in _INCLUDE.findall(_COMMENT.sub("", configuration))]
    patterns = [each if each.startswith("/") else f"*/{each}" for each in patterns]
    places = {folder / "current", folder.resolve() / "current"}
    return [
        name
        for name in names
        if not any(fnmatchcase(str(place / name), pattern) for place in places for pattern in patterns)
    ]


def _is_long(log: Path) -> bool:
    try:
        return log.stat().st_size > LOG_BYTES_MAX
    except FileNotFoundError:
        return False


def _worker_account() -> str | None:
    """Workers of root's nginx are nobody."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam("nobody")
        return f"nobody {grp.getgrgid(found.pw_gid).gr_name}"
    except KeyError as error:
        msg = "this machine has no account called nobody, which nginx's workers would become"
        raise NotFound(msg, code="nginx.no_account", fix="useradd --system nobody") from error
